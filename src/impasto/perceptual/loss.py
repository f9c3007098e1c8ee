"""Content, style and total variation (Gatys et al. 2016, Johnson et al. 2016), and what keeps them in balance."""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.choices import LossOptions
from impasto.kernels import exact, square_products
from impasto.perceptual.features import Bands, FeatureNetwork, whole
from impasto.perceptual.target import (
    ContentTarget,
    Key,
    PhotoStatistics,
    StyleTarget,
    dead_leaves,
    gradnorm,
    pair_distance,
    read_gaps,
    squared_error,
)

ByKey = dict[Key, Tensor]

_LOG = logging.getLogger("impasto")

_LIKENESS = (
    0.6  # of photos that may say nothing: unrelated photos share a fifth to a half of relu4_2
)
_NOTHING = 0.1  # of what lies between drawn pictures
_DRAWN = 8  # pictures


def gram_matrix(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """F Fᵀ / (C·H·W) (Johnson et al. 2016, eq. 3), in float32 even under autocast (float64 stays).

    Gatys et al. divide the squared difference by 4·N²·M² (N = C, M = H·W) where the mean over C×C of ours
    divides by C²·(C·H·W)²: ours is 4 / C² of theirs per layer. A Gram over H·W alone is C times ours, its
    squared error C² times. Constants a layer, which `balance: relative` divides out.
    """
    return square_products(features) / features.shape[1:].numel()


def total_variation(image: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """mean |dx| + mean |dy|; 0 for a flat image, at most 2 for one in [0, 1]. A side of one pixel counts 0."""
    image = exact(image)
    dx = (image[..., :, 1:] - image[..., :, :-1]).abs()
    dy = (image[..., 1:, :] - image[..., :-1, :]).abs()
    return sum((d.mean() for d in (dx, dy) if d.numel()), start=image.new_zeros(()))


def _gram_within(
    features: Tensor | Bands, masks: Float[Tensor, "n 1 _ _"] | None
) -> Float[Tensor, "n c c"]:
    """`gram_matrix`; under each mask, whose squares are brought to a mean of 1 (Gatys et al. 2017, eq. 3)."""
    if masks is not None:
        masks = F.interpolate(masks, size=features.shape[-2:], mode="area")
        masks = masks * masks.square().mean((2, 3), keepdim=True).clamp(min=1e-6).rsqrt()

    def products(part: Tensor, rows: slice = slice(None)) -> Tensor:
        return square_products(part if masks is None else exact(part) * masks[:, :, rows])

    total = products(features) if isinstance(features, Tensor) else features.sum(products)
    return total / features.shape[1:].numel()


class PerceptualLoss(nn.Module):
    """Content, style and total variation terms of an output, by name; their sum is the loss.

    Args:
        options: layers, weights, scales and balance.
        features: the loss network to use instead of the one `options` names (any module with such a `walk`).
    """

    asked: Tensor
    dynamic: Tensor
    features: FeatureNetwork

    def __init__(
        self, options: LossOptions | None = None, features: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.options = options = options or LossOptions()
        self.kept_layers = {
            **options.content_layers,
            **(options.secondary_layers if options.secondary_weight else {}),
        }
        layers = list(dict.fromkeys([*self.kept_layers, *options.style_layers]))
        self.features = features or FeatureNetwork(options.network, layers, options.weights)  # type: ignore[assignment]
        self.register_buffer(
            "asked", torch.tensor([options.content_weight, options.style_strength])
        )
        self.register_buffer("dynamic", self.asked.clone())  # what `balance: dynamic` moves

    def style_target(
        self,
        styles: Sequence[Float[Tensor, "1 3 _ _"]],
        photos: Float[Tensor, "p 3 h w"] | PhotoStatistics | None = None,
        mixture: Sequence[float] | None = None,
        gaps: dict[str, dict[str, list[float]]] | None = None,
        masks: Float[Tensor, "n 1 _ _"] | None = None,
    ) -> StyleTarget:
        """The target of N style images, each of its own size, in [0, 1].

        Args:
            styles: the paintings.
            photos: a dozen or more unrelated photos in [0, 1], on which the gaps are measured; or their
                `photo_statistics`, where several targets are to be made.
            mixture: weights of the paintings: their Gram matrices are mixed into one style, N = 1.
            gaps: those of `StyleTarget.gaps`, measured earlier on the same styles; then no photos are needed.
            masks: where in the picture each painting holds; then `mixture` weighs their errors, and N stays.

        Raises:
            ValueError: `balance` needs photos (two at least) and there are none.
        """
        each = [self._grams(style) for style in styles]
        grams = {key: torch.cat([part[key] for part in each]) for key in each[0]}
        if masks is not None:
            shares = torch.tensor(mixture or [1 / len(styles)] * len(styles)).to(masks)
            return replace(self._balanced(grams, photos, gaps), masks=masks, shares=shares)
        if mixture is not None:
            weights = torch.tensor(mixture, dtype=torch.float32)
            grams = {
                key: torch.tensordot(weights.to(gram), gram, 1)[None] for key, gram in grams.items()
            }
        return self._balanced(grams, photos, gaps)

    def _balanced(
        self,
        grams: dict[Key, Tensor],
        photos: Tensor | PhotoStatistics | None,
        gaps: dict[str, dict[str, list[float]]] | None,
    ) -> StyleTarget:
        if self.options.balance == "fixed":
            ones = {key: torch.ones(len(gram)).to(gram) for key, gram in grams.items()}
            return StyleTarget(
                grams, ones, {key: torch.ones(()) for key in self._keys(self.kept_layers)}
            )
        if gaps is not None:
            return StyleTarget(grams, read_gaps(gaps["style"], grams), {
                key: gap[0] for key, gap in read_gaps(gaps["content"], grams).items()
            })  # fmt: skip
        if not isinstance(photos, PhotoStatistics):
            photos = self.photo_statistics(photos)
        # Of a layer that answers to nothing there is no gap: kept above 0 so that nothing divides by it.
        return StyleTarget(
            grams,
            {key: gap.clamp(min=1e-12) for key, gap in photos.style_gaps(grams).items()},
            {key: gap.clamp(min=1e-12) for key, gap in photos.content_gaps.items()},
        )

    @torch.no_grad()
    def photo_statistics(self, photos: Float[Tensor, "p 3 h w"] | None) -> PhotoStatistics:
        """What both gaps are measured on (design: relative balance).

        Photos that are all alike, as flat ones are, have nothing between them to measure: pictures that are drawn
        (`dead_leaves`) stand in for them then, and for photos too small for the loss network; a warning says so.

        Raises:
            ValueError: fewer than two photos.
        """
        if photos is None or len(photos) < 2:
            raise ValueError(
                f"balance: {self.options.balance} is measured on photos: give at least two"
            )
        sides = photos.shape[-2:]
        why = "too small for the loss network"
        if min(sides) * min(self.options.scales) >= getattr(self.features, "smallest", 1):
            found, likeness = self._measured(photos)
            if likeness < _LIKENESS:
                return found
            why = "all alike"
        drawn, _ = self._measured(dead_leaves(_DRAWN, min(256, max(128, *sides))).to(photos))
        if why == "all alike" and all(
            gap > _NOTHING * drawn.content_gaps[key] for key, gap in found.content_gaps.items()
        ):
            return found
        _LOG.warning(
            "the photos for the balance are %s: it is measured on drawn pictures instead", why
        )
        return drawn

    def _measured(self, photos: Tensor) -> tuple[PhotoStatistics, float]:
        """The statistics, one photo at a time, so that memory stays bounded; and how much alike the photos are.

        That is the most that they share of their features in any layer, from 0 to 1.
        """
        grams: ByKey = {}
        spreads: ByKey = {}
        moments: dict[Key, tuple[Tensor, Tensor]] = {}
        for number, photo in enumerate(photos.split(1), start=1):
            kept, found = self._pyramid(photo)
            for (
                key,
                gram,
            ) in found.items():  # Welford 1962: means without a difference of large sums
                change = gram - grams.get(key, 0)
                grams[key] = grams.get(key, 0) + change / number
                spreads[key] = spreads.get(key, 0) + (change * (gram - grams[key])).mean() / len(
                    photos
                )
            for key, features in kept.items():
                f = exact(features[0])
                total, squares = moments.get(key, (torch.zeros_like(f), f.new_zeros(())))
                moments[key] = (total + f, squares + f.square().mean())
        gaps = {key: pair_distance(*moment, len(photos)) for key, moment in moments.items()}
        shared = [
            1 - float(gaps[key] / (2 * squares / len(photos)).clamp(min=1e-30))
            for key, (_, squares) in moments.items()
        ]
        return PhotoStatistics(grams, spreads, gaps), max(shared)

    @torch.no_grad()
    def content_target(
        self, content: Float[Tensor, "b 3 h w"], blend: Float[Tensor, "b 3 h w"] | None = None
    ) -> ContentTarget:
        """What outputs are to keep of the photos, and of a blend of photo and painting; to be computed once.

        Raises:
            ValueError: `combined_weight` asks for a blend, and there is none.
        """
        options, (found, _) = self.options, self._pyramid(content, self.kept_layers)
        wanted = {"content": found}
        if options.secondary_weight:
            wanted["secondary"] = found
        if options.combined_weight and blend is None:
            raise ValueError(
                f"combined_weight {options.combined_weight}: is for the optimization; give 0 in training"
            )
        if options.combined_weight and blend is not None:
            wanted["combined"], _ = self._pyramid(blend, options.content_layers)
        return ContentTarget(wanted)

    def forward(
        self,
        output: Float[Tensor, "b 3 h w"],
        content: Float[Tensor, "b 3 h w"] | ContentTarget,
        target: StyleTarget,
    ) -> dict[str, Tensor]:
        """Weighted terms `content`, `style`, `tv` and what else has a weight, scalars; divided by it, fractions.

        Args:
            output: the stylized pictures, in [0, 1].
            content: the photos, in [0, 1], or what `content_target` made of them.
            target: of one style, or of as many as the batch has pictures (`StyleTarget.select`).
        """
        kept = content if isinstance(content, ContentTarget) else self.content_target(content)
        features, grams = self._pyramid(output, masks=target.masks)
        terms = {
            name: self._content_term(features, wanted, target, name)
            for name, wanted in kept.features.items()
        }
        terms["style"] = self._style_term(grams, target)
        if self.options.balance == "dynamic" and terms["style"].requires_grad:
            self._follow([terms["content"], terms["style"]], output)
        terms["tv"] = total_variation(output)
        weights = self.current
        return {name: weights[name] * term for name, term in terms.items()}

    @property
    def current(self) -> dict[str, float | Tensor]:
        """The weight of each term at this moment; those that `dynamic` moves are on the device, where no step waits for
        them."""
        moved = zip(("content", "style"), self.dynamic.clone(), strict=True)
        return self.options.asked | (dict(moved) if self.options.balance == "dynamic" else {})

    @property
    def weights(self) -> dict[str, float]:
        """The same, as numbers."""
        return {name: float(weight) for name, weight in self.current.items()}

    def _content_term(self, found: ByKey, wanted: ByKey, target: StyleTarget, name: str) -> Tensor:
        """Σ w_l · MSE(F_l(output), F_l(content)) / gap_l; plain MSE under `fixed`."""
        options = self.options
        weights = self._layer_weights(
            options.secondary_layers if name == "secondary" else options.content_layers
        )
        errors = {
            key: squared_error(found[key], wanted[key]) / target.content_gaps[key]
            for key in weights
        }
        return torch.stack([weights[key] * error.mean() for key, error in errors.items()]).sum()

    def _style_term(self, found: ByKey, target: StyleTarget) -> Tensor:
        """Σ w_l · MSE(G_l(output), A_l) / gap_l; plain MSE under `fixed`."""
        weights = self._layer_weights(self.options.style_layers)
        total = target.grams[next(iter(weights))].new_zeros(())
        for key, gram in target.grams.items():
            error = squared_error(found[key], gram) / target.style_gaps[key]
            total = total + weights[key] * (
                error.mean() if target.shares is None else (error * target.shares).sum()
            )
        return total

    def _layer_weights(self, layers: dict[str, float]) -> dict[Key, float]:
        """Under `fixed` as given; else scaled to sum 1 over layers and scales, so that the term is a fraction."""
        total = (
            1.0
            if self.options.balance == "fixed"
            else sum(layers.values()) * len(self.options.scales)
        )
        return {(scale, layer): layers[layer] / total for scale, layer in self._keys(layers)}

    def _keys(self, layers: dict[str, float]) -> list[Key]:
        return [(scale, layer) for scale in self.options.scales for layer in layers]

    def _pyramid(
        self, image: Tensor, layers: dict[str, float] | None = None, masks: Tensor | None = None
    ) -> tuple[ByKey, ByKey]:
        """Features of the content layers and Gram matrices of the style layers (within the masks), by (scale, layer);
        of all layers, or of those named."""
        kept: ByKey = {}
        grams: ByKey = {}
        for scale in self.options.scales:
            scaled = image
            if scale != 1:
                size = [max(1, round(side * scale)) for side in image.shape[-2:]]
                scaled = F.interpolate(image, size=size, mode="bilinear", antialias=True)
            for layer, features in self.features.walk(scaled, layers):
                if layer in self.kept_layers:
                    kept[scale, layer] = whole(features)
                if layer in self.options.style_layers:
                    grams[scale, layer] = _gram_within(features, masks)
        return kept, grams

    @torch.no_grad()
    def _grams(self, style: Tensor) -> ByKey:
        return self._pyramid(style, self.options.style_layers)[1]

    def _follow(self, terms: list[Tensor], output: Tensor) -> None:
        """Moves the weights of content and style on, by one step of GradNorm."""
        gradients = [torch.autograd.grad(term, output, retain_graph=True)[0] for term in terms]
        norms = torch.stack([gradient.detach().float().norm() for gradient in gradients])
        self.dynamic.copy_(gradnorm(self.dynamic, norms, torch.stack(terms).detach(), self.asked))
