"""Pairs of frames made of photos, whose motion is known exactly.

Every pair holds backward flow B×2×H×W in pixels, right then down: pixel p of the second frame shows
what is at p + flow(p) in the first.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from impasto.video.warping import positions, sampled

# With a weight of a temporal term, every fourth photo is painted twice: as it is, and moved.
PAIRED_EVERY = 4  # photos
MARGIN = 16  # pixels around the first frame in which the photo goes on, for the second frame
BORDER = 8  # width, in pixels, of a picture's border, which depends on the reflected margin

# The motion of a camera or a layer: at most so many pixels, degrees, and times the size.
SHIFT, ROTATION, ZOOM = 12.0, 3.0, 0.05
BEND = 1.5  # standard deviation in pixels of the smooth field that is added
BENDS = 4  # places along a side where that field is drawn; it is smooth between them
GAIN = 0.05  # largest relative change of brightness between the frames
NOISE = 2.0  # largest standard deviation, in grey levels, of the second frame's noise
RIM = 2.0  # width in pixels of a pasted layer's soft rim
CLEAR = 4.0  # distance in pixels from a rim at which a pixel shows one layer only


@dataclass(frozen=True)
class Pair:
    """Two frames B×3×S×S in [0, 1], and the motion between them.

    Args:
        first: the first frames.
        second: the second frames.
        flow: backward flow, B×2×S×S or 1×2×S×S.
        trusted: B×1×S×S or 1×1×S×S, pixels of the second frame that the first shows too, at least
            8 pixels inside both.
        origin: place (down, right) of the second frame in the picture of the first, if the motion
            is a shift by whole pixels.
    """

    first: Float[Tensor, "b 3 s s"]
    second: Float[Tensor, "b 3 s s"]
    flow: Float[Tensor, "_ 2 s s"]
    trusted: Bool[Tensor, "_ 1 s s"]
    origin: tuple[int, int] = (0, 0)


def frame_side(crop: int) -> tuple[int, int]:
    """Return the side of the frames made of square crops, and the margin around them, in pixels."""
    margin = min(MARGIN, crop // 8)  # a crop of 64 pixels would lose half of its side
    return crop - 2 * margin, margin


def shifted(photos: Float[Tensor, "b 3 _ _"], size: int, down: int, right: int) -> Pair:
    """Return pairs of crops of S = `size` pixels, the second further down and right.

    Args:
        photos: square photos of at least `size` pixels and the shift.
        size: side of the frames.
        down: pixels, at least 0.
        right: pixels, at least 0.
    """
    flow = torch.tensor([right, down], dtype=photos.dtype, device=photos.device)
    flow = flow[None, :, None, None].expand(1, 2, size, size)
    second = photos[:, :, down : down + size, right : right + size]
    trusted = inside(positions(flow))
    return Pair(photos[:, :, :size, :size], second, flow, trusted, (down, right))


def moved(
    photos: Float[Tensor, "b 3 _ _"], others: Float[Tensor, "b 3 _ _"], seed: int, margin: int
) -> Pair:
    """Return the middle of photos, with a pasted layer, and what a moving camera sees next.

    The camera and the layer move differently: each by a similarity (±12 px, ±3°, 0.95 to 1.05) and
    a smooth field. So the second frame shows parts that the layer hid, and hides others. Its
    brightness differs by up to 5 %, and it has noise as a camera's.

    Both frames are sampled from the photos, the first at whole pixels. So the flow is exact, and
    no border is repeated, except far outside the first frame, where photos are reflected.

    Args:
        photos: square photos, `margin` pixels larger than the frames on each side.
        others: photos of which the layers are parts.
        seed: decides all motions and shapes.
        margin: pixels.
    """
    number, side = len(photos), photos.shape[-1] - 2 * margin
    # Drawn on the CPU, so that a seed means the same on every device.
    generator = torch.Generator().manual_seed(seed)
    camera, own = (_motion(number, side, generator).to(photos.device) for _ in range(2))
    outlines = _shape(number, side, generator).to(photos.device)
    gain = 1 + GAIN * _uniform(generator, number, 1, 1, 1)
    noise = NOISE / 255 * torch.rand(number, 1, 1, 1, generator=generator)
    noise = noise * torch.randn(number, 3, side, side, generator=generator)

    here, behind, before = (positions(flow) for flow in (torch.zeros_like(camera), camera, own))
    middle = slice(margin, margin + side)
    depth = _depth(here, outlines)
    first = torch.lerp(
        photos[..., middle, middle], others[..., middle, middle], _opacity(depth).to(photos)
    )
    depth = _depth(before, outlines)
    second = torch.lerp(
        sampled(photos, behind + margin, "bicubic"),
        sampled(others, before + margin, "bicubic"),
        _opacity(depth).to(photos),
    )
    flow = torch.where(depth > 0, own, camera)
    # The layer is seen in both frames. What is behind must have been beside the layer before, too.
    shown = (depth > CLEAR) | ((depth < -CLEAR) & (_depth(behind, outlines) < -CLEAR))
    trusted = shown & inside(positions(flow))
    second = second * gain.to(second) + noise.to(second)
    return Pair(first, second.clamp(0, 1), flow, trusted)


def inside(places: Float[Tensor, "b 2 s s"]) -> Bool[Tensor, "b 1 s s"]:
    """Whether a pixel and its place in the other frame are inside the border of both."""
    here = positions(torch.zeros_like(places))
    low, high = BORDER, places.shape[-1] - 1 - BORDER
    # A whole position may be 1e-6 off.
    inside = [(low - 1e-3 <= of) & (of <= high + 1e-3) for of in (here, places)]
    return (inside[0] & inside[1]).all(1, keepdim=True)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Return random numbers from −1 to 1."""
    return 2 * torch.rand(*shape, generator=generator) - 1


