"""Pixel values and transparency that Pillow reads otherwise than a file means them."""

import io
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")  # modes of greyscale with more than 8 bits

_SPREAD = {"L;2": 85, "L;4": 17}  # factors by which Pillow turns 2 and 4 bits into 8
_BITS, _PHOTOMETRIC, _FORMAT = 258, 262, 339  # tags of TIFF 6.0
_MIN_IS_WHITE = 0
_UNSIGNED, _SIGNED = 1, 2


def load(image: Image.Image) -> Image.Image:
    """Load the pixels of an opened image, with the transparency and brightness that its file means.

    Two kinds of files need corrections: PNGs in which one value or colour is transparent, and TIFFs
    in greyscale of more than 8 bits.
    """
    key, tile = image.info.get("transparency"), getattr(image, "tile", None)
    stored = tile[0].args if image.format == "PNG" and tile else None
    if isinstance(key, int) and stored in _SPREAD:
        # Pillow scales the pixels to 8 bits, but leaves the transparent value in 2 or 4 bits.
        image.info["transparency"] = key * _SPREAD[stored]
    low = _low_bytes(image) if isinstance(key, tuple) and stored == "RGB;16B" else None
    image.load()
    # Without `low`, the image was loaded before, and only high bytes are left.
    if isinstance(key, tuple) and (low is not None or max(key) > 255):
        return _transparent_where(image, low, key)
    return (
        _white_by_the_tags(image, image.tag_v2)
        if image.mode in DEEP and hasattr(image, "tag_v2")
        else image
    )


def white_of(brightest: float, floats: bool) -> float:
    """Return the value of white for a deep image whose file does not say it.

    For integers it is 65535. For floats it is the least of 1, 255 and 65535 that is not below the
    brightest value. If the brightest value exceeds them all, it is white itself.
    """
    return next(
        (
            white
            for white in ((1.0, 255.0, 65535.0) if floats else (65535.0,))
            if brightest <= white
        ),
        brightest,
    )


def _low_bytes(image: Any) -> Image.Image:
    """Return the low bytes of a PNG in 16-bit RGB, of which Pillow keeps only the high bytes.

    The file is read again in the other byte order.
    """
    place = image.fp.tell()
    image.fp.seek(0)
    other = PngImagePlugin.PngImageFile(io.BytesIO(image.fp.read()))
    image.fp.seek(place)
    other.tile = [tile._replace(args="RGB;16L") for tile in other.tile]
    other.load()
    return other


def _transparent_where(
    high: Image.Image, low: Image.Image | None, key: tuple[int, ...]
) -> Image.Image:
    """Return RGBA that is transparent where the colour equals the key.

    Args:
        high: high bytes of 16-bit RGB.
        low: low bytes; None: only the high bytes are compared.
        key: the transparent colour, in 16 bits a channel.
    """
    hidden = (np.asarray(high) == np.array(key) >> 8).all(-1)
    if low is not None:
        hidden &= (np.asarray(low) == np.array(key) & 255).all(-1)
    image = high.copy()
    del image.info["transparency"]
    image.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    return image


def _white_by_the_tags(image: Image.Image, tags: Any) -> Image.Image:
    """Return a TIFF in deep greyscale with the white that its tags mean, as floats in [0, 1].

    12-bit and signed 16-bit values have a smaller white than 65535. `MinIsWhite` inverts values. An
    image that needs no correction is returned as it is.
    """
    bits, kind = tags.get(_BITS, (16,))[0], tags.get(_FORMAT, (_UNSIGNED,))[0]
    wrapped = bits == 32 and kind == _UNSIGNED  # Pillow reads 32-bit values as signed
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
