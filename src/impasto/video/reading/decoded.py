"""Show decoded frames as a player does: upright, and in sRGB."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from impasto.video import colors
from impasto.video.pyav import library

# Matrices of Y'CbCr by their codes in ITU-T H.273, and what swscale calls them.
_UNSPECIFIED, _BT601, _BT709 = 2, 5, 1
_LIMITED, _FULL = 1, 2  # FFmpeg's codes of the range


def is_transposed(frame: Any) -> bool:
    """Whether the rows of a frame of PyAV are columns of the picture."""
    return _turn(frame)[0]


def size_shown(frame: Any) -> tuple[int, int]:
    """Return width and height of a frame of PyAV, upright."""
    size = frame.width, frame.height
    return size[::-1] if is_transposed(frame) else size


def shown(frame: Any, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Return levels of sRGB, upright, of a frame of PyAV, scaled to a width and height."""
    grey = _is_limited_grey(frame)
    converting = grey or not colors.is_srgb(frame.color_trc, frame.color_primaries)
    transposed, flips = _turn(frame)
    width, height = size[::-1] if transposed else size
    matrix = None
    if frame.colorspace == _UNSPECIFIED:  # as players guess: HD is BT.709
        matrix = _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601
    methods = library().video.reformatter.Interpolation
    converted = frame.reformat(
        width,
        height,
        "rgb48le" if converting else "rgb24",
        src_colorspace=matrix,
        dst_color_range="JPEG",
        interpolation=methods.BICUBIC | methods.ACCURATE_RND | methods.FULL_CHR_H_INT,
        threads=1,
    )
    pixels = converted.to_ndarray()
    if converting:
        white, black = (235 << 8, 16 << 8) if grey else (_white(frame), 0)
        pixels = colors.to_srgb(pixels, frame.color_trc, frame.color_primaries, white, black)
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    return np.ascontiguousarray(pixels[flips])


def _is_limited_grey(frame: Any) -> bool:
    """Whether a frame has a limited range that swscale ignores, as it does in formats of grey."""
    return frame.color_range == _LIMITED and frame.format.name.startswith(("gray", "ya"))


def _white(frame: Any) -> int:
    """Return what swscale makes of white in 16 bits. It shifts fewer bits up, and does not scale.

    White of a limited range is 255, shifted.
    """
    full = frame.format.is_rgb or frame.color_range == _FULL
    bits = min(max(frame.format.components[0].bits, 8), 16) if full else 8
    return (2**bits - 1) << (16 - bits)


def _turn(frame: Any) -> tuple[bool, tuple[slice, slice]]:
    """Return whether to transpose a frame, and the slices that then flip it, to show it upright.

    The display matrix of FFmpeg and ISO/IEC 14496-12 maps a place (x, y) to (ax + cy, bx + dy).
    """
    data = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return False, (slice(None), slice(None))
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    transposed = abs(b) > abs(a)
    across, down = (c, b) if transposed else (a, d)
    return transposed, (
        slice(None, None, -1 if down < 0 else None),
        slice(None, None, -1 if across < 0 else None),
    )