def _motion(number: int, side: int, generator: torch.Generator) -> Float[Tensor, "b 2 s s"]:
    """Return the flow of random similarities about the middle, with smooth fields added."""
    zoom = 1 + ZOOM * _uniform(generator, number)
    angle = math.radians(ROTATION) * _uniform(generator, number)
    shift = SHIFT * _uniform(generator, number, 2)
    bend = BEND * torch.randn(number, 2, BENDS, BENDS, generator=generator)
    turn = zoom[:, None, None] * torch.stack(
        [torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1
    )
    here = positions(torch.zeros(1, 2, side, side)) - (side - 1) / 2
    turned = (turn[..., None, None] * here[:, None]).sum(2)  # autocast would round a product
    smooth = F.interpolate(bend, (side, side), mode="bicubic", align_corners=True)
    return turned - here + shift[..., None, None] + smooth


def _shape(number: int, side: int, generator: torch.Generator) -> Float[Tensor, "b 8"]:
    """Return random outlines of layers: centre, mean radius, and five waves of the radius."""
    centre = (side - 1) / 2 + 0.3 * side * _uniform(generator, number, 2)
    radius = side * (0.2 + 0.08 * _uniform(generator, number, 1))
    waves = 0.12 * radius * _uniform(generator, number, 5)
    return torch.cat([centre, radius, waves], 1)


def _depth(places: Float[Tensor, "b 2 s s"], outline: Float[Tensor, "b 8"]) -> Tensor:
    """Return how far inside a layer's outline places are, along the radius, in pixels, B×1×S×S."""
    right, down = (places - outline[:, :2, None, None]).unbind(1)
    angle, outline = torch.atan2(down, right), outline[:, :, None, None]
    waves = sum(
        outline[:, 3 + number] * (turns * angle + number).cos()
        for number, turns in enumerate((1, 2, 3, 4, 5))
    )
    return (outline[:, 2] + waves - torch.hypot(right, down))[:, None]


def _opacity(depth: Tensor) -> Tensor:
    """Return a layer's opacity, which rises from 0 to 1 over the width of its rim."""
    return (depth / RIM + 0.5).clamp(0, 1)
