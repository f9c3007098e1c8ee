"""The reference: the picture itself is optimized, with the loss that trains the networks.

The method is that of Gatys, Ecker, Bethge 2016.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from impasto.choices import LossOptions, OptimizeOptions, Optimizer
from impasto.images import resize
from impasto.perceptual.gaps import PhotoStatistics
from impasto.perceptual.loss import PerceptualLoss
from impasto.perceptual.target import ContentTarget, StyleTarget

RATES: dict[Optimizer, float] = {"lbfgs": 1.0, "adam": 0.02}
# Steps that L-BFGS remembers, each as two pictures. Its authors use 3 to 20 (Liu & Nocedal 1989).
HISTORY = 20
PLATEAU = 1e-3  # least share by which the loss must fall to count as an improvement

# Called with the number of steps done, the picture, and the unweighted terms with the total "loss".
OnStep = Callable[[int, Tensor, dict[str, float]], None]


@dataclass(frozen=True)
class Anchor:
    """A picture to stay near to: adds weight · mean(mask · (picture − image)²) to the loss.

    The mean is over all pixels (Ruder et al. 2016). So a pixel's pull does not depend
    on how many others are held.

    Args:
        image: what the pixels should stay near to, 1×3×H×W in [0, 1].
        mask: where they should, 1×1×H×W in [0, 1].
        weight: weight of the term, which is called `temporal`.
    """

    image: Float[Tensor, "1 3 h w"]
    mask: Float[Tensor, "1 1 h w"]
    weight: float

    def distance(self, picture: Float[Tensor, "1 3 h w"]) -> Float[Tensor, ""]:
        """Return mean(mask · (picture − image)²)."""
        return (self.mask * (picture - self.image).square()).mean()


@dataclass(frozen=True)
class Reference:
    """The settings of an optimization and of its loss."""

    options: OptimizeOptions
    loss: LossOptions

    def settings(self) -> dict[str, Any]:
        """Return all settings that change the picture; the path of the weights does not."""
        return {"options": asdict(self.options), "loss": asdict(replace(self.loss, weights=None))}


def optimize_image(
    content: Float[Tensor, "1 3 h w"],
    styles: Sequence[Float[Tensor, "1 3 _ _"]],
    loss: PerceptualLoss,
    options: OptimizeOptions | None = None,
    *,
    mixture: Sequence[float] | None = None,
    photos: Float[Tensor, "p 3 _ _"] | PhotoStatistics | None = None,
    masks: Float[Tensor, "n 1 _ _"] | None = None,
    start: Float[Tensor, "1 3 h w"] | None = None,
    anchor: Anchor | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "1 3 h w"]:
    """Return the picture that minimizes the loss, 1×3×H×W in [0, 1], in the size of `content`.

    Args:
        content: the photo, 1×3×H×W, RGB in [0, 1].
        styles: paintings 1×3×H×W in [0, 1], each of its own size.
        loss: the loss, with the loss network and the weights of its terms.
        options: settings of the optimization.
        mixture: weights of the paintings, which are scaled to sum to 1; None: equal weights. The
            Gram matrices of the paintings are averaged with them.
        photos: photos to measure the balance on, or their `PerceptualLoss.photo_statistics`; None:
            use the four quarters of `content`.
        masks: N×1×H×W in [0, 1]; each painting applies where its mask is 1. `mixture` then weighs
            the paintings' style errors instead of their Gram matrices.
        start: a picture to start from, instead of `options.start`; coarse sizes are then skipped.
        anchor: a picture to stay near to at the full size.
        on_step: called with the picture before each step, from step 0 on, and with the last picture
            of each size; see `OnStep`.

    Raises:
        ValueError: weights or masks that do not fit the paintings, a coarse size that is not below
            the full one, pictures too small for the loss network, or a loss that is not finite.
    """
    options = options or OptimizeOptions()
    if start is not None:
        options = replace(options, coarse=[])
    mixture = _normalized(mixture, len(styles))
    full = max(content.shape[-2:])
    if options.coarse and options.coarse[-1] >= full:
        raise ValueError(f"coarse {options.coarse}: sizes below that of the picture, {full}")
    if not isinstance(photos, PhotoStatistics) and loss.options.balance != "fixed":
        photos = loss.photo_statistics(quarters(content) if photos is None else photos)
    _check_masks(masks, len(styles))
    loss.dynamic.copy_(loss.asked)
    run, image = _Run(loss, options, on_step), start
    with _checkpointing(loss, options.checkpointing):
        for size, steps in _shared_out(options, full):
            photo = resize(content, size)
            paintings = [
                resize(style, max(1, round(max(style.shape[-2:]) * size / full)))
                for style in styles
            ]
            target = loss.style_target(paintings, photos, mixture, masks=masks)
            kept = loss.content_target(photo, _blend(photo, paintings, mixture, options.blend))
            image = _start(photo, options) if image is None else _grown(image, photo)
            image = run.descend(image, kept, target, steps, anchor if size == full else None)
    assert image is not None
    return image


class _Run:
    """An optimization over all sizes; it counts the steps and calls `on_step`."""

    def __init__(
        self, loss: PerceptualLoss, options: OptimizeOptions, on_step: OnStep | None
    ) -> None:
        self.loss, self.options, self.on_step = loss, options, on_step
        self.done = 0

    def descend(
        self,
        image: Tensor,
        content: ContentTarget,
        target: StyleTarget,
        steps: int,
        anchor: Anchor | None = None,
    ) -> Tensor:
        """Return the picture after `steps` iterations from `image`, or fewer on a plateau."""
        # L-BFGS needs contiguous memory.
        image = image.clone(memory_format=torch.contiguous_format).requires_grad_()
        optimizer = _optimizer(image, self.options)
        terms: dict[str, Tensor] = {}
        weights: dict[str, float] = {}

        def measured() -> dict[str, Tensor]:
            found = self.loss(image, content, target)
            held = {"temporal": anchor.weight * anchor.distance(image)} if anchor else {}
            return found | held

        def weighed() -> dict[str, float]:
            return self.loss.weights | ({"temporal": anchor.weight} if anchor else {})

        def closure() -> Tensor:
            if self.options.clamp:
                with torch.no_grad():
                    image.clamp_(0, 1)
            optimizer.zero_grad()
            found = measured()
            # Report the picture at the start of the step; a line search evaluates more pictures.
            if not terms:
                terms.update(found)
                weights.update(weighed())
            # Multiply by the number of values, so that a pixel's gradient does not shrink with the
            # size of the picture. L-BFGS discards curvature below 1e-10, an absolute value.
            total = torch.stack(list(found.values())).sum() * image.numel()
            total.backward()
            return total

        best, best_step = float("inf"), 0
        for step in range(steps):
            before = image.detach().clone()
            terms.clear()
            optimizer.step(closure)  # type: ignore[arg-type]  # torch declares a float
            total = self._report(before, terms, weights)
            if total < (1 - PLATEAU) * best:
                best, best_step = total, step
            self.done += 1
            if self.options.patience and step - best_step >= self.options.patience:
                break
        with torch.no_grad():
            image.clamp_(0, 1)
            self._report(image.detach(), measured(), weighed())
        return image.detach()

    def _report(self, image: Tensor, terms: dict[str, Tensor], weights: dict[str, float]) -> float:
        """Call `on_step` with the unweighted terms at `image`, and return the weighted sum."""
        fractions = {
            name: float(term.detach()) / weights[name]
            for name, term in terms.items()
            if weights[name]
        }
        total = float(torch.stack([term.detach() for term in terms.values()]).sum())
        if not math.isfinite(total):
            raise ValueError(
                f"step {self.done}: the loss is {total}; give a lower learning_rate, "
                "or line_search true with lbfgs"
            )
        if self.on_step:
            self.on_step(self.done, image.clamp(0, 1), {**fractions, "loss": total})
        return total


def _optimizer(image: Tensor, options: OptimizeOptions) -> torch.optim.Optimizer:
    rate = options.learning_rate or RATES[options.optimizer]
    if options.optimizer == "adam":
        return torch.optim.Adam([image], rate)
    # Each call does one iteration and keeps its history for the next. The tolerances are 0 because
    # `patience` decides when to stop.
    search = "strong_wolfe" if options.line_search else None
    return torch.optim.LBFGS(
        [image], rate, max_iter=1, max_eval=25, tolerance_grad=0, tolerance_change=0,
        history_size=HISTORY, line_search_fn=search,
    )  # fmt: skip


def _normalized(mixture: Sequence[float] | None, styles: int) -> list[float]:
    """Return the weights of the styles scaled to sum to 1, equal ones for None."""
    weights = [1.0] * styles if mixture is None else list(mixture)
    if not styles or len(weights) != styles:
        raise ValueError(
            f"{len(weights)} weights for {styles} styles: "
            "give at least one style, and a weight for each"
        )
    total = sum(weights)
    if min(weights) < 0 or not 0 < total < float("inf"):
        raise ValueError(f"weights of the styles {weights}: none below 0, and one at least above")
    return [weight / total for weight in weights]


def _check_masks(masks: Tensor | None, styles: int) -> None:
    if masks is None:
        return
    if len(masks) != styles:
        raise ValueError(
            f"{len(masks)} masks for {styles} styles: give a mask for each style, or none"
        )
    if empty := [number for number, mask in enumerate(masks, 1) if not mask.any()]:
        raise ValueError(
            f"mask {empty[0]}: is black everywhere; white is where its style is to hold"
        )


@contextmanager
def _checkpointing(loss: PerceptualLoss, wanted: bool) -> Iterator[None]:
    """Set `checkpointing` of the loss network, and restore it at the end."""
    before = loss.features.checkpointing
    try:
        loss.features.checkpointing = wanted
        yield
    finally:
        loss.features.checkpointing = before


def _blend(
    content: Tensor, styles: Sequence[Tensor], mixture: Sequence[float], share: float
) -> Tensor:
    """Return share · photo + (1 − share) · paintings, which are stretched to the photo's size."""
    stretched = [
        F.interpolate(style, size=content.shape[-2:], mode="bilinear", antialias=True)
        for style in styles
    ]
    painted = sum(
        (weight * style for weight, style in zip(mixture, stretched, strict=True)), torch.zeros(())
    )
    return share * content + (1 - share) * painted.to(content)


