"""Square crops of photos: which part at which scale, decoding no more of a JPEG than that takes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from impasto.images import DEEP, ImageError, channels, decoded, explained, tensors
from impasto.images.transparency import resize_image, resize_tensor

UNNAMED = "image"  # what the errors of pictures without a name begin with
_MIDDLE = 0.5 - 1e-9  # of an odd number of pixels too many, the smaller half is cut off before the middle
ENLARGED = 2  # times, at most
_MARGIN = 2  # pixels around a crop that its own depend on: bilinear, at most doubled in size

Photo = Image.Image | Float[Tensor, "3 h w"]  # just opened, by `open_image`; or pixels in [0, 1]
Sides = Sequence[int | float]


def crop(photo: Photo, size: int, generator: torch.Generator) -> Float[Tensor, "3 s s"]:
    """A square at a random scale (shorter side `size` to four times that), position and mirroring.

    A photo of less than 2 · `size` is enlarged up to that, at most twofold: a network sees smooth surfaces in large
    photos, and crops that are whole small photos hold hardly any. `ImageError` if the photo's shorter side is less than
    half of `size`, or if it cannot be decoded.
    """
    scale, down, right, mirror = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    short = _short_side(photo, size)
    largest = max(size, min(max(short, min(2 * size, ENLARGED * short)), 4 * size))
    square = _square(photo, size, size + int(scale * (largest - size + 1)), down, right)
    return square.flip(-1) if mirror < 0.5 else square


def center_crop(photo: Photo, size: int) -> Float[Tensor, "3 s s"]:
    """The largest square in the middle, scaled to `size`. `ImageError` as for `crop`."""
    _short_side(photo, size)
    return _square(photo, size, size, _MIDDLE, _MIDDLE)


def _short_side(photo: Photo, size: int) -> int:
    width, height = photo.size if isinstance(photo, Image.Image) else photo.shape[:0:-1]
    if 2 * min(height, width) < size:
        least = f"at least {(size + 1) // 2} needed"
        raise ImageError(f"is {width}×{height} pixels, too small for crops of {size}: {least}")
    return min(height, width)


def _square(photo: Photo, size: int, short: int, down: float, right: float) -> Float[Tensor, "3 s s"]:
    """Of the photo scaled to a shorter side of `short`, the square at a position, both 0 (first) to 1 (last)."""
    if isinstance(photo, Tensor):
        return _of_pixels(photo[None], None, size, *_layout(photo.shape[1:], size, short, down, right))
    with explained(UNNAMED):
        image, (width, height) = _reduced(photo, short)
        layout = _layout((height, width), size, short, down, right)
        if image.mode in DEEP:
            return _of_pixels(*tensors(image), size, *layout)
        return _of_image(image, (height, width), size, *layout)


def _layout(sides: Sides, size: int, short: int, down: float, right: float) -> tuple[list[int], list[int]]:
    """Height and width of the scaled photo; the first row and column of the square."""
    scaled = [max(short, round(side * short / min(sides))) for side in sides]
    return scaled, [int(position * (side - size + 1)) for position, side in zip((down, right), scaled, strict=True)]


def _of_pixels(photo: Tensor, alpha: Tensor | None, size: int, scaled: list[int], first: list[int]) -> Tensor:
    if alpha is None:
        pixels = interpolate(photo, size=scaled, mode="bilinear", antialias=True).clamp(0, 1)
    else:
        pixels, _ = resize_tensor(photo, alpha, scaled, "bilinear")
    return pixels[0, :, first[0] : first[0] + size, first[1] : first[1] + size]


def _reduced(photo: Image.Image, short: int) -> tuple[Image.Image, Sides]:
    """The pixels, upright, of a JPEG at the least of 1/8, 1/4, 1/2 and 1 that keeps the shorter side at `short`.

    The width and height that they cover come with them: in a reduced JPEG the last row or column may be a part
    of a pixel (turned by EXIF, the first: such a photo lies less than a pixel aside).
    """
    drafted = photo.draft(None, (short, short))  # None, where the format knows no such thing
    extent = drafted[1][2:] if drafted else photo.size
    stored = photo.size
    image = decoded(photo)[0]
    return image, extent if image.size == stored else extent[::-1]


def _of_image(image: Image.Image, sides: Sides, size: int, scaled: list[int], first: list[int]) -> Tensor:
    """`_of_pixels` in 8 bits, which is several times faster: nothing is scaled but the square."""
    start = [max(0, at - _MARGIN) for at in first]
    stop = [min(at + size + _MARGIN, side) for at, side in zip(first, scaled, strict=True)]
    y, x = (side / whole for side, whole in zip(sides, scaled, strict=True))
    box = (start[1] * x, start[0] * y, stop[1] * x, stop[0] * y)
    part = resize_image(image, (stop[1] - start[1], stop[0] - start[0]), Image.Resampling.BILINEAR, box)
    top, left = (at - begin for at, begin in zip(first, start, strict=True))
    return channels(part)[:3, top : top + size, left : left + size].float() / 255
