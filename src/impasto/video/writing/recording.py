"""Record frames as they come, at the times at which they come."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from impasto.video.pyav import library
from impasto.video.writing.videos import BT709, LIMITED, yuv
from impasto.writing import new_file

_MILLISECOND = Fraction(1, 1000)


@contextmanager
def recording(path: Path, size: tuple[int, int]) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that adds a frame, H×W×3 levels of sRGB, to a new H.264 clip.

    The clip gets its name when the block ends.

    Args:
        path: the clip to write, .mp4.
        size: width and height of the frames in pixels.

    Raises:
        ValueError: the file exists or cannot be written, or PyAV is not installed.
    """
    av = library()
    with new_file(path) as file, av.open(str(file.name), mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        context = stream.codec_context
        context.width, context.height = size
        odd = size[0] % 2 == 1 or size[1] % 2 == 1
        context.pix_fmt = "yuv444p" if odd else "yuv420p"
        context.time_base = stream.time_base = _MILLISECOND
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED
        # The window must not wait for the encoder.
        context.options = {"crf": "18", "preset": "ultrafast", "tune": "zerolatency"}
        began, last = time.perf_counter(), -1

        def add(pixels: UInt8[np.ndarray, "h w 3"]) -> None:
            nonlocal last
            picture = yuv(pixels, odd)
            last = max(last + 1, round((time.perf_counter() - began) / _MILLISECOND))
            picture.pts, picture.time_base = last, _MILLISECOND
            container.mux(context.encode(picture))

        yield add
        container.mux(context.encode(None))