def quarters(content: Tensor) -> Tensor:
    """Return the four quarters of a photo, the least related pictures that one photo has."""
    h, w = (side // 2 for side in content.shape[-2:])
    h, w = max(1, h), max(1, w)
    return torch.cat(
        [
            content[..., y : y + h, x : x + w]
            for y in (0, content.shape[-2] - h)
            for x in (0, content.shape[-1] - w)
        ]
    )


def _shared_out(options: OptimizeOptions, full: int) -> Iterator[tuple[int, int]]:
    """Yield each size with its number of steps; the full size also gets the remainder."""
    sizes = [*options.coarse, full]
    each = options.steps // len(sizes)
    for size in sizes:
        yield size, each if size != full else options.steps - each * (len(sizes) - 1)


def _start(content: Tensor, options: OptimizeOptions) -> Tensor:
    """Return the picture to start from: content, noise or a mix."""
    share = {"content": 1.0, "noise": 0.0, "mix": options.noise_ratio}[options.start]
    generator = torch.Generator().manual_seed(options.seed)
    noise = torch.rand(content.shape, generator=generator).to(content)
    return share * content + (1 - share) * noise


def _grown(image: Tensor, like: Tensor) -> Tensor:
    """Return the image enlarged to the size of `like`."""
    return F.interpolate(image, size=like.shape[-2:], mode="bicubic").clamp(0, 1)
