"""Read clips: videos by PyAV, animations by Pillow, folders of pictures."""

import math
from pathlib import Path

from impasto.images.reading import open_image
from impasto.spelling import not_there
from impasto.video.reading.animations import Animation
from impasto.video.reading.clip import Clip, fraction
from impasto.video.reading.folders import Folder
from impasto.video.reading.videos import Video
from impasto.writing import one_line

__all__ = ["Clip", "open_clip"]


def open_clip(
    path: str | Path,
    start: float | int = 0,
    duration: float | int | None = None,
    fps: float | int | None = None,
) -> Clip:
    """Open a clip, or a part of one.

    Args:
        path: a video; an animated GIF, WebP or PNG; or a folder of pictures, shown in the natural
            order of their names.
        start: where to begin, in seconds after the clip's first frame.
        duration: seconds to read; None: up to the end.
        fps: constant rate to bring the frames to, by leaving out or repeating some; None: their own
            times. For a folder, the rate at which its pictures are shown; None: 25.

    Raises:
        ValueError: the clip cannot be read, `start` lies beyond its end, or a number makes no
            sense. The message is one line.
    """
    path = Path(path)
    if not (0 <= start < math.inf):
        raise ValueError(f"--start {start:g}: must be 0 or more seconds")
    if duration is not None and not (0 < duration < math.inf):
        raise ValueError(f"--duration {duration:g}: must be above 0 seconds")
    if fps is not None and not (0 < fps <= 1000):
        raise ValueError(f"--fps {fps:g}: must be above 0, and at most 1000")
    if not path.exists():
        raise ValueError(one_line(*not_there(path, "clip").split(": ", 1)))
    kind: type[Clip] = Folder if path.is_dir() else _kind_of_file(path)
    return kind(
        path,
        fraction(start),
        None if duration is None else fraction(duration),
        None if fps is None else fraction(fps),
    )


def _kind_of_file(path: Path) -> type[Clip]:
    """Tell an animation from a video, by the first bytes of the file."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[:4] == b"GIF8" or (head[:4], head[8:12]) == (b"RIFF", b"WEBP"):
        return Animation
    png = head[:8] == b"\x89PNG\r\n\x1a\n"
    if png and (open_image(path).info.get("default_image") is not None or b"acTL" in head):
        return Animation
    if png or head[:3] == b"\xff\xd8\xff":
        raise ValueError(one_line(path, "is a picture: `impasto infer` paints it"))
    return Video
