"""Pictures too large to be held as floats: read as 8 bit and given out in parts, written row by row.

A `Scan` takes 4 bytes a pixel, Pillow's way to keep RGB, where `images.Picture` takes 12 and more. PNG and TIFF are
written as the rows come; JPEG and WebP cannot be, by Pillow: their rows are collected, at 4 more bytes a pixel."""

import math
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from impasto import images
from impasto.images import ImageError, explained, transparency
from impasto.writing import new_file

# More are taken for a decompression bomb. These are 4 GB decoded, twice that while EXIF turns them, and, with alpha,
# what a TIFF just holds; the largest cameras make a sixth.
LARGEST = 1_000_000_000
_STRIP = 4_000_000  # pixels that are converted at a time, so that copies stay small

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
        """The whole, scaled down to about that number of pixels, if it has more; antialiased: by averaging, then
        bicubic."""
        height, width = self.shape
        if height * width <= pixels:
            return self.crop(0, 0, height, width)
        scale = math.sqrt(pixels / (height * width))
        factor = max(1, int(0.5 / scale))
        small = Image.new("RGB", (-(-width // factor), -(-height // factor)))
        rows = _strip(width, factor)
        for top in range(0, height, rows):
            part = self.image.crop((0, top, width, min(top + rows, height)))
            small.paste(part.convert("RGB").reduce(factor), (0, top // factor))
        shape = max(1, round(width * scale)), max(1, round(height * scale))
        box = 0, 0, width / factor, height / factor  # the last averages may be of fewer pixels
        return images.channels(small.resize(shape, Image.Resampling.BICUBIC, box))[None].float() / 255


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
    rows = _strip(image.width)
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


def _strip(width: int, multiple: int = 1) -> int:
    """How many rows of that width make a strip."""
    return multiple * max(1, _STRIP // (width * multiple))


def write_rows(
    path: str | Path, rows: Iterable[Rows], size: tuple[int, int], *,
    alpha: bool = False, icc_profile: bytes | None = None, overwrite: bool = False,
) -> None:  # fmt: skip
    """Write a picture as its rows come, whole or not at all, with the refusals of `images.write_image`.

    Args:
        rows: h×W×3 (sRGB), or h×W×4 with `alpha`, any h, from top to bottom, H altogether. None is asked for before
            everything that can be refused has been; their errors come through as they are.
        size: width and height of the whole.
        icc_profile: the space to write it in.

    Raises:
        ImageError: another suffix, an existing file (unless `overwrite`), too many pixels.
        FileError: an unfit place.
    """
    path = Path(path)
    unwritable = partial(explained, path, "cannot be written")
    with unwritable():
        kind = images.writable(path, size, overwrite)
        if kind == "TIFF" and math.prod(size) * (3 + alpha) > _Tiff.MOST:
            raise ImageError(f"{path}: {size[0]}×{size[1]} pixels, a TIFF holds 4 GB: use .png")
    with new_file(path, overwrite) as file:
        with unwritable():
            encoder = _ENCODERS.get(kind, _Collected)(file, kind, size, 3 + alpha, icc_profile)
        written = 0
        for band in rows:
            with unwritable():
                encoder.add(np.asarray(images.in_space(Image.fromarray(band), icc_profile)) if icc_profile else band)
            written += len(band)
            del band  # or it would be kept while the next is made
        assert written == size[1], f"{written} rows of {size[1]}"
        with unwritable():
            encoder.finish()


class _Collected:
    """What Pillow writes at once, at the end; JPEG on white, as it has no alpha. An encoder, as the others below."""

    def __init__(self, file: BinaryIO, kind: str, size: tuple[int, int], channels: int, profile: bytes | None) -> None:
        self._file, self._kind, self._profile, self._top = file, kind, profile, 0
        self._mode, self._size = "RGBA" if channels == 4 and kind != "JPEG" else "RGB", size
        self._image: Image.Image | None = None

    def add(self, rows: Rows) -> None:
        part = Image.fromarray(rows)
        # Not before: while a picture is measured, memory is needed for that.
        self._image = self._image or Image.new(self._mode, self._size, "white")
        blend = part.mode == "RGBA" and self._image.mode == "RGB"
        self._image.paste(part, (0, self._top), part if blend else None)
        self._top += len(rows)

    def finish(self) -> None:
        assert self._image is not None
        self._image.save(self._file, self._kind, icc_profile=self._profile, **images.QUALITY.get(self._kind, {}))


class _Tiff:
    """Baseline TIFF, uncompressed, as Pillow writes it (TIFF 6.0, Adobe 1992): pixels first, then what they are."""

    MOST = 2**32 - 2**24  # bytes of pixels: places in the file have 32 bits, and the tables follow

    def __init__(self, file: BinaryIO, kind: str, size: tuple[int, int], channels: int, profile: bytes | None) -> None:
        (width, height), self._file = size, file
        rows = max(1, 2**16 // (width * channels))
        starts = range(0, height, rows)
        counts = [(min(start + rows, height) - start) * width * channels for start in starts]
        self._end = 8 + height * width * channels
        self._tags: dict[int, tuple[int, str, list[int]]] = {
            256: (4, "I", [width]), 257: (4, "I", [height]), 258: (3, "H", [8] * channels),
            259: (3, "H", [1]), 262: (3, "H", [2]),  # no compression, RGB
            273: (4, "I", [8 + start * width * channels for start in starts]), 277: (3, "H", [channels]),
            278: (4, "I", [rows]), 279: (4, "I", counts), 284: (3, "H", [1]),
        }  # fmt: skip
        self._tags |= {338: (3, "H", [2])} if channels == 4 else {}  # alpha, not multiplied in
        self._tags |= {34675: (7, "B", list(profile))} if profile else {}
        file.write(struct.pack("<2sHI", b"II", 42, self._end + self._end % 2))

    def add(self, rows: Rows) -> None:
        self._file.write(np.ascontiguousarray(rows).data)

    def finish(self) -> None:
        self._file.write(bytes(self._end % 2))
        after = self._end + self._end % 2 + 2 + 12 * len(self._tags) + 4
        table, values = struct.pack("<H", len(self._tags)), b""
        for tag, (code, letter, numbers) in sorted(self._tags.items()):
            data = struct.pack(f"<{len(numbers)}{letter}", *numbers)
            place = struct.pack("<I", after + len(values)) if len(data) > 4 else data.ljust(4, b"\0")
            values += data + bytes(len(data) % 2) if len(data) > 4 else b""
            table += struct.pack("<HHI", tag, code, len(numbers)) + place
        self._file.write(table + bytes(4) + values)


class _Png:
    """PNG (W3C, third edition, 2025), every row under the Paeth filter, which suits pictures of paint."""

    def __init__(self, file: BinaryIO, kind: str, size: tuple[int, int], channels: int, profile: bytes | None) -> None:
        self._file, self._channels = file, channels
        self._above = np.zeros((1, size[0] + 1, channels), np.int16)  # the row above, one black pixel before it
        self._compressor = zlib.compressobj()
        file.write(b"\x89PNG\r\n\x1a\n")
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 6 if channels == 4 else 2, 0, 0, 0))
        if profile:
            self._chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))

    def add(self, rows: Rows) -> None:
        step = _strip(rows.shape[1] * 4)
        for top in range(0, len(rows), step):
            part = np.pad(rows[top : top + step].astype(np.int16), ((0, 0), (1, 0), (0, 0)))
            part = np.concatenate([self._above, part])
            self._above = part[-1:]
            filtered = np.full((len(part) - 1, 1 + rows[0].size), 4, np.uint8)  # each row begins with its filter
            filtered[:, 1:] = _without_paeth(part).reshape(len(filtered), -1)
            self._chunk(b"IDAT", self._compressor.compress(filtered.data))

    def finish(self) -> None:
        self._chunk(b"IDAT", self._compressor.flush())
        self._chunk(b"IEND", b"")

    def _chunk(self, name: bytes, data: bytes) -> None:
        if data or name == b"IEND":
            checksum = zlib.crc32(data, zlib.crc32(name))
            self._file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum))


def _without_paeth(x: np.ndarray) -> np.ndarray:
    """Each value less the nearest to left + above − corner of these three, in that order; mod 256, when stored."""
    left, above, corner = x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
    from_left, from_above = np.abs(above - corner), np.abs(left - corner)
    from_corner = np.abs(left + above - 2 * corner)
    second = np.where(from_above <= from_corner, above, corner)
    nearest = np.where((from_left <= from_above) & (from_left <= from_corner), left, second)
    return (x[1:, 1:] - nearest).astype(np.uint8)


_ENCODERS: dict[str, type[_Collected] | type[_Tiff] | type[_Png]] = {"PNG": _Png, "TIFF": _Tiff}
