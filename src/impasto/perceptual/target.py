"""Targets of the loss as values: Gram matrices and features; and what balances the terms: gaps, GradNorm."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from impasto.kernels import exact

Key = tuple[float, str]  # (scale, layer)

# GradNorm (Chen et al. 2018): the exponent of its asymmetric experiment, and its weights' learning rate.
GRADNORM_ALPHA = 1.5
GRADNORM_RATE = 0.025

BORDER = 8  # outermost pixels of a picture, which depend on its reflected surroundings


@dataclass(frozen=True)
class StyleTarget:
    """The style that an output is compared with: computed once, reused, never changed.

    grams: N×C×C by (scale, layer), one for each of N styles.
    style_gaps: N by (scale, layer): E[MSE(G(photo), A)], what lies between ordinary photos and the style.
    content_gaps: a scalar by (scale, layer): E[MSE(F(photo_i), F(photo_j))] over unrelated photos.
    The gaps are 1 where the balance is `fixed`.
    masks: N×1×H×W in [0, 1]: each style holds where its mask is white; None: everywhere.
    shares: N, weight of each masked style, of sum 1.
    """

    grams: dict[Key, Tensor]
    style_gaps: dict[Key, Tensor]
    content_gaps: dict[Key, Tensor]
    masks: Tensor | None = None
    shares: Tensor | None = None

    def select(self, index: Int[Tensor, " b"]) -> "StyleTarget":
        """The target of a batch whose sample i learns style `index[i]`."""
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


@dataclass(frozen=True)
class PhotoStatistics:
    """Statistics of photos from which the gaps of every style follow: computed once for a set of photos.

    grams: 1×C×C by (scale, layer): the mean of the photos' Gram matrices.
    spreads: a scalar by (scale, layer): the mean squared error of the photos' Gram matrices to that mean.
    content_gaps: a scalar by (scale, layer), as in `StyleTarget`.
    """

    grams: dict[Key, Tensor]
    spreads: dict[Key, Tensor]
    content_gaps: dict[Key, Tensor]

    def style_gaps(self, grams: dict[Key, Tensor]) -> dict[Key, Tensor]:
        """N by (scale, layer): E[MSE(G(photo), A)] for Gram matrices N×C×C."""
        return {
            key: squared_error(self.grams[key], gram) + self.spreads[key]
            for key, gram in grams.items()
        }


@dataclass(frozen=True)
class ContentTarget:
    """Features an output is to keep, by term (content, secondary, combined) and (scale, layer): a value, reused."""

    features: dict[str, dict[Key, Tensor]]


def read_gaps(gaps: dict[str, list[float]], like: dict[Key, Tensor]) -> dict[Key, Tensor]:
    """One part of `StyleTarget.gaps` as tensors again, on the device of `like`."""
    device = next(iter(like.values())).device
    keys = [text.split("/") for text in gaps]
    return {(float(scale), layer): torch.tensor(gap, device=device)
            for (scale, layer), gap in zip(keys, gaps.values(), strict=True)}  # fmt: skip


def dead_leaves(number: int, size: int) -> Float[Tensor, "p 3 s s"]:
    """Pictures of discs that lie over each other, in [0, 1], the same at every call: unlike each other as photos are.

    Sizes follow a power law, so that edges come at all scales, as in photos (Lee, Mumford, Huang 2001, section 3).
    """
    generator = torch.Generator().manual_seed(0)
    pictures = torch.full((number, 3, size, size), 0.45)
    rows, columns = torch.arange(size)[:, None], torch.arange(size)
    least, most = 1 / 20, 1 / 2
    for _ in range(200):
        draw = torch.rand(number, 6, generator=generator)[..., None, None]
        radius = size * (least**-2 + draw[:, 0] * (most**-2 - least**-2)) ** -0.5  # of density r⁻³
        inside = (rows - size * draw[:, 1]) ** 2 + (columns - size * draw[:, 2]) ** 2 < radius**2
        grey = (
            0.2
            + 0.5 * draw[:, 3:4]
            + 0.15 * (torch.rand(number, 3, 1, 1, generator=generator) - 0.5)
        )  # photos are rarely gaudy
        pictures = torch.where(inside[:, None], grey, pictures)
    return F.avg_pool2d(
        F.pad(pictures, (1, 1, 1, 1), "replicate"), 3, 1
    )  # lenses make no hard edges


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of each picture of the batch: B."""
    return (exact(a) - exact(b)).square().flatten(1).mean(1)


def moved_error(here: Tensor, there: Tensor, down: int, right: int) -> Tensor:
    """MSE between paintings and those of the same photos moved up and left, by other places on the network's 4×4 grid.

    As in video (Ruder et al. 2016), without what reaches in from the borders. Both are B×3×S×S; a scalar.
    """
    size = here.shape[-1]
    same = (here[..., down:, right:], there[..., : size - down, : size - right])
    first, second = (picture[..., BORDER:-BORDER, BORDER:-BORDER] for picture in same)
    return squared_error(first, second).mean()


def pair_distance(total: Tensor, squares: Tensor, n: int) -> Tensor:
    """E[MSE(F_i, F_j)], a scalar, over the pairs i ≠ j of n ≥ 2 pictures, from Σ F (of any shape) and Σ mean(F²)."""
    return 2 / (n - 1) * (squares - (total.square() / n).mean())


@torch.no_grad()
def gradnorm(weights: Tensor, norms: Tensor, fractions: Tensor, asked: Tensor) -> Tensor:
    """One step of GradNorm (Chen et al. 2018, eq. 2 and algorithm 1) on the weights of T terms; gives the new ones.

    Departures: L(0) is 1, what a fraction is before anything is learned (section 3.2 of the paper allows the
    theoretical value), since from a content start the measured one would be 0; the user's weights scale the norms
    aimed at. (A third is the caller's: gradients at the picture, which training and the reference share, instead of
    the last shared layer.)

    Args:
        weights: T, of now.
        norms: T, of each unweighted term's gradient.
        fractions: T, the terms, 1 at first.
        asked: T, what the user gave; the new weights have its sum.
    """
    rates = (fractions / fractions.mean().clamp(min=1e-12)) ** GRADNORM_ALPHA
    aim = (weights * norms).mean() * rates * asked / asked.mean()
    # |w·g − aim| falls along sign(·)·g; scaled by the mean norm, so that the rate has no unit.
    step = torch.sign(weights * norms - aim) * norms / norms.mean().clamp(min=1e-12)
    moved = (weights - GRADNORM_RATE * step).clamp(min=1e-3)
    return moved * asked.sum() / moved.sum()
