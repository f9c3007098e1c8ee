"""Pictures too large to hold as floats: read in 8 bits, cut into parts, and written from rows.

A `Scan` takes 4 bytes a pixel, because Pillow pads RGB to 4. `images.Picture` takes 12 or more. The
painted picture takes another 4 bytes a pixel: it is collected whole, since Pillow writes a file in
one go.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from impasto import images
from impasto.images import ImageError, explained, transparency
from impasto.writing import new_file

# Most pixels of a picture; a larger one is refused as a decompression bomb. A picture of this size
# takes 4 GB decoded, and twice that while EXIF turns it or once it is painted. With alpha, it just
# fits into a TIFF. The largest cameras make pictures of a sixth of it.
LARGEST = 1_000_000_000
_STRIP = 4_000_000  # pixels of deep grey converted at a time, so that copies stay small

Rows = UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True)
class Scan:
    """A decoded picture in 8 bits.

    Attributes:
        image: sRGB, in mode RGB or RGBA. RGBA has no hidden colours; see `transparency`.
        icc_profile: RGB profile to write the result with; None: sRGB.
        note: what the user should know, such as that only the first page was read; may be empty.
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
        """Return a part as RGB in [0, 1]; `bottom` and `right` are exclusive."""
        part = self.image.crop((left, top, right, bottom)).convert("RGB")
        return images.channels(part)[None].float() / 255

    def alpha(self, top: int, bottom: int) -> UInt8[np.ndarray, "h w 1"]:
        """Return alpha, 0 to 255, of the rows from `top` to `bottom` (exclusive)."""
        part = self.image.crop((0, top, self.image.width, bottom))
        return np.asarray(part.getchannel("A"))[..., None]

    def reduced(self, pixels: int) -> Float[Tensor, "1 3 h w"]:
        """Return the whole picture as RGB in [0, 1], with about `pixels` pixels at most.

        A larger picture is scaled down with antialiasing.
        """
        height, width = self.shape
        if height * width <= pixels:
            return self.crop(0, 0, height, width)
        scale = math.sqrt(pixels / (height * width))
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        # By channels, since converting the whole to RGB would take as much memory as the whole.
        bands = [
            self.image.getchannel(name).resize(shape, Image.Resampling.BICUBIC, reducing_gap=2)
            for name in "RGB"
        ]
        return images.channels(Image.merge("RGB", bands))[None].float() / 255


def read_scan(path: str | Path, data: bytes | None = None, size: int | None = None) -> Scan:
    """Read a picture of up to `LARGEST` pixels, as `images.read_image` does, but in 8 bits.

    Args:
        path: the file.
        data: its bytes, if they have been read already.
        size: longer side, in pixels, to scale to; None: keep the size.

    Raises:
        ImageError: the file is missing, damaged, no image, or too large as it is or at `size`.
    """
    image = images.open_image(path, data, LARGEST)
    height, width = images.scaled((image.height, image.width), size or max(image.size))
    if height * width > LARGEST:
        raise ImageError(
            f"{path}: {width}×{height} pixels at size {size}, "
            f"at most {LARGEST:,} can be made: scale less"
        )
    with explained(path):
        return _scan(image, size)


def scan(image: Image.Image, size: int | None = None) -> Scan:
    """Return an open image as a `Scan`; arguments and errors as for `read_scan`."""
    with explained(getattr(image, "filename", "") or "image", "cannot be converted"):
        return _scan(image, size)


def _scan(image: Image.Image, size: int | None) -> Scan:
    image, profile, note = images.decoded(image)
    image = _shallow(image) if image.mode in images.DEEP else image
    return Scan(image if size is None else _resized(image, size), profile, note)


def _shallow(image: Image.Image) -> Image.Image:
    """Return greyscale of more than 8 bits as RGB or RGBA.

    It is converted strip by strip. All strips share the white of the whole picture.
    """
    rows = max(1, _STRIP // image.width)
    boxes = [
        (0, top, image.width, min(top + rows, image.height)) for top in range(0, image.height, rows)
    ]
    brightest = max(float(images.deep_values(image.crop(box)).max()) for box in boxes)
    transparent = isinstance(image.info.get("transparency"), int)
    shallow = Image.new("RGBA" if transparent else "RGB", image.size)
    for box in boxes:
        part = images.Picture(*images.tensors(image.crop(box), brightest))
        shallow.paste(images.to_pil(part), box[:2])
    # Hidden colours come from the whole picture, not from each strip.
    return transparency.fill_hidden(shallow) if transparent else shallow


def _resized(image: Image.Image, size: int) -> Image.Image:
    """Return the image with its longer side scaled to `size`, as `images.Picture.resized` does."""
    height, width = images.scaled((image.height, image.width), size)
    return transparency.resize_image(image, (width, height), Image.Resampling.BICUBIC)


def write_rows(
    path: str | Path, rows: Iterable[Rows], size: tuple[int, int], *,
    alpha: bool = False, icc_profile: bytes | None = None, overwrite: bool = False,
) -> None:  # fmt: skip
    """Collect the rows of a picture, then write it, whole or not at all.

    Everything that can be refused is refused before the first row is asked for.

    Args:
        path: the file to write; its suffix decides the format.
        rows: as for `collected`. Errors that they raise pass through unchanged.
        size: width and height of the whole, in pixels.
        alpha: whether the rows have alpha.
        icc_profile: colour space to write the picture in; None: sRGB.
        overwrite: replace an existing file.

    Raises:
        ImageError: unknown suffix, existing file (unless `overwrite`), too many pixels, or too
            little room on the disk.
        FileError: the file cannot be written there.
    """
    with explained(path, "cannot be written"):
        kind = images.writable(Path(path), size, overwrite)
    with new_file(path, overwrite) as file:
        try:
            picture = collected(
                rows, "RGBA" if alpha and kind != "JPEG" else "RGB", size, icc_profile
            )
        except MemoryError as error:
            raise ImageError(f"{path}: {size[0]}×{size[1]} pixels do not fit in memory") from error
        with explained(path, "cannot be written"):
            images.save(picture, kind, file)


def collected(
    rows: Iterable[Rows], mode: str, size: tuple[int, int], icc_profile: bytes | None
) -> Image.Image:
    """Return the picture that bands of rows make up, from top to bottom.

    RGBA rows are laid on white if `mode` is RGB.

    Args:
        rows: bands h×W×3 or h×W×4, sRGB, of any height h, with H rows in all.
        mode: RGB or RGBA.
        size: width and height of the whole, in pixels.
        icc_profile: colour space that the picture gets; None: sRGB.
    """
    picture, top = None, 0
    for band in rows:
        part = images.in_space(Image.fromarray(band), icc_profile)
        # Not earlier: the photo is measured before its first rows, which takes the most memory.
        picture = picture or Image.new(mode, size)
        picture.paste(part if part.mode == mode else images.on_white(part), (0, top))
        top += len(band)
        del band, part  # free the memory before the next band is made
    assert picture is not None and top == picture.height, f"{top} rows of {size[1]}"
    picture.info = {"icc_profile": icc_profile} if icc_profile else {}
    return picture
