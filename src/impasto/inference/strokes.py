"""Strokes of one size relative to the picture, however many pixels the picture has.

A network paints strokes of a fixed number of pixels. On a photo of 12 megapixels they are specks.
So a large photo is scaled down before it is painted, and the painting is enlarged.

An enlarged painting lacks the photo's fine detail. A guided filter (He, Sun and Tang 2013) measures
how strongly the painting follows the photo's luminance around each pixel. That share of the detail
is added to the enlarged painting, so that edges are as crisp as in the photo.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from impasto.choices import Stroke

# Longer side, in pixels, at which larger photos are painted by default. The networks learned from
# photos of 300 to 1,000 pixels and paintings of 768.
STROKE_SIDE = 1024
_RANGE = (0.1, 10.0)
_RADIUS = 4  # of the guided filter, in pixels of the small painting
_EPSILON = 1e-3  # variance of the luminance, in [0, 1], below which the photo counts as flat
# Detail of this RMS, in [0, 1], is halved. Noise and fine texture are weaker, and vanish.
_NOISE = 0.06
BORDER = 2  # pixels around each pixel of the photo in which its detail is measured
_LUMINANCE = (0.299, 0.587, 0.114)


def check_stroke(stroke: Stroke) -> None:
    """`ValueError` for another word, or a number out of range."""
    if stroke in ("auto", "pixels"):
        return
    if isinstance(stroke, str) or not _RANGE[0] <= stroke <= _RANGE[1]:
        raise ValueError(
            f"stroke {stroke}: must be auto, pixels, or a number from {_RANGE[0]} (smaller "
            f"strokes) to {_RANGE[1]} (larger)"
        )


def painted_side(stroke: Stroke, longer: int) -> int:
    """The longer side at which a photo is painted, in pixels.

    Args:
        stroke: `auto`: at most `STROKE_SIDE`; a number: smaller by that factor, so that strokes
            become larger by it; `pixels`: as the result.
        longer: the longer side of the result, in pixels.
    """
    if stroke == "pixels":
        return longer
    times = 1.0 if stroke == "auto" else float(stroke)
    return max(1, round(min(longer, STROKE_SIDE) / times))


@dataclass(frozen=True)
class Enlarged:
    """A small painting that is enlarged part by part.

    Args:
        guide: seven channels, small: the painting (3), how strongly each of its channels follows
            the photo's luminance (3), and that luminance (1).
        shape: height and width of the large picture, in pixels.
    """

    guide: Float[Tensor, "1 7 h w"]
    shape: tuple[int, int]

    @classmethod
    def of(
        cls,
        painting: Float[Tensor, "1 3 h w"],
        photo: Float[Tensor, "1 3 h w"],
        shape: tuple[int, int],
    ) -> "Enlarged":
        """Build it from a small painting and the photo it shows, both in [0, 1]."""
        luminance = _luminance(photo)
        slope = _means(luminance * painting) - _means(luminance) * _means(painting)
        slope = slope / (_means(luminance.square()) - _means(luminance).square() + _EPSILON)
        return cls(torch.cat([painting, _means(slope), luminance], 1), shape)

    def part(
        self, photo: Float[Tensor, "1 3 h w"], origin: tuple[int, int]
    ) -> Float[Tensor, "1 3 h w"]:
        """Return a part of the enlarged painting, in [0, 1].

        The outermost `BORDER` pixels differ from those of the whole picture.

        Args:
            photo: the same part of the large photo, in [0, 1].
            origin: where the part begins in the large picture, in pixels (down, right).
        """
        guide = self.guide
        for axis, start, side in zip((-2, -1), origin, photo.shape[-2:], strict=True):
            guide = _enlarged(guide, axis, self.shape[axis], start, side)
        painting, slope, luminance = guide.split((3, 3, 1), 1)
        detail = _luminance(photo) - luminance
        # Measured over a square: by single pixels, noise would leave specks.
        strength = _means(detail.square(), BORDER)
        detail = detail * strength / (strength + _NOISE**2)
        return (painting + slope * detail).clamp(0, 1)


def _luminance(photo: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 1 h w"]:
    return (photo * photo.new_tensor(_LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _means(x: Float[Tensor, "1 c h w"], radius: int = _RADIUS) -> Float[Tensor, "1 c h w"]:
    """Return the mean over the square around each pixel. Pixels at the border are repeated."""
    return avg_pool2d(pad(x, (radius,) * 4, mode="replicate"), 2 * radius + 1, 1)


def _enlarged(x: Tensor, axis: int, length: int, start: int, side: int) -> Tensor:
    """Enlarge an axis to `length` pixels, and return the pixels `start` to `start + side` of it.

    The cubic interpolation of Catmull and Rom (Keys 1981, a = −½). torch's own cannot begin an
    enlarged picture between two pixels, as a part needs.
    """
    small = x.shape[axis]
    position = (torch.arange(start, start + side, device=x.device) + 0.5) * (small / length) - 0.5
    first = position.floor()
    t = (position - first).to(x.dtype)
    weights = (
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    )
    shape = [-1 if dimension == axis % x.ndim else 1 for dimension in range(x.ndim)]
    total = torch.zeros(())
    for tap, weight in enumerate(weights, -1):
        index = (first.long() + tap).clamp(0, small - 1)
        total = total + x.index_select(axis, index) * weight.view(shape)
    return total
