"""The perceptual loss: content, style and total variation terms, and the balance between them.

The terms are those of Gatys et al. 2016 and Johnson et al. 2016. The balance divides each term by
its value for ordinary photos, its gap (`perceptual.gaps`).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.choices import LossOptions
from impasto.kernels import at_least_float32, square_products
from impasto.perceptual.features import Bands, FeatureNetwork, whole
from impasto.perceptual.gaps import PhotoStatistics, photo_statistics
from impasto.perceptual.target import (
    ByKey,
    ContentTarget,
    Key,
    StyleTarget,
    gradnorm,
    read_gaps,
    squared_error,
)


def gram_matrix(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """Return the Gram matrices F Fᵀ / (C·H·W) (Johnson et al. 2016, eq. 3), B×C×C.

    They are computed in float32 even under autocast; float64 stays.

    Other definitions differ from ours by a constant per layer, which `balance: relative` divides
    out. Gatys et al. divide the squared difference by 4·N²·M², with N = C and M = H·W. The mean
    over our C×C values divides it by C²·(C·H·W)², so our error is 4 / C² of theirs. A Gram matrix
    divided by H·W alone is C times ours, and its squared error C² times.
    """
    # `numel` would fix the size of an exported graph.
    return square_products(features) / math.prod(features.shape[1:])


def total_variation(image: Float[Tensor, "b c h w"]) -> Float[Tensor, ""]:
    """Return mean |dx| + mean |dy|: 0 for a flat image, at most 2 for values in [0, 1].

    An axis of a single pixel contributes 0.
    """
    image = at_least_float32(image)
    dx = (image[..., :, 1:] - image[..., :, :-1]).abs()
    dy = (image[..., 1:, :] - image[..., :-1, :]).abs()
    return sum((d.mean() for d in (dx, dy) if d.numel()), start=image.new_zeros(()))


def _gram_within(
    features: Tensor | Bands, masks: Float[Tensor, "n 1 _ _"] | None
) -> Float[Tensor, "n c c"]:
    """Return `gram_matrix(features)`, or the N Gram matrices of one picture under N masks.

    Each mask is scaled to the features' size and so that its squares have a mean of 1 (Gatys et al.
    2017, eq. 3).
    """
    if masks is not None:
        masks = F.interpolate(masks, size=features.shape[-2:], mode="area")
        masks = masks * masks.square().mean((2, 3), keepdim=True).clamp(min=1e-6).rsqrt()

    products = partial(_products_within, masks=masks)
    total = products(features) if isinstance(features, Tensor) else features.sum(products)
    return total / features.shape[1:].numel()


def _products_within(
    part: Tensor, rows: slice = slice(None), *, masks: Float[Tensor, "n 1 _ _"] | None
) -> Tensor:
    """Return the square products of some rows of features, under the same rows of the masks."""
    return square_products(part if masks is None else at_least_float32(part) * masks[:, :, rows])


class PerceptualLoss(nn.Module):
    """The weighted content, style and total variation terms of stylized pictures.

    The loss is the sum of the terms.

    Args:
        options: layers, weights, scales and balance.
        features: the loss network; None: the one that `options` names. Any module with the `walk`
            of `FeatureNetwork` will do.

    Attributes:
        asked: buffer of the weights of content and style that the options give.
        dynamic: buffer of the same weights, which `balance: dynamic` changes.
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
        self.features = features or FeatureNetwork(  # type: ignore[assignment]
            options.network, layers, options.weights
        )
        self.register_buffer(
            "asked", torch.tensor([options.content_weight, options.style_strength])
        )
        self.register_buffer("dynamic", self.asked.clone())

    def style_target(
        self,
        styles: Sequence[Float[Tensor, "1 3 _ _"]],
        photos: Float[Tensor, "p 3 h w"] | PhotoStatistics | None = None,
        mixture: Sequence[float] | None = None,
        gaps: dict[str, dict[str, list[float]]] | None = None,
        masks: Float[Tensor, "n 1 _ _"] | None = None,
    ) -> StyleTarget:
        """Return the target of N paintings.

        Args:
            styles: paintings 1×3×H×W in [0, 1], each of its own size.
            photos: P×3×H×W in [0, 1], a dozen or more unrelated photos to measure the gaps on. To
                make several targets, pass their `photo_statistics` instead. Not needed with `gaps`
                or under `balance: fixed`.
            mixture: weights of the paintings. Without masks, the Gram matrices are averaged with
                these weights into one style (N = 1). With masks, they weigh the N style errors.
            gaps: the result of `StyleTarget.gaps` from an earlier target of the same paintings.
            masks: N×1×H×W in [0, 1]; each painting applies where its mask is 1.

        Raises:
            ValueError: the gaps need to be measured, and there are fewer than two photos.
        """
        each = [self.grams(style) for style in styles]
        grams = {key: torch.cat([part[key] for part in each]) for key in each[0]}
        if masks is not None:
            shares = torch.tensor(mixture or [1 / len(styles)] * len(styles)).to(masks)
            return replace(self.balanced(grams, photos, gaps), masks=masks, shares=shares)
        if mixture is not None:
            weights = torch.tensor(mixture, dtype=torch.float32)
            grams = {
                key: torch.tensordot(weights.to(gram), gram, 1)[None] for key, gram in grams.items()
            }
        return self.balanced(grams, photos, gaps)

    def balanced(
        self,
        grams: dict[Key, Tensor],
        photos: Tensor | PhotoStatistics | None,
        gaps: dict[str, dict[str, list[float]]] | None = None,
    ) -> StyleTarget:
        """Return the target of Gram matrices, with its gaps set to 1, given, or measured."""
        if self.options.balance == "fixed":
            ones = {key: torch.ones(len(gram)).to(gram) for key, gram in grams.items()}
            return StyleTarget(
                grams, ones, {key: torch.ones(()) for key in self._keys(self.kept_layers)}
            )
        if gaps is not None:
            return StyleTarget(
                grams,
                read_gaps(gaps["style"], grams),
                {key: gap[0] for key, gap in read_gaps(gaps["content"], grams).items()},
            )
        if not isinstance(photos, PhotoStatistics):
            photos = self.photo_statistics(photos)
        # A layer with no response has a gap of 0, by which errors must not be divided.
        return StyleTarget(
            grams,
            {key: gap.clamp(min=1e-12) for key, gap in photos.style_gaps(grams).items()},
            {key: gap.clamp(min=1e-12) for key, gap in photos.content_gaps.items()},
        )

    @torch.no_grad()
    def photo_statistics(self, photos: Float[Tensor, "p 3 h w"] | None) -> PhotoStatistics:
        """Return the statistics of photos, from which the gaps of any style are computed.

        Args:
            photos: P×3×H×W in [0, 1], at least two; `perceptual.gaps` tells which will not do.

        Raises:
            ValueError: fewer than two photos.
        """
        if photos is None or len(photos) < 2:
            raise ValueError(
                f"balance: {self.options.balance} is measured on photos: give at least two"
            )
        smallest = getattr(self.features, "smallest", 1) / min(self.options.scales)
        return photo_statistics(photos, self._pyramid, smallest)

    @torch.no_grad()
    def content_target(
        self, content: Float[Tensor, "b 3 h w"], blend: Float[Tensor, "b 3 h w"] | None = None
    ) -> ContentTarget:
        """Return the features that outputs should keep.

        Compute the target once if the same photos are compared with several outputs.

        Args:
            content: photos B×3×H×W in [0, 1].
            blend: photos blended with paintings, B×3×H×W in [0, 1], for the `combined` term.

        Raises:
            ValueError: `combined_weight` is set, and there is no blend.
        """
        options, (found, _) = self.options, self._pyramid(content, self.kept_layers)
        wanted = {"content": found}
        if options.secondary_weight:
            wanted["secondary"] = found
        if options.combined_weight and blend is None:
            raise ValueError(
                f"combined_weight {options.combined_weight}: is for the optimization; "
                "give 0 in training"
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
        """Return the weighted terms as scalars, by name.

        The terms are `content`, `style` and `tv`, and `secondary` and `combined` where they have a
        weight. Divided by its weight, a content or style term is a fraction of its gap.

        Args:
            output: the stylized pictures, in [0, 1].
            content: the photos in [0, 1], or their `content_target`.
            target: the target of one style, or of one style per sample (`StyleTarget.select`).
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
        """The current weight of each term.

        Under `balance: dynamic`, the weights of content and style are tensors on the device, so
        that a training step does not wait for them.
        """
        moved = zip(("content", "style"), self.dynamic.clone(), strict=True)
        return self.options.asked | (dict(moved) if self.options.balance == "dynamic" else {})

    @property
    def weights(self) -> dict[str, float]:
        """The current weight of each term, as numbers; reading them waits for the device."""
        return {name: float(weight) for name, weight in self.current.items()}

    def _content_term(self, found: ByKey, wanted: ByKey, target: StyleTarget, name: str) -> Tensor:
        """Return Σ w_l · MSE(F_l(output), F_l(wanted)) / gap_l; gaps are 1 under `fixed`.

        Args:
            found: features of the outputs.
            wanted: features to keep.
            target: holds the gaps.
            name: `content`, `secondary` or `combined`; decides the layers and their weights.
        """
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
        """Return Σ w_l · MSE(G_l(output), A_l) / gap_l; gaps are 1 under `fixed`."""
        weights = self._layer_weights(self.options.style_layers)
        total = target.grams[next(iter(weights))].new_zeros(())
        for key, gram in target.grams.items():
            error = squared_error(found[key], gram) / target.style_gaps[key]
            total = total + weights[key] * (
                error.mean() if target.shares is None else (error * target.shares).sum()
            )
        return total

    def _layer_weights(self, layers: dict[str, float]) -> dict[Key, float]:
        """Return the weight of each (scale, layer).

        Unless the balance is `fixed`, they are divided by their sum, so that a term is a fraction.
        """
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
        """Return content features and Gram matrices of an image, each by (scale, layer).

        Args:
            image: B×3×H×W in [0, 1].
            layers: the layers to compute; None: all.
            masks: N×1×H×W, under which Gram matrices are taken.
        """
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
    def grams(self, style: Float[Tensor, "b 3 h w"]) -> ByKey:
        """Return the Gram matrices of paintings B×3×H×W in [0, 1], for `balanced`."""
        return self._pyramid(style, self.options.style_layers)[1]

    def _follow(self, terms: list[Tensor], output: Tensor) -> None:
        """Update the dynamic weights of content and style by one step of GradNorm."""
        gradients = [torch.autograd.grad(term, output, retain_graph=True)[0] for term in terms]
        norms = torch.stack([gradient.detach().float().norm() for gradient in gradients])
        self.dynamic.copy_(gradnorm(self.dynamic, norms, torch.stack(terms).detach(), self.asked))
