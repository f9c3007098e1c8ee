"""Write clips in segments, so that an interrupted run can go on; then join them without loss.

Every segment starts with a key frame and a new encoder, which knows nothing of the frames before.
So an interrupted run gives the same frames as one without a pause.
"""

import json
from pathlib import Path

import numpy as np

from impasto.choices import Audio
from impasto.video.clips import Frame, Kind, check_output
from impasto.video.reading.clip import Clip
from impasto.video.writing.animations import Gif, Webp
from impasto.video.writing.folders import Folder
from impasto.video.writing.output import Encoder, Output
from impasto.video.writing.segments import Encoded, Segments
from impasto.video.writing.videos import Video
from impasto.writing import one_line

_FORMAT = 1  # of the segments
_OUTPUTS: dict[Kind, type[Output]] = {
    "mp4": Video, "mov": Video, "matroska": Video, "gif": Gif, "webp": Webp, "folder": Folder,
}  # fmt: skip


class ClipWriter:
    """Writes the frames of a painted clip, with the sound and the metadata of the clip it was.

    Call `write` for each frame from number `done` on, `end_segment` every `clips.SEGMENT` frames,
    and `finish` at the end.

    Attributes:
        state: what was stored with the last segment found on disk; None: there is none.
        parts: the folder of the segments, for all that a run stores meanwhile; `finish` removes it.
        notes: what the user should know, one line each.
    """

    def __init__(
        self,
        output: str | Path,
        clip: Clip,
        size: tuple[int, int],
        *,
        identity: str,
        crf: int = 18,
        audio: Audio = "copy",
        overwrite: bool = False,
    ) -> None:
        """Check that the clip can be written, and look for segments of an interrupted run.

        Args:
            output: .mp4, .mov or .mkv (H.264), .gif or .webp (animated), or a folder of PNG files.
            clip: the clip that is painted; times, sound and metadata are its.
            size: width and height of the frames to write, in pixels.
            identity: all that decides the pictures, as text. Segments of another one are refused.
            crf: quality of H.264: 0 without loss … 51; 18 can hardly be told from the original.
            audio: copy, or none to leave the sound out.
            overwrite: replace an existing output, and segments of another identity.

        Raises:
            ValueError: `crf` is out of range; as in `check_output`; the output cannot hold such a
                clip; the segments are of another identity; or another process writes the same
                output.
        """
        if not 0 <= crf <= 51:
            raise ValueError(f"crf {crf}: must be from 0 (without loss) to 51 (worst)")
        path = Path(output)
        kind = check_output(path, clip.path, overwrite)
        self._output = _OUTPUTS[kind](path, kind, clip, size, crf, audio, overwrite)
        self._segments = Segments(path, _identity(self._output, identity), overwrite)
        self._segment: list[Encoded] = []
        self._encode: Encoder | None = None
        self._last = self._segments.last
        self.state, self.parts = self._segments.state, self._segments.folder
        self.notes = self._output.notes

    @property
    def done(self) -> int:
        """Number of frames in whole segments."""
        return self._segments.done

    def write(self, frame: Frame) -> None:
        """Add a frame: pixels of the size given at the start, and a later time than the last.

        Raises:
            ValueError: the encoder refuses it.
        """
        assert frame.pixels.shape[1::-1] == self._output.size, "the size was given at the start"
        assert self._last is None or frame.pts > self._last, "times rise"
        self._last = frame.pts
        if self._encode is None:
            self._encode = self._output.encoder()
        self._segment += self._encode(frame)

    def end_segment(self, state: dict[str, np.ndarray]) -> None:
        """Store the frames since the last call, with what is needed to go on after them.

        Args:
            state: arrays by name; they come back exactly.

        Raises:
            FileError: the disk is full, or the file cannot be written.
        """
        if self._encode is None:
            return
        self._segment += self._encode(None)
        self._segments.add(self._segment, state)
        self._segment, self._encode = [], None

    def finish(self) -> list[str]:
        """Join the segments to the output, with sound and metadata, and remove them.

        Returns:
            The notes, with those about streams that the output cannot hold.

        Raises:
            ValueError: there are no frames, or the output cannot be written.
        """
        self.end_segment({})
        if not self.done:
            raise ValueError(one_line(self._output.path, "no frame was written: nothing to join"))
        self._output.join(self._segments)
        self._segments.remove()
        return self.notes


def _identity(output: Output, pictures: str) -> str:
    """Return all that decides the segments, as JSON."""
    clip = output.clip
    part = [clip.start, clip.duration, clip.fps, clip.time_base]
    facts = {"format": _FORMAT, "kind": output.kind, "size": output.size, **output.encoding()}
    return json.dumps(facts | {"part": [str(value) for value in part], "pictures": pictures})
