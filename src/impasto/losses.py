"""Content, style and total variation (Gatys et al. 2016, Johnson et al. 2016), and what keeps them in balance."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.features import FeatureNetwork, LossNetwork

Balance = Literal["relative", "fixed", "dynamic"]
Key = tuple[float, str]  # (scale, layer)

STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")  # Gatys et al. 2016
# GradNorm (Chen et al. 2018): the exponent of its asymmetric experiment, and its weights' learning rate.
GRADNORM_ALPHA = 1.5
GRADNORM_RATE = 0.025


@dataclass
class LossOptions:
    """What is measured, and how the terms are weighed.

    Args:
        network: the loss network.
        weights: file or folder of its weights; None: the variable IMPASTO_WEIGHTS, torch's cache, a download.
        content_layers: weight of each content layer.
        style_layers: weight of each style layer.
        content_weight: weight of the content term.
        style_strength: weight of the style term; under `relative` it means the same for every painting.
        tv_weight: weight of the total variation.
        scales: the loss is summed over the image at these scales, 1 = full size.
        balance: relative (terms as fractions), fixed (the papers' plain weights), dynamic (GradNorm).
    """

    network: LossNetwork = "vgg19"
    weights: str | None = None
    content_layers: dict[str, float] = field(default_factory=lambda: {"relu4_2": 1.0})
    style_layers: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STYLE_LAYERS, 1.0))
    content_weight: float = 1.0
    style_strength: float = 1.0
    tv_weight: float = 0.1
    scales: list[float] = field(default_factory=lambda: [1.0])
    balance: Balance = "relative"

    def __post_init__(self) -> None:
        if not self.style_layers or not self.content_layers:
            raise ValueError("content_layers and style_layers: name at least one layer each, such as relu4_2: 1.0")
        if not self.scales or any(not 0 < scale <= 1 for scale in self.scales):
            raise ValueError(f"scales {self.scales}: give at least one, each above 0 and at most 1")
        for name in ("content_weight", "style_strength", "tv_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)}: must not be negative")
        layers = [*self.content_layers.items(), *self.style_layers.items()]
        if negative := [layer for layer, weight in layers if weight <= 0]:
            raise ValueError(f"layer weight of {', '.join(negative)}: must be above 0; leave the layer out instead")


@dataclass(frozen=True)
class StyleTarget:
    """What an output is compared with: a value, computed once and reused.

    grams: N×C×C by (scale, layer), one for each of N styles.
    style_gaps: N by (scale, layer): E[MSE(G(photo), A)], what lies between ordinary photos and the style.
    content_gaps: a scalar by (scale, layer): E[MSE(F(photo_i), F(photo_j))] over unrelated photos.
    The gaps are 1 where the balance is `fixed`.
    """

    grams: dict[Key, Tensor]
    style_gaps: dict[Key, Tensor]
    content_gaps: dict[Key, Tensor]

    def select(self, index: Int[Tensor, " b"]) -> "StyleTarget":
        """The target of a batch whose i-th picture is to take on style `index[i]`."""
        return StyleTarget(
            {key: gram[index] for key, gram in self.grams.items()},
            {key: gap[index] for key, gap in self.style_gaps.items()},
            self.content_gaps,
        )

    def gaps(self) -> dict[str, dict[str, list[float]]]:
        """The gaps as JSON: {"style": {"1.0/relu1_1": [one for each style], …}, "content": {…: [one]}}."""
        parts = {"style": self.style_gaps, "content": self.content_gaps}
        return {part: {f"{scale}/{layer}": gap.reshape(-1).tolist() for (scale, layer), gap in gaps.items()}
                for part, gaps in parts.items()}  # fmt: skip


def gram_matrix(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """F Fᵀ / (C·H·W) (Johnson et al. 2016, eq. 3), in float32 even under autocast (float64 stays).

    Gatys et al. divide the squared difference by 4·N²·M² (N = C, M = H·W) where the mean over C×C of ours
    divides by C²·(C·H·W)²: ours is 4 / C² of theirs per layer. A Gram over H·W alone is C times ours, its
    squared error C² times. Constants a layer, which `balance: relative` divides out.
    """
    b, c, h, w = features.shape
    with torch.autocast(features.device.type, enabled=False):
        # A view where the features are channels-last, as those of the loss network are.
        pixels = _exact(features).permute(0, 2, 3, 1).reshape(b, h * w, c)
        return _SquareProduct.apply(pixels) / (c * h * w)


class _SquareProduct(torch.autograd.Function):
    """XᵀX, whose gradient X (D + Dᵀ) takes one product; autograd's own takes two, and adds them up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.transpose(1, 2) @ x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        (d,) = gradients
        return x @ (d + d.transpose(1, 2))


def total_variation(image: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """mean |dx| + mean |dy|; 0 for a flat image, at most 2 for one in [0, 1]. A side of one pixel counts 0."""
    image = _exact(image)
    dx = (image[..., :, 1:] - image[..., :, :-1]).abs()
    dy = (image[..., 1:, :] - image[..., :-1, :]).abs()
    return sum((d.mean() for d in (dx, dy) if d.numel()), start=image.new_zeros(()))


def _squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of each picture of the batch: B."""
    return (_exact(a) - _exact(b)).square().flatten(1).mean(1)


def _exact(x: Tensor) -> Tensor:
    """Half precision to float32, where small differences and long sums would be lost; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


class PerceptualLoss(nn.Module):
    """Content, style and total variation terms of an output, by name; their sum is the loss.

    Args:
        options: layers, weights, scales and balance.
        features: the loss network to use instead of the one `options` names (any module that gives the layers).
    """

    dynamic: Tensor
    features: nn.Module

    def __init__(self, options: LossOptions | None = None, features: nn.Module | None = None) -> None:
        super().__init__()
        self.options = options = options or LossOptions()
        layers = list(dict.fromkeys([*options.content_layers, *options.style_layers]))
        self.features = features or FeatureNetwork(options.network, layers, options.weights)
        self.register_buffer("dynamic", torch.tensor([options.content_weight, options.style_strength]))

    def style_target(
        self,
        styles: Sequence[Float[Tensor, "1 3 _ _"]],
        photos: Float[Tensor, "p 3 h w"] | None = None,
        mixture: Sequence[float] | None = None,
        gaps: dict[str, dict[str, list[float]]] | None = None,
    ) -> StyleTarget:
        """The target of N style images, each of its own size, in [0, 1].

        Args:
            styles: the paintings.
            photos: a dozen or more unrelated photos in [0, 1], on which the gaps are measured.
            mixture: weights of the paintings: their Gram matrices are mixed into one style, N = 1.
            gaps: those of `StyleTarget.gaps`, measured earlier on the same styles; then no photos are needed.

        Raises:
            ValueError: `balance` needs photos (two at least) and there are none.
        """
        each = [self._grams(style) for style in styles]
        grams = {key: torch.cat([part[key] for part in each]) for key in each[0]}
        if mixture is not None:
            weights = torch.tensor(mixture, dtype=torch.float32)
            grams = {key: torch.tensordot(weights.to(gram), gram, 1)[None] for key, gram in grams.items()}
        if self.options.balance == "fixed":
            ones = {key: torch.ones(len(gram)).to(gram) for key, gram in grams.items()}
            return StyleTarget(grams, ones, {key: torch.ones(()) for key in self._keys(self.options.content_layers)})
        if gaps is not None:
            return StyleTarget(grams, _read_gaps(gaps["style"], grams), {
                key: gap[0] for key, gap in _read_gaps(gaps["content"], grams).items()
            })  # fmt: skip
        if photos is None or len(photos) < 2:
            raise ValueError(f"balance: {self.options.balance} is measured on photos: give at least two")
        return self._measure_gaps(grams, photos)

    @torch.no_grad()
    def _measure_gaps(self, grams: dict[Key, Tensor], photos: Tensor) -> StyleTarget:
        """Both gaps (design: relative balance), from the photos one at a time, so that memory stays bounded."""
        style_gaps = {key: torch.zeros(len(gram), device=gram.device) for key, gram in grams.items()}
        moments: dict[Key, tuple[Tensor, Tensor]] = {}
        for photo in photos.split(1):
            for key, found in self._pyramid(photo).items():
                if key in grams:
                    style_gaps[key] += _squared_error(gram_matrix(found), grams[key]) / len(photos)
                if key[1] in self.options.content_layers:
                    f = _exact(found[0])
                    total, squares = moments.get(key, (torch.zeros_like(f), f.new_zeros(())))
                    moments[key] = (total + f, squares + f.square().mean())
        content_gaps = {key: _pair_distance(*moment, len(photos)) for key, moment in moments.items()}
        # A flat grey "photo" folder would have no gap: kept above 0 so that nothing divides by it.
        return StyleTarget(
            grams,
            {key: gap.clamp(min=1e-12) for key, gap in style_gaps.items()},
            {key: gap.clamp(min=1e-12) for key, gap in content_gaps.items()},
        )

    def forward(
        self, output: Float[Tensor, "b 3 h w"], content: Float[Tensor, "b 3 h w"], target: StyleTarget
    ) -> dict[str, Tensor]:
        """Weighted terms `content`, `style`, `tv`, scalars; divide by their weights to read the fractions.

        Args:
            output: the stylized pictures, in [0, 1].
            content: the photos, in [0, 1].
            target: of one style, or of as many as the batch has pictures (`StyleTarget.select`).
        """
        with torch.no_grad():
            wanted = self._pyramid(content, self.options.content_layers)
        found = self._pyramid(output)
        terms = {
            "content": self._content_term(found, wanted, target),
            "style": self._style_term(found, target),
        }
        if self.options.balance == "dynamic" and terms["style"].requires_grad:
            self._follow(terms, output)
        terms["tv"] = total_variation(output)
        weights = self.weights
        return {name: weights[name] * term for name, term in terms.items()}

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each term at this moment."""
        options = self.options
        content, style = options.content_weight, options.style_strength
        if options.balance == "dynamic":
            content, style = self.dynamic.tolist()
        return {"content": content, "style": style, "tv": options.tv_weight}

    def _content_term(self, found: dict, wanted: dict, target: StyleTarget) -> Tensor:
        """Σ w_l · MSE(F_l(output), F_l(content)) / gap_l; plain MSE under `fixed`."""
        weights = self._layer_weights(self.options.content_layers)
        errors = {key: _squared_error(found[key], wanted[key]) / target.content_gaps[key] for key in weights}
        return torch.stack([weights[key] * error.mean() for key, error in errors.items()]).sum()

    def _style_term(self, found: dict, target: StyleTarget) -> Tensor:
        """Σ w_l · MSE(G_l(output), A_l) / gap_l; plain MSE under `fixed`."""
        weights = self._layer_weights(self.options.style_layers)
        errors = {key: _squared_error(gram_matrix(found[key]), gram) / target.style_gaps[key]
                  for key, gram in target.grams.items()}  # fmt: skip
        return torch.stack([weights[key] * error.mean() for key, error in errors.items()]).sum()

    def _layer_weights(self, layers: dict[str, float]) -> dict[Key, float]:
        """Under `fixed` as given; else scaled to sum 1 over layers and scales, so that the term is a fraction."""
        total = 1.0 if self.options.balance == "fixed" else sum(layers.values()) * len(self.options.scales)
        return {(scale, layer): layers[layer] / total for scale, layer in self._keys(layers)}

    def _keys(self, layers: dict[str, float]) -> list[Key]:
        return [(scale, layer) for scale in self.options.scales for layer in layers]

    def _pyramid(self, image: Tensor, layers: dict[str, float] | None = None) -> dict[Key, Tensor]:
        """Features by (scale, layer); of all layers, or of those named."""
        found: dict[Key, Tensor] = {}
        for scale in self.options.scales:
            scaled = image
            if scale != 1:
                size = [max(1, round(side * scale)) for side in image.shape[-2:]]
                scaled = F.interpolate(image, size=size, mode="bilinear", antialias=True)
            found |= {(scale, layer): value for layer, value in self.features(scaled, layers).items()}
        return found

    @torch.no_grad()
    def _grams(self, style: Tensor) -> dict[Key, Tensor]:
        return {key: gram_matrix(value) for key, value in self._pyramid(style, self.options.style_layers).items()}

    def _follow(self, terms: dict[str, Tensor], output: Tensor) -> None:
        """One step of GradNorm (Chen et al. 2018, eq. 2 and algorithm 1) on the weights of content and style.

        Departures: the gradients are taken at the picture, which training and the reference share, instead of
        the last shared layer; L(0) is 1, what a fraction is before anything is learned (section 3.2 of the paper
        allows the theoretical value), since from a content start the measured one would be 0; the user's weights
        scale the norms aimed at.
        """
        gradients = [torch.autograd.grad(term, output, retain_graph=True)[0] for term in terms.values()]
        norms = torch.stack([gradient.detach().float().norm() for gradient in gradients])
        fractions = torch.stack([term.detach() for term in terms.values()])
        rates = (fractions / fractions.mean().clamp(min=1e-12)) ** GRADNORM_ALPHA
        asked = torch.tensor([self.options.content_weight, self.options.style_strength]).to(norms)
        aim = (self.dynamic * norms).mean() * rates * asked / asked.mean()
        # |w·g − aim| falls along sign(·)·g; scaled by the mean norm, so that the rate has no unit.
        step = torch.sign(self.dynamic * norms - aim) * norms / norms.mean().clamp(min=1e-12)
        moved = (self.dynamic - GRADNORM_RATE * step).clamp(min=1e-3)
        self.dynamic.copy_(moved * asked.sum() / moved.sum())


def _read_gaps(gaps: dict[str, list[float]], like: dict[Key, Tensor]) -> dict[Key, Tensor]:
    device = next(iter(like.values())).device
    keys = [text.split("/") for text in gaps]
    return {(float(scale), layer): torch.tensor(gap, device=device)
            for (scale, layer), gap in zip(keys, gaps.values(), strict=True)}  # fmt: skip


def _pair_distance(total: Tensor, squares: Tensor, n: int) -> Tensor:
    """E[MSE(F_i, F_j)] over the pairs i ≠ j of n pictures, from Σ F and Σ mean(F²)."""
    return 2 / (n - 1) * (squares - (total.square() / n).mean())
