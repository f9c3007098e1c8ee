"""Frames of a camera, or of a clip at its own pace: always the newest one."""

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from impasto.video.motion import require
from impasto.video.reading import Clip, open_clip

Pixels = UInt8[np.ndarray, "h w 3"]

_PATIENCE = 5.0  # seconds that a camera may take for a frame


def newest_frames(source: str, size: int) -> Iterator[Pixels]:
    """Yield frames of a camera or a clip, H×W×3 levels of sRGB.

    Frames that come while the last one is painted are left out.

    Args:
        source: number of a camera, or the path of a clip.
        size: longer side of the frames in pixels.

    Raises:
        ValueError: there is no such camera or clip, the camera ends, or OpenCV or PyAV is not
            installed.
    """
    if source.isdecimal():
        return _of_camera(_opened(int(source), size), source, size)
    return _of_clip(open_clip(Path(source).expanduser()), size)


def _opened(number: int, size: int) -> Any:
    cv2 = require()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # the error below says it
    capture = cv2.VideoCapture(number)
    if not capture.isOpened():
        raise ValueError(
            f"camera {number}: cannot be opened; give the number of another one, or a clip"
        )
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, size)
    return capture


def _of_camera(capture: Any, number: str, size: int) -> Iterator[Pixels]:
    newest: list[np.ndarray] = []
    came, ended = Event(), Event()

    def read() -> None:
        while not ended.is_set():
            there, picture = capture.read()
            if there:
                newest[:] = [picture]
            else:
                ended.set()
            came.set()

    reader = Thread(target=read, daemon=True)
    reader.start()
    try:
        while came.wait(_PATIENCE):
            came.clear()
            if newest:
                yield _resized(np.ascontiguousarray(newest.pop()[..., ::-1]), size)
            if ended.is_set():
                break
        raise ValueError(f"camera {number}: gives no frames; is another program using it?")
    finally:
        ended.set()
        reader.join(_PATIENCE)
        capture.release()


def _of_clip(clip: Clip, size: int) -> Iterator[Pixels]:
    began = time.perf_counter()
    for frame in clip.frames():
        shown = began + float(frame.pts * clip.time_base)
        now = time.perf_counter()
        if shown + float(1 / clip.rate) < now:
            continue  # its time is over
        time.sleep(max(0.0, shown - now))
        yield _resized(frame.pixels[..., :3], size)


def _resized(pixels: Pixels, size: int) -> UInt8[np.ndarray, "y x 3"]:
    height, width = pixels.shape[:2]
    if max(height, width) == size:
        return np.ascontiguousarray(pixels)
    scale = size / max(height, width)
    sides = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(pixels).resize(sides, Image.Resampling.BILINEAR))
