"""Numbers that files store, made by hand or by tifffile, against what PNG and TIFF say they mean."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from impasto.images import from_pil, read_image
from impasto.images.large import read_scan

tifffile = pytest.importorskip("tifffile")


def png(width: int, bits: int, kind: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one row."""
    header = struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    whole = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + whole


def tiff(values: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def grey(data: bytes) -> list[float]:
    """The levels of a picture of one row, which a scan has as well."""
    found = read_image("it", data).pixels[0, 1, 0]
    assert torch.allclose(read_scan("it", data).crop(0, 0, 1, len(found))[0, 1, 0], found, atol=0.51 / 255)
    return (found * 255).tolist()


COLORS = struct.pack(">9H", 1000, 2000, 3000, 1001, 2000, 3000, 1000, 2000, 3001)
TRANSPARENT = {
    "grey of 1 bit": (png(4, 1, 0, bytes([0b01010000]), (b"tRNS", b"\0\1")), [1, 0, 1, 0]),
    "grey of 2 bits": (png(4, 2, 0, bytes([0b00011011]), (b"tRNS", b"\0\2")), [1, 1, 0, 1]),
    "grey of 4 bits": (png(4, 4, 0, bytes([0x3F, 0x31]), (b"tRNS", b"\0\3")), [0, 1, 0, 1]),
    "grey of 8 bits": (png(3, 8, 0, bytes([3, 51, 9]), (b"tRNS", b"\0\3")), [0, 1, 1]),
    "grey of 16 bits": (png(2, 16, 0, struct.pack(">2H", 1000, 1001), (b"tRNS", struct.pack(">H", 1000))), [0, 1]),
    "colours of 8 bits": (png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6]), (b"tRNS", struct.pack(">3H", 1, 2, 3))), [0, 1]),
    # All three have the same high bytes.
    "colours of 16 bits": (png(3, 16, 2, COLORS, (b"tRNS", struct.pack(">3H", 1000, 2000, 3000))), [0, 1, 1]),
}


@pytest.mark.parametrize("name", TRANSPARENT)
def test_the_transparent_value_of_a_png(name: str) -> None:
    data, expected = TRANSPARENT[name]
    for picture in (read_image("it", data), from_pil(Image.open(io.BytesIO(data)))):
        assert picture.alpha is not None and picture.alpha.flatten().tolist() == expected
    assert read_scan("it", data).alpha(0, 1).flatten().tolist() == [255 * alpha for alpha in expected]


def test_of_sixteen_bits_that_were_decoded_before_the_high_bytes_are_compared() -> None:
    colors = struct.pack(">6H", 1000, 2000, 3000, 1000, 2000, 4000)
    image = Image.open(io.BytesIO(png(2, 16, 2, colors, (b"tRNS", struct.pack(">3H", 1000, 2000, 3001)))))
    image.load()
    alpha = from_pil(image).alpha
    assert alpha is not None and alpha.flatten().tolist() == [0, 1]


SIXTEEN = np.array([[0, 13107, 65535]], np.uint16)
THIRTY_TWO = np.array([[0, 2**30, 2**31, 2**32 - 1]], np.uint32)
FLOATS = np.array([[0, 0.2, 1]], np.float32)
WHITE = {
    "8 bits, black is 0": (tiff(np.array([[0, 51, 255]], np.uint8), photometric="minisblack"), [0, 51, 255]),
    "8 bits, white is 0": (tiff(np.array([[0, 51, 255]], np.uint8), photometric="miniswhite"), [255, 204, 0]),
    "16 bits, black is 0": (tiff(SIXTEEN, photometric="minisblack"), [0, 51, 255]),
    "16 bits, white is 0": (tiff(SIXTEEN, photometric="miniswhite"), [255, 204, 0]),
    "deflated, white is 0": (tiff(SIXTEEN, photometric="miniswhite", compression="zlib"), [255, 204, 0]),
    "floats, black is 0": (tiff(FLOATS, photometric="minisblack"), [0, 51, 255]),
    "floats, white is 0": (tiff(FLOATS, photometric="miniswhite"), [255, 204, 0]),
    "floats to 255, white is 0": (tiff(FLOATS * 255, photometric="miniswhite"), [255, 204, 0]),
    "signed 16 bits": (tiff(np.array([[-5, 6553, 32767]], np.int16), photometric="minisblack"), [0, 51, 255]),
    "unsigned 32 bits": (tiff(THIRTY_TWO, photometric="minisblack"), [0, 63.75, 127.5, 255]),
}


@pytest.mark.parametrize("name", WHITE)
def test_white_is_where_the_tiff_says(name: str) -> None:
    data, expected = WHITE[name]
    assert grey(data) == pytest.approx(expected, abs=0.01)


def test_twelve_bits_of_a_tiff() -> None:
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 6)]
    table = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    row = bytes([0x00, 0x03, 0x33, 0xFF, 0xF8, 0x00])  # 0, 819, 4095, 2048
    data = b"II*\0" + struct.pack("<I", 14) + row + struct.pack("<H", len(tags)) + table + bytes(4)
    assert grey(data) == pytest.approx([0, 51, 255, 127.53], abs=0.01)


def test_a_negative_is_turned_as_its_file_says() -> None:
    data = tiff(SIXTEEN, photometric="miniswhite", extratags=[(ExifTags.Base.Orientation, 3, 1, 6, True)])
    assert (read_image("it", data).pixels[0, 0, :, 0] * 255).tolist() == pytest.approx([255, 204, 0])


@pytest.mark.parametrize(
    "data",
    [
        tiff(SIXTEEN, photometric="miniswhite", byteorder=">"),
        tiff(THIRTY_TWO, photometric="miniswhite"),
        tiff(np.zeros((1, 2, 2), np.uint16), photometric="minisblack", extrasamples=["unassalpha"]),
    ],
)
def test_what_pillow_cannot_read_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it: no image that can be read \([^\n]*\), or damaged$"):
        read_image("it", data)
