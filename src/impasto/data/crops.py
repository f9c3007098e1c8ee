"""Square crops of photos, at a random or fixed scale and position.

A JPEG is decoded at the least resolution that the crop needs.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from impasto.images import DEEP, ImageError, channels, decoded, explained, tensors
from impasto.images.transparency import resize_image, resize_tensor

UNNAMED = "image"  # the name, in error messages, of a picture without a name
# Position of the middle. If an odd number of pixels is cut off, the start loses one pixel less than
# the end.
_MIDDLE = 0.5 - 1e-9
ENLARGED = 2  # largest factor by which a photo is enlarged
# Width, in pixels, of the border around a crop that affects it. Bilinear scaling reaches one pixel
# of the photo, which is two pixels if the photo is doubled in size.
_MARGIN = 2

Photo = Image.Image | Float[Tensor, "3 h w"]  # from `open_image`, not decoded; or pixels in [0, 1]
Sides = Sequence[int | float]  # two sides of a picture, in pixels


def crop(photo: Photo, size: int, generator: torch.Generator) -> Float[Tensor, "3 s s"]:
    """Return a square crop of a photo at a random scale, position and mirroring.

    The photo is scaled so that its shorter side is between `size` and 4·`size`. A photo is enlarged
    only if its shorter side is less than 2·`size`: then up to 2·`size`, and at most twofold.
    Networks paint large photos, which have smooth surfaces. Crops that are whole small photos show
    hardly any.

    Args:
        photo: an open image, or pixels in [0, 1].
        size: side of the square, in pixels.
        generator: source of the random numbers.

    Returns:
        RGB in [0, 1].

    Raises:
        ImageError: the photo's shorter side is less than half of `size`, or it cannot be decoded.
    """
    scale, down, right, mirror = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    short = _short_side(photo, size)
    largest = max(size, min(max(short, min(2 * size, ENLARGED * short)), 4 * size))
    square = _square(photo, size, size + int(scale * (largest - size + 1)), down, right)
    return square.flip(-1) if mirror < 0.5 else square


def center_crop(photo: Photo, size: int) -> Float[Tensor, "3 s s"]:
    """Return the largest square in the middle, scaled to `size`; errors as in `crop`."""
    _short_side(photo, size)
    return _square(photo, size, size, _MIDDLE, _MIDDLE)


def _short_side(photo: Photo, size: int) -> int:
    """Return the photo's shorter side, after checking that it is large enough for crops."""
    width, height = photo.size if isinstance(photo, Image.Image) else photo.shape[:0:-1]
    if 2 * min(height, width) < size:
        least = f"at least {(size + 1) // 2} needed"
        raise ImageError(f"is {width}×{height} pixels, too small for crops of {size}: {least}")
    return min(height, width)


def _square(
    photo: Photo, size: int, short: int, down: float, right: float
) -> Float[Tensor, "3 s s"]:
    """Return a square of the photo, after scaling the photo to a shorter side of `short`.

    Args:
        photo: an open image, or pixels in [0, 1].
        size: side of the square, in pixels.
        short: shorter side of the scaled photo, in pixels, at least `size`.
        down: vertical position: 0 for the topmost square, 1 (exclusive) for the lowest.
        right: horizontal position, likewise.
    """
    if isinstance(photo, Tensor):
        return _of_pixels(
            photo[None], None, size, *_layout(photo.shape[1:], size, short, down, right)
        )
    with explained(UNNAMED):
        image, (width, height) = _reduced(photo, short)
        layout = _layout((height, width), size, short, down, right)
        if image.mode in DEEP:
            return _of_pixels(*tensors(image), size, *layout)
        return _of_image(image, (height, width), size, *layout)


def _layout(
    sides: Sides, size: int, short: int, down: float, right: float
) -> tuple[list[int], list[int]]:
    """Return height and width of the scaled photo, and the first row and column of the square."""
    scaled = [max(short, round(side * short / min(sides))) for side in sides]
    return scaled, [
        int(position * (side - size + 1))
        for position, side in zip((down, right), scaled, strict=True)
    ]


def _of_pixels(
    photo: Tensor, alpha: Tensor | None, size: int, scaled: list[int], first: list[int]
) -> Tensor:
    """Return the square at `first` (row, column) of a photo 1×3×H×W scaled to `scaled`."""
    if alpha is None:
        pixels = interpolate(photo, size=scaled, mode="bilinear", antialias=True).clamp(0, 1)
    else:
        pixels, _ = resize_tensor(photo, alpha, scaled, "bilinear")
    return pixels[0, :, first[0] : first[0] + size, first[1] : first[1] + size]


def _reduced(photo: Image.Image, short: int) -> tuple[Image.Image, Sides]:
    """Decode a photo; a JPEG only at the resolution that the crop needs.

    A JPEG can be decoded at 1/8, 1/4, 1/2 or all of its size. The least is taken that leaves the
    shorter side at `short` pixels or more. Other formats are decoded in full.

    Returns:
        The upright image, and the width and height that it covers. In a reduced JPEG, these may be
        fractional, because its last row and column may be part of a pixel only. If EXIF turns the
        photo, that may be the first row or column. The crop is then off by less than a pixel.
    """
    drafted = photo.draft(None, (short, short))  # None if the format cannot be reduced
    extent = drafted[1][2:] if drafted else photo.size
    stored = photo.size
    image = decoded(photo)[0]
    return image, extent if image.size == stored else extent[::-1]


def _of_image(
    image: Image.Image, sides: Sides, size: int, scaled: list[int], first: list[int]
) -> Tensor:
    """Return the square as `_of_pixels` does, but in 8 bits.

    This is several times faster, because only the square is scaled.
    """
    start = [max(0, at - _MARGIN) for at in first]
    stop = [min(at + size + _MARGIN, side) for at, side in zip(first, scaled, strict=True)]
    y, x = (side / whole for side, whole in zip(sides, scaled, strict=True))
    box = (start[1] * x, start[0] * y, stop[1] * x, stop[0] * y)
    part = resize_image(
        image, (stop[1] - start[1], stop[0] - start[0]), Image.Resampling.BILINEAR, box
    )
    top, left = (at - begin for at, begin in zip(first, start, strict=True))
    return channels(part)[:3, top : top + size, left : left + size].float() / 255
