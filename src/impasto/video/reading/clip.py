"""What all kinds of clips share: the part that is read, its times, and what went wrong."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from impasto.video.clips import Frame
from impasto.writing import one_line

UNTOLD_RATE = 25  # frames a second of a clip that does not tell its rate
FINEST = 2**31 - 1  # largest denominator of a time base

Timed = tuple[int, int, Callable[[], np.ndarray]]  # pts, duration, and the pixels when wanted


class Clip(ABC):
    """An opened clip. `open_clip` makes one.

    Attributes:
        path: its file or folder.
        size: width and height of its frames in pixels, upright.
        aspect: width of a pixel relative to its height.
        time_base: unit of the frames' times, in seconds.
        rate: average number of frames a second.
        count: number of frames that will come, exact or estimated; None: unknown.
        seconds: their length; None: unknown.
        shift: what is subtracted from the times in the file, in seconds: the time of the first
            frame if `start` was given, else the start of a broadcast's clock, else 0.
        until: end of the part, in the file's own clock; None: the end of the file.
        transparent: whether frames have alpha.
        space: of its painting, if that is a video; see `colors.space_of_painting`.
        animation: whether durations are exact even where they are 0 (GIF, WebP, APNG).
        plays: how often an animation is played; 0: for ever.
        tracks: the other streams of the file, such as "audio 1 (aac, eng)".
        notes: what the user should know, one line each; grows while frames are read.
        damaged: whether frames are missing or damaged; final once all have been read.
    """

    size: tuple[int, int]
    base: Fraction  # unit of the file's own times
    rate: Fraction
    count: int | None = None
    seconds: float | None = None
    aspect = Fraction(1)
    origin = 0  # time of the first frame, in units of `base`
    clock = 0  # time at which the file begins, where that means nothing, in units of `base`
    transparent = False
    space = (1, 1)
    animation = False
    plays = 0

    def __init__(
        self, path: Path, start: Fraction, duration: Fraction | None, fps: Fraction | None
    ) -> None:
        self.path, self.start, self.duration, self.fps = path, start, duration, fps
        self.shift = Fraction(0)
        self.damaged = False
        self.notes: list[str] = []
        self.tracks: list[str] = []
        self._open()
        self.time_base = self.base if self.fps is None else _common(self.base, 1 / self.fps)
        if self.seconds is not None and self.start >= self.seconds:
            raise self._too_late()
        self.begin = self.origin * self.base + self.start
        self.until = None if duration is None else self.begin + duration
        self._shape(next(self._chosen(), None))
        self._measure()

    def frames(self, first: int = 0) -> Iterator[Frame]:
        """Yield the frames in the order in which they are shown.

        Args:
            first: number of the first frame to yield. The earlier ones are decoded and left out, so
                that those that follow are exactly as if all were read.
        """
        shown = self._chosen()
        if self.fps is not None:
            shown = self._at_constant_rate(shown)
        for number, (pts, duration, pixels) in enumerate(shown):
            if number >= first:
                yield Frame(pixels(), pts, duration)

    def note(self, text: str, *, damage: bool = False) -> None:
        """Tell the user something once."""
        if text not in self.notes:
            self.notes.append(text)
        self.damaged |= damage

    @contextmanager
    def container(self) -> Iterator[Any]:
        """Open the file for its other streams; None: it has none."""
        yield None

    @abstractmethod
    def _open(self) -> None:
        """Find out what the file says about the clip: base, rate, count and seconds at least."""

    @abstractmethod
    def _decoded(self) -> Iterator[Timed]:
        """Yield the frames of the file, at least from `begin` on, with rising times."""

    def _shape(self, first: Timed | None) -> None:
        """Set size and shift by the first frame."""
        if first is None:
            if self.start:
                raise self._too_late()
            raise self._refusal("no frame of it can be decoded: it is damaged, get it again")
        height, width = first[2]().shape[:2]
        self.size = (width, height)

    def _chosen(self) -> Iterator[Timed]:
        """Yield the frames between start and end; with `start`, the first has the time 0."""
        shift = self.clock
        for number, (pts, duration, pixels) in enumerate(
            shown for shown in self._decoded() if shown[0] * self.base >= self.begin
        ):
            if self.until is not None and pts * self.base >= self.until:
                return
            if self.start and not number:
                shift = pts
            self.shift = shift * self.base
            yield pts - shift, duration, pixels

    def _at_constant_rate(self, shown: Iterator[Timed]) -> Iterator[Timed]:
        """Yield, at every time of the constant rate, the frame that is shown then."""
        assert self.fps is not None
        unit = self.base / self.time_base
        step = 1 / self.fps / self.time_base
        due, end, pixels = None, Fraction(0), None
        for pts, duration, following in shown:
            if due is None:
                due = pts * unit
            while pixels is not None and due < pts * unit:
                yield round(due), round(step), pixels
                due += step
            pixels = following
            end = (pts + (duration or 1 / self.rate / self.base)) * unit
            if self.until is not None:
                end = min(end, (self.until - self.shift) / self.time_base)
        while pixels is not None and due is not None and due < end:
            yield round(due), round(step), pixels
            due += step

    def _measure(self) -> None:
        """Work out how many frames and seconds of the file will come."""
        whole = self.start == 0 and self.duration is None and self.fps is None
        if self.seconds is not None:
            end = Fraction(self.seconds)
            if self.duration is not None:
                end = min(end, self.start + self.duration)
            if self.start:
                end -= self.shift - self.origin * self.base
            self.seconds = float(end)
            if not (whole and self.count):
                self.count = max(1, math.ceil(self.seconds * (self.fps or self.rate) - 1e-6))
        elif not whole:
            self.count = None
        self.rate = self.fps or self.rate

    def _too_late(self) -> ValueError:
        ends = "" if self.seconds is None else f", which ends at {self.seconds:.2f} s"
        return ValueError(
            one_line(f"--start {float(self.start):g}", f"beyond the end of {self.path}{ends}")
        )

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(one_line(self.path, reason))


def fraction(number: float | int) -> Fraction:
    """Return the simplest fraction close to a number: 1/10 for 0.1."""
    return Fraction(number).limit_denominator(1_000_000)


def _common(one: Fraction, other: Fraction) -> Fraction:
    """Return the largest unit of which both are multiples; or `other`, if it would be too fine."""
    denominator = math.lcm(one.denominator, other.denominator)
    unit = Fraction(math.gcd(int(one * denominator), int(other * denominator)), denominator)
    return unit if unit.denominator <= FINEST else other
