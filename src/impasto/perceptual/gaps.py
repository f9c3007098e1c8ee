"""Gaps: the errors of ordinary photos, by which the terms of the perceptual loss are divided."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from impasto.kernels import at_least_float32
from impasto.perceptual.target import ByKey, Key, squared_error

# From a picture 1×3×H×W to its content features and its Gram matrices, by (scale, layer).
Pyramid = Callable[[Tensor], tuple[ByKey, ByKey]]

# Photos of this likeness (`_measured`) or more may be too alike to measure a balance on. Unrelated
# photos have a likeness of 0.2 to 0.5 in relu4_2.
_LIKENESS = 0.6
# Such photos are too alike if a content gap is at most this share of that of drawn pictures.
_LEAST_GAP_SHARE = 0.1
_DRAWN = 8  # number of drawn pictures

_LOG = logging.getLogger("impasto")


@dataclass(frozen=True)
class PhotoStatistics:
    """Statistics of a set of photos, from which the gaps of any style are computed.

    Dictionaries have the keys (scale, layer).

    Args:
        grams: mean of the photos' Gram matrices, 1×C×C.
        spreads: mean squared error between the photos' Gram matrices and that mean, a scalar.
        content_gaps: as in `StyleTarget`.
    """

    grams: ByKey
    spreads: ByKey
    content_gaps: ByKey

    def style_gaps(self, grams: ByKey) -> ByKey:
        """Return E[MSE(G(photo), A)], N by (scale, layer), for Gram matrices A, N×C×C."""
        # E[(G − A)²] = (E[G] − A)² + E[(G − E[G])²]
        return {
            key: squared_error(self.grams[key], gram) + self.spreads[key]
            for key, gram in grams.items()
        }


def photo_statistics(
    photos: Float[Tensor, "p 3 h w"], pyramid: Pyramid, smallest: float
) -> PhotoStatistics:
    """Return the statistics of photos, from which the gaps of any style are computed.

    Photos that are all alike, such as flat ones, have no distance between them to measure. Drawn
    pictures (`dead_leaves`) then replace them, and also replace photos that are too small for the
    loss network. A warning says so.

    Args:
        photos: P×3×H×W in [0, 1], at least two.
        pyramid: the loss network.
        smallest: shortest side, in pixels, of a photo that the loss network can take.
    """
    sides = photos.shape[-2:]
    why = "too small for the loss network"
    if min(sides) >= smallest:
        found, likeness = _measured(photos, pyramid)
        if likeness < _LIKENESS:
            return found
        why = "all alike"
    leaves = dead_leaves(_DRAWN, min(256, max(128, *sides))).to(photos)
    drawn, _ = _measured(leaves, pyramid)
    if why == "all alike" and all(
        gap > _LEAST_GAP_SHARE * drawn.content_gaps[key] for key, gap in found.content_gaps.items()
    ):
        return found
    _LOG.warning("the photos for the balance are %s: it is measured on drawn pictures instead", why)
    return drawn


def _measured(photos: Tensor, pyramid: Pyramid) -> tuple[PhotoStatistics, float]:
    """Return the statistics of photos and their likeness.

    One photo is processed at a time, so that memory does not grow with their number. The
    likeness is the largest E[F_i·F_j] / E[F²] of any layer, over pairs i ≠ j: 1 for identical
    photos, 0 for photos whose features have nothing in common.
    """
    grams: ByKey = {}
    spreads: ByKey = {}
    moments: dict[Key, tuple[Tensor, Tensor]] = {}
    for number, photo in enumerate(photos.split(1), start=1):
        kept, found = pyramid(photo)
        # Welford 1962: running means avoid the difference of two large sums.
        for key, gram in found.items():
            change = gram - grams.get(key, 0)
            grams[key] = grams.get(key, 0) + change / number
            spreads[key] = (
                spreads.get(key, 0)
                + (change * (gram - grams[key])).mean() / len(photos)
            )  # fmt: skip
        for key, features in kept.items():
            f = at_least_float32(features[0])
            total, squares = moments.get(key, (torch.zeros_like(f), f.new_zeros(())))
            moments[key] = (total + f, squares + f.square().mean())
    gaps = {key: pair_distance(*moment, len(photos)) for key, moment in moments.items()}
    shared = [
        1 - float(gaps[key] / (2 * squares / len(photos)).clamp(min=1e-30))
        for key, (_, squares) in moments.items()
    ]
    return PhotoStatistics(grams, spreads, gaps), max(shared)


@cache
def dead_leaves(number: int, size: int) -> Float[Tensor, "p 3 s s"]:
    """Return pictures of overlapping discs, P×3×S×S in [0, 1], the same at every call.

    They differ from each other as photos do. The sizes of the discs follow a power law, so that
    edges occur at all scales, as in photos (Lee, Mumford, Huang 2001, section 3).

    Args:
        number: number of pictures, P.
        size: side of the pictures in pixels, S.
    """
    generator = torch.Generator().manual_seed(0)
    pictures = torch.full((number, 3, size, size), 0.45)
    rows, columns = torch.arange(size)[:, None], torch.arange(size)
    least, most = 1 / 20, 1 / 2
    for _ in range(200):
        draw = torch.rand(number, 6, generator=generator)[..., None, None]
        radius = size * (least**-2 + draw[:, 0] * (most**-2 - least**-2)) ** -0.5  # density ∝ r⁻³
        inside = (rows - size * draw[:, 1]) ** 2 + (columns - size * draw[:, 2]) ** 2 < radius**2
        # Colours stay near grey, as in most photos.
        grey = (
            0.2
            + 0.5 * draw[:, 3:4]
            + 0.15 * (torch.rand(number, 3, 1, 1, generator=generator) - 0.5)
        )
        pictures = torch.where(inside[:, None], grey, pictures)
    # Lenses blur edges.
    return F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), "replicate"), 3, 1)


def pair_distance(total: Tensor, squares: Tensor, n: int) -> Tensor:
    """Return E[MSE(F_i, F_j)] over the pairs i ≠ j of n pictures, a scalar.

    Args:
        total: Σ F_i, of any shape.
        squares: Σ mean(F_i²), a scalar.
        n: number of pictures, at least 2.
    """
    return 2 / (n - 1) * (squares - (total.square() / n).mean())
