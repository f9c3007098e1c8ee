"""What every kind of output defines: how frames are encoded and joined, and what it cannot hold."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from impasto.choices import Audio
from impasto.video.clips import Frame, Kind
from impasto.video.reading.clip import Clip
from impasto.video.writing.segments import Encoded, Segments

# Called with each frame of a segment, then with None. Returns the frames that are encoded by then.
Encoder = Callable[[Frame | None], list[Encoded]]


@dataclass
class Output(ABC):
    """A clip to write.

    Args:
        path: file or folder to write.
        kind: kind of file, or a folder.
        clip: the clip that is painted.
        size: width and height of the frames in pixels.
        crf: quality of H.264.
        audio: copy, or none to leave the sound out.
        overwrite: replace an existing output.

    Attributes:
        notes: what of the clip the output does not have, one line each.
    """

    path: Path
    kind: Kind
    clip: Clip
    size: tuple[int, int]
    crf: int
    audio: Audio
    overwrite: bool

    def __post_init__(self) -> None:
        """Note what the output cannot hold.

        Raises:
            ValueError: it cannot hold such a clip at all.
        """
        self.notes = self._lost()

    def encoding(self) -> dict[str, str | int]:
        """Return what decides the encoded frames, besides their pixels and their times."""
        return {}

    @abstractmethod
    def encoder(self) -> Encoder:
        """Return a new encoder. It knows nothing of earlier segments."""

    @abstractmethod
    def join(self, segments: Segments) -> None:
        """Write the output. What it turns out not to hold is added to the notes.

        Raises:
            FileError: it cannot be written.
        """

    @abstractmethod
    def _lost(self) -> list[str]:
        """Return what of the clip the output will not have, one line each; see `__post_init__`."""

    def _left_out(self, track: str) -> str:
        """Return the line that says that a track is lost."""
        hint = "" if self.kind == "matroska" or track.startswith("data") else "; try .mkv"
        return f"{track} cannot be held in {self._place()}: left out{hint}"

    def _place(self) -> str:
        return self.path.suffix


class Stills(Output):
    """An output of separate pictures, without other tracks."""

    def encoder(self) -> Encoder:
        def encode(frame: Frame | None) -> list[Encoded]:
            if frame is None:
                return []
            return [(self._encoded(frame), frame.pts, frame.duration, True)]

        return encode

    @abstractmethod
    def _encoded(self, frame: Frame) -> bytes:
        """Return a frame as the output will hold it."""

    def _lost(self) -> list[str]:
        return [
            self._left_out(track)
            for track in self.clip.tracks
            if not (track.startswith("audio") and self.audio == "none")
        ]
