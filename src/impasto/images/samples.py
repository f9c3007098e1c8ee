"""The numbers that a picture file stores, where Pillow passes on others than the file means."""

import io
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # modes of greyscale with more than 8 bits

_SPREAD = {"L;2": 85, "L;4": 17}  # how Pillow makes 8 bits of 2 and 4
_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339  # tags of TIFF 6.0
_MIN_IS_WHITE = 0
_UNSIGNED, _SIGNED = 1, 2


def load(image: Image.Image) -> Image.Image:
    """The image with its pixels, and with the transparency and the brightness that its file means."""
    key, tile = image.info.get("transparency"), getattr(image, "tile", None)
    stored = tile[0].args if image.format == "PNG" and tile else None
    if isinstance(key, int) and stored in _SPREAD:
        image.info["transparency"] = key * _SPREAD[stored]  # Pillow leaves the number of 2 or 4 bits
    low = _low_bytes(image) if isinstance(key, tuple) and stored == "RGB;16B" else None
    image.load()
    if isinstance(key, tuple) and (low is not None or max(key) > 255):  # decoded before, so only high bytes are left
        return _keyed(image, low, key)
    return _nominal(image, image.tag_v2) if image.mode in DEEP and hasattr(image, "tag_v2") else image


def white_of(brightest: float, floats: bool) -> float:
    """The value of white, where the file does not say it: 65535; of floats, the least of 1, 255, 65535 that holds the
    brightest; the brightest itself where none does."""
    return next((white for white in ((1.0, 255.0, 65535.0) if floats else (65535.0,)) if brightest <= white), brightest)


def _low_bytes(image: Any) -> Image.Image:
    """Of 16-bit RGB, of which Pillow keeps the high bytes, the low ones: the file read in the other byte order."""
    place = image.fp.tell()
    image.fp.seek(0)
    other = PngImagePlugin.PngImageFile(io.BytesIO(image.fp.read()))
    image.fp.seek(place)
    other.tile = [tile._replace(args="RGB;16L") for tile in other.tile]
    other.load()
    return other


def _keyed(high: Image.Image, low: Image.Image | None, key: tuple[int, ...]) -> Image.Image:
    """RGBA, transparent where all 48 bits, or the high bytes alone, are those of the key."""
    hidden = (np.asarray(high) == np.array(key) >> 8).all(-1)
    if low is not None:
        hidden &= (np.asarray(low) == np.array(key) & 255).all(-1)
    image = high.copy()
    del image.info["transparency"]
    image.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    return image


def _nominal(image: Image.Image, tags: Any) -> Image.Image:
    """A deep grey TIFF with the white that its bits mean, which is black where it says so, as floats in [0, 1]."""
    bits, kind = tags.get(_BITS, (16,))[0], tags.get(_FORMAT, (_UNSIGNED,))[0]
    wrapped = bits == 32 and kind == _UNSIGNED  # Pillow's numbers of 32 bits have a sign
    inverted = tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE
    white = {(12, _UNSIGNED): 4095.0, (16, _SIGNED): 32767.0}.get((bits, kind))
    if not (inverted or white or wrapped):
        return image
    values = np.asarray(image)
    values = (values.astype(np.uint32) if wrapped else values).astype(np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    values /= white or white_of(float(values.max()), image.mode == "F")
    deep = Image.fromarray(1 - values if inverted else values)
    deep.info, deep.format = image.info, image.format
    return deep
