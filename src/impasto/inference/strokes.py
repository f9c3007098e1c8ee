"""Strokes as large, relative to the picture, as in a small one: painted small, enlarged along the photo's edges.

A network paints strokes of a fixed number of pixels. On a photo of 12 megapixels they are specks. So a large photo is
painted at the size at which strokes have the wanted share of the picture. The painting is then enlarged. What the
enlarged painting lacks is the photo's fine detail. A guided filter (He, Sun and Tang 2013) says how strongly the
painting follows the photo's luminance around each pixel, and that share of the detail is added.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from impasto.choices import Stroke

# The longer side, in pixels, at which a photo is painted by default. The networks learned on photos of some 300 to
# 1,000 pixels with paintings of 768; at 512 to 1,024 their strokes look like those of a painting.
STROKE_SIDE = 1024
_RANGE = (0.1, 10.0)
_RADIUS = 4  # of the guided filter, in pixels of the small painting
_EPSILON = 1e-3  # variance of the luminance, in [0, 1], below which the photo counts as flat
_NOISE = 0.06  # detail, RMS in [0, 1], of which half is kept; noise and fine texture, which are smaller, go
BORDER = 2  # pixels around each pixel of the photo in which its detail is measured
_LUMINANCE = (0.299, 0.587, 0.114)


def check_stroke(stroke: Stroke) -> None:
    """`ValueError` for another word, or a number out of range."""
    if stroke in ("auto", "pixels"):
        return
    if isinstance(stroke, str) or not _RANGE[0] <= stroke <= _RANGE[1]:
        raise ValueError(
            f"stroke {stroke}: must be auto, pixels, or a number from {_RANGE[0]} (smaller strokes) to {_RANGE[1]} "
            f"(larger)"
        )


def painted_side(stroke: Stroke, longer: int) -> int:
    """The longer side at which a photo is painted, in pixels.

    Args:
        stroke: auto: at most `STROKE_SIDE`; a number: that many times larger strokes than auto; pixels: no change.
        longer: the longer side of the result.
    """
    if stroke == "pixels":
        return longer
    times = 1.0 if stroke == "auto" else float(stroke)
    return max(1, round(min(longer, STROKE_SIDE) / times))


@dataclass(frozen=True)
class Enlarged:
    """A small painting as a large picture, of which any part can be had.

    Args:
        guide: the painting, how strongly it follows the photo's luminance, and that luminance: 3 + 3 + 1 channels.
        shape: height and width of the large picture.
    """

    guide: Float[Tensor, "1 7 h w"]
    shape: tuple[int, int]

    @classmethod
    def of(
        cls, painting: Float[Tensor, "1 3 h w"], photo: Float[Tensor, "1 3 h w"], shape: tuple[int, int]
    ) -> "Enlarged":
        """From a painting and the photo it was made of, both small and in [0, 1]."""
        luminance = _luminance(photo)
        slope = _means(luminance * painting) - _means(luminance) * _means(painting)
        slope = slope / (_means(luminance.square()) - _means(luminance).square() + _EPSILON)
        return cls(torch.cat([painting, _means(slope), luminance], 1), shape)

    def part(self, photo: Float[Tensor, "1 3 h w"], origin: tuple[int, int]) -> Float[Tensor, "1 3 h w"]:
        """The part that begins at `origin` (down, right), in [0, 1], for that part of the large photo.

        It is as in the whole from `BORDER` pixels inside on.
        """
        guide = self.guide
        for axis, start, side in zip((-2, -1), origin, photo.shape[-2:], strict=True):
            guide = _enlarged(guide, axis, self.shape[axis], start, side)
        painting, slope, luminance = guide.split((3, 3, 1), 1)
        detail = _luminance(photo) - luminance
        strength = _means(detail.square(), BORDER)  # of a pixel by itself, noise would leave specks
        detail = detail * strength / (strength + _NOISE**2)
        return (painting + slope * detail).clamp(0, 1)


def _luminance(photo: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 1 h w"]:
    return (photo * photo.new_tensor(_LUMINANCE).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _means(x: Float[Tensor, "1 c h w"], radius: int = _RADIUS) -> Float[Tensor, "1 c h w"]:
    """Means over squares around each pixel; the border is repeated."""
    return avg_pool2d(pad(x, (radius,) * 4, mode="replicate"), 2 * radius + 1, 1)


def _enlarged(x: Tensor, axis: int, length: int, start: int, side: int) -> Tensor:
    """Pixels `start` to `start + side` along an axis that becomes `length` long.

    Cubic interpolation of Catmull and Rom (Keys 1981, a = −½), as torch's own but for parts: torch cannot begin an
    enlarged picture between two pixels.
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
