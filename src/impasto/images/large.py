"""Pictures too large to be held as floats: read as 8 bit, given out in parts, and collected row by row.

A `Scan` takes 4 bytes a pixel, Pillow's way to keep RGB, where `images.Picture` takes 12 and more. The picture made of
it takes as many, since Pillow writes a file at once, at the end."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from impasto import images
from impasto.images import ImageError, explained, transparency
from impasto.writing import new_file

# More are taken for a decompression bomb. These are 4 GB decoded, twice that while EXIF turns them or once they are
# painted, and, with alpha, what a TIFF just holds; the largest cameras make a sixth.
LARGEST = 1_000_000_000
_STRIP = 4_000_000  # pixels of deep grey that are converted at a time, so that copies stay small

Rows = UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True)
class Scan:
    """A decoded picture with an RGB profile to write it with and a note for people, if any.

    `image` is sRGB, in RGB, or in RGBA without hidden colours (`transparency.fill_hidden`).
    """

    image: Image.Image
    icc_profile: bytes | None = None
    note: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.height, self.image.width

    @property
    def transparent(self) -> bool:
        """Whether there is an alpha channel."""
        return self.image.mode == "RGBA"

    def crop(self, top: int, left: int, bottom: int, right: int) -> Float[Tensor, "1 3 h w"]:
        """The part from `top`, `left` up to before `bottom`, `right`, in [0, 1]."""
        return images.channels(self.image.crop((left, top, right, bottom)).convert("RGB"))[None].float() / 255

    def alpha(self, top: int, bottom: int) -> UInt8[np.ndarray, "h w 1"]:
        """Alpha of the rows from `top` up to before `bottom`."""
        return np.asarray(self.image.crop((0, top, self.image.width, bottom)).getchannel("A"))[..., None]

    def reduced(self, pixels: int) -> Float[Tensor, "1 3 h w"]:
        """The whole, scaled down to about that number of pixels, if it has more; antialiased."""
        height, width = self.shape
        if height * width <= pixels:
            return self.crop(0, 0, height, width)
        scale = math.sqrt(pixels / (height * width))
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        visible = self.image.convert("RGB") if self.transparent else self.image
        return images.channels(visible.resize(shape, Image.Resampling.BICUBIC, reducing_gap=2))[None].float() / 255


def read_scan(path: str | Path, data: bytes | None = None, size: int | None = None) -> Scan:
    """As `images.read_image`, in 8 bit, up to `LARGEST` pixels.

    Args:
        data: what the file holds, if it has been read already.
        size: the longer side to scale to; None: as it is.

    Raises:
        ImageError: missing, damaged, no image, too large, now or at `size`.
    """
    image = images.open_image(path, data, LARGEST)
    height, width = images.scaled((image.height, image.width), size or max(image.size))
    if height * width > LARGEST:
        raise ImageError(f"{path}: {width}×{height} pixels at size {size}, at most {LARGEST:,} can be made: scale less")
    with explained(path):
        return _scan(image, size)


def scan(image: Image.Image, size: int | None = None) -> Scan:
    """An image that is already open, as `Scan`, its longer side scaled to `size` if one is given."""
    with explained(getattr(image, "filename", "") or "image", "cannot be converted"):
        return _scan(image, size)


def _scan(image: Image.Image, size: int | None) -> Scan:
    image, profile, note = images.decoded(image)
    image = _shallow(image) if image.mode in images.DEEP else image
    return Scan(image if size is None else _resized(image, size), profile, note)


def _shallow(image: Image.Image) -> Image.Image:
    """Greyscale of more than 8 bits as RGB or RGBA, strip by strip, all with the white of the whole."""
    rows = max(1, _STRIP // image.width)
    boxes = [(0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)]
    brightest = max(float(images.deep_values(image.crop(box)).max()) for box in boxes)
    transparent = isinstance(image.info.get("transparency"), int)
    shallow = Image.new("RGBA" if transparent else "RGB", image.size)
    for box in boxes:
        part = images.Picture(*images.tensors(image.crop(box), brightest))
        shallow.paste(images.to_pil(part), box[:2])
    return transparency.fill_hidden(shallow) if transparent else shallow  # by the whole, not strip by strip


def _resized(image: Image.Image, size: int) -> Image.Image:
    """As `images.Picture.resized`."""
    height, width = images.scaled((image.height, image.width), size)
    return transparency.resize_image(image, (width, height), Image.Resampling.BICUBIC)


def write_rows(
    path: str | Path, rows: Iterable[Rows], size: tuple[int, int], *,
    alpha: bool = False, icc_profile: bytes | None = None, overwrite: bool = False,
) -> None:  # fmt: skip
    """Collect the rows of a picture, then write it, whole or not at all, with the refusals of `images.write_image`.

    Args:
        rows: as for `paste_rows`. None is asked for before everything that can be refused has been; their errors come
            through as they are.
        size: width and height of the whole.
        alpha: whether the rows have it.
        icc_profile: the space to write it in.

    Raises:
        ImageError: another suffix, an existing file (unless `overwrite`), too many pixels.
        FileError: an unfit place.
    """
    unwritable = partial(explained, path, "cannot be written")
    with unwritable():
        kind = images.writable(Path(path), size, overwrite)
    with new_file(path, overwrite) as file:
        with unwritable():
            picture = blank("RGBA" if alpha and kind != "JPEG" else "RGB", size)
        paste_rows(picture, rows, icc_profile)
        with unwritable():
            images.save(picture, kind, file)


def blank(mode: str, size: tuple[int, int]) -> Image.Image:
    """An image to fill. It takes memory only as it is filled, so none while the photo is still being measured."""
    return Image.new(mode, size, None)


def paste_rows(picture: Image.Image, rows: Iterable[Rows], icc_profile: bytes | None) -> None:
    """Fill a picture with rows, from top to bottom; RGBA rows are laid on white where it is RGB.

    Args:
        rows: h×W×3 or h×W×4 (sRGB), any h, H altogether.
        icc_profile: the space that the picture is to be in.
    """
    top = 0
    for band in rows:
        part = images.in_space(Image.fromarray(band), icc_profile)
        picture.paste(part if part.mode == picture.mode else images.on_white(part), (0, top))
        top += len(band)
        del band, part  # or they would be kept while the next are made
    assert top == picture.height, f"{top} rows of {picture.height}"
    picture.info = {"icc_profile": icc_profile} if icc_profile else {}
