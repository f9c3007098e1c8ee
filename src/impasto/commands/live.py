"""The command `impasto live`: paints a camera, or a clip, in a window."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from impasto.commands.arguments import parsed

_ALLOWED = {"strength": "a number from 0 to 1", "size": "a whole number of pixels"}
_SOURCE = "number of a camera, or a clip"
_HELP = """\
Paint a camera, or a clip at its own pace, in a window.

Keys: 1 to 9 choose a style; Left and Right mix it with the next one; Up and Down change the
strength; r begins and ends a recording; q ends."""
_MIXED = 0.25  # share of the next style that a key adds
_STRONGER = 0.1
_RATED = 30  # frames over which the rate is shown


def live(arguments: list[str]) -> int:
    """Run the command with the arguments of a command line; return its exit status.

    Raises:
        ValueError: a mistake of the user.
    """
    unnamed, options = {"source": _SOURCE}, arguments
    if not options or options[0].startswith("-"):
        options = ["0", *options]  # the first camera
    return paint(**parsed("live", _HELP, paint, options, unnamed, _ALLOWED))


def paint(
    source: str,
    network: str = "realtime",
    style: str | None = None,
    size: int = 640,
    strength: float = 1.0,
    output: str = "stylized",
    threads: int = 0,
) -> int:
    """Paint frames in a window until it is closed, or the clip ends.

    Args:
        source: number of a camera, or a clip
        network: a published name or a file
        style: a style of the network, or a mixture; if not given, its first
        size: longer side of the frames in pixels
        strength: from 0 (the frame) to 1 (fully stylized)
        output: folder for recordings
        threads: of ONNX Runtime; 0: as many as it takes
    """
    if size < 64 or threads < 0:
        raise ValueError(f"size {size}, threads {threads}: size from 64, threads from 0")
    # Imported here because torch takes seconds to import. Mistakes above are answered without it.
    from impasto.commands.window import Window
    from impasto.inference.live import LivePainter
    from impasto.networks import load_network
    from impasto.video.camera import newest_frames

    frames = newest_frames(source, size)
    loaded = load_network(network)
    first = style or next(iter(loaded.styles), None)
    painter = LivePainter(loaded, first, strength, threads)
    keys = Keys(painter.styles, style or painter.styles[0], strength)
    window = Window(f"impasto live: {network}", keys.pressed)
    recordings = Recordings(Path(output).expanduser())
    ends = deque[float](maxlen=_RATED)
    try:
        for frame in frames:
            if keys.changed:
                painter.set_style(keys.style())
                painter.strength, keys.changed = keys.strength, False
            painted = painter(frame)
            recordings.take(painted, keys.recording)
            ends.append(time.perf_counter())
            rate = (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0
            window.show(painted, f"{rate:.0f} frames/s   {keys.text()}")
            if window.closed or keys.ended:
                break
    finally:
        recordings.end()
    return 0


class Recordings:
    """Clips of what is painted, one after another, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder
        self._open = ExitStack()
        self._add: Callable[[Any], None] | None = None

    def take(self, painted: Any, wanted: bool) -> None:
        """Record a frame, H×W×3 levels, if that is wanted; else end the recording that runs."""
        if not wanted:
            self.end()
            return
        if self._add is None:
            from impasto.video.writing.recording import recording

            names = (self._folder / f"live_{number}.mp4" for number in count(1))
            self._file = next(path for path in names if not path.exists())
            self._add = self._open.enter_context(recording(self._file, painted.shape[1::-1]))
        self._add(painted)

    def end(self) -> None:
        """End the recording that runs, if one does, and print its name."""
        if self._add is not None:
            self._add = None
            self._open.close()
            print(self._file, flush=True)


class Keys:
    """What the user has chosen by keys.

    Args:
        styles: names of the network's styles.
        style: the style or mixture to begin with.
        strength: the strength to begin with.

    Attributes:
        strength: from 0 to 1.
        recording: whether frames are to be recorded.
        changed: whether style or strength have changed; the reader sets it back.
        ended: whether the user wants to end.
    """

    def __init__(self, styles: list[str], style: str, strength: float) -> None:
        self.styles, self.strength = styles, strength
        self.recording, self.changed, self.ended = False, False, False
        self._given = style  # until a key chooses one
        self._place: float | None = styles.index(style) if style in styles else None

    def pressed(self, key: str) -> None:
        """Change what a key changes; others do nothing."""
        number = len(self.styles)
        if key.isdecimal() and 1 <= int(key) <= number:
            self._place = int(key) - 1.0
        elif key in ("Left", "Right"):
            moved = _MIXED if key == "Right" else -_MIXED
            self._place = ((self._place or 0.0) + moved) % number
        elif key in ("Up", "Down"):
            moved = _STRONGER if key == "Up" else -_STRONGER
            self.strength = min(1.0, max(0.0, round(self.strength + moved, 2)))
        elif key in ("r", "R"):
            self.recording = not self.recording
            return
        elif key in ("q", "Q", "Escape"):
            self.ended = True
            return
        else:
            return
        self.changed = True

    def style(self) -> str | dict[str, float]:
        """Return the style or mixture that is chosen."""
        if self._place is None:
            return self._given
        first = int(self._place)
        share = self._place - first
        if not share:
            return self.styles[first]
        return {
            self.styles[first]: 1 - share,
            self.styles[(first + 1) % len(self.styles)]: share,
        }

    def text(self) -> str:
        """Return a line about style, strength and recording."""
        style = self.style()
        names = (
            style if isinstance(style, str) else ", ".join(f"{n} {w:g}" for n, w in style.items())
        )
        return f"{names}   strength {self.strength:g}{'   recording' if self.recording else ''}"
