"""Read videos by FFmpeg, also damaged ones as far as they go."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from impasto.images.cicp import HLG, PQ
from impasto.video import colors
from impasto.video.pyav import library
from impasto.video.reading.clip import UNTOLD_RATE, Clip, Timed
from impasto.video.reading.decoded import is_transposed, shown, size_shown
from impasto.video.tracks import is_cover, tracks

# Containers that tell their length exactly, so that a missing end shows.
_EXACT_LENGTH = ("mov", "matroska", "avi")


class Video(Clip):
    """A video, read by FFmpeg."""

    def _open(self) -> None:
        container, stream = self._container()
        with container:
            self.base = stream.time_base
            self.rate = stream.average_rate or stream.guessed_rate or Fraction(UNTOLD_RATE)
            self.origin = stream.start_time or 0
            if "mpeg" in container.format.name:  # a broadcast's clock starts anywhere
                self.clock = round(Fraction(container.start_time or 0, 1_000_000) / self.base)
            self.aspect = stream.sample_aspect_ratio or Fraction(1)
            self.count = stream.frames or None
            length = _length(container, stream)
            self.seconds = None if length is None else float(length)
            self.tracks += [name for name, _ in tracks(container)]
            videos = sum(not is_cover(video) for video in container.streams.video)
            if videos > 1:
                self.note(f"{videos} video streams: number {stream.index + 1} is read")

    def _container(self) -> tuple[Any, Any]:
        """Open the file, and return it with its video stream."""
        av = library()
        try:
            # Without "file:", the colon in a name would begin a protocol. A playlist could name an
            # address.
            container = av.open(
                f"file:{self.path}",
                metadata_errors="replace",
                container_options={"protocol_whitelist": "file"},
            )
        except av.FFmpegError as error:
            raise self._refusal(_why_not(self.path)) from error
        # FFmpeg would draw a text file as the screen of a terminal.
        stream = None if container.format.name == "tty" else container.streams.best("video")
        if stream is None or is_cover(stream):
            has = ", ".join(sorted({other.type for other in container.streams}))
            text = container.format.name == "tty"
            container.close()
            raise self._refusal("not a video" if text else f"no video stream in it ({has} only)")
        if stream.codec_context is None:
            container.close()
            raise self._refusal("its video is of a kind that FFmpeg does not decode: convert it")
        return container, stream

    @contextmanager
    def container(self) -> Iterator[Any]:
        container, _ = self._container()
        with container:
            yield container

    def _shape(self, first: Timed | None) -> None:
        super()._shape(first)
        assert first is not None and isinstance(first[2], partial)
        frame = first[2].args[0]
        if is_transposed(frame):
            self.aspect = 1 / self.aspect
        self.space = colors.space_of_painting(frame.color_trc, frame.color_primaries)
        kind = {PQ: "PQ", HLG: "HLG"}.get(frame.color_trc)
        if kind:
            self.note(f"HDR ({kind}) is converted to SDR")
        elif colors.is_wide(frame.color_primaries):
            self.note("its wide colours are converted to those of sRGB")
        elif frame.format.components[0].bits > 8:
            self.note(f"{frame.format.components[0].bits} bits a channel are converted to 8")
        if any(component.is_alpha for component in frame.format.components):
            self.note("its transparency is left out")
        if frame.interlaced_frame:
            self.note("it is interlaced, and painted as it is: deinterlace it first if lines show")

    def _decoded(self) -> Iterator[Timed]:
        if self.start:
            # A seek finds the key frame before. Without an index it may miss, which shows.
            frames = self._read(seek=True)
            first = next(frames, None)
            if first is not None and first[0] * self.base <= self.begin:
                yield first
                yield from frames
                return
        yield from self._read()

    def _read(self, seek: bool = False) -> Iterator[Timed]:
        av = library()
        container, stream = self._container()
        with container:
            if seek:
                try:
                    container.seek(int(self.begin / self.base), stream=stream)
                except av.FFmpegError:
                    return
            number, before = 0, None
            latest = Fraction(0)  # end of what has been read, of any stream, in seconds
            for packet in self._packets(container):
                if packet and packet.stream is not stream:
                    latest = max(latest, _end(packet))
                    continue
                try:
                    frames = stream.decode(packet if packet and packet.size else None)
                except av.FFmpegError:
                    self.note(f"damaged after frame {number}: what can be decoded is read",
                              damage=True)  # fmt: skip
                    continue
                for frame in frames:
                    number += 1
                    if frame.is_corrupt:
                        self.note(f"damaged: frame {number} lacks a part", damage=True)
                    step = frame.duration or max(1, round(1 / self.rate / self.base))
                    pts = frame.pts if frame.pts is not None else frame.dts
                    if pts is None:
                        pts = self.origin if before is None else before + step
                    if before is not None:
                        pts = max(pts, before + 1)  # times of damaged files may go back
                    before = pts
                    latest = max(latest, (pts + step) * self.base)
                    yield pts, frame.duration or 0, partial(self._pixels, frame)
            self._check_end(container, stream, number, latest)

    def _packets(self, container: Any) -> Iterator[Any]:
        """Yield all packets, up to the end or to damage that ends them; then None."""
        av = library()
        packets = container.demux()
        try:
            yield from packets
        except av.FFmpegError as error:
            self.note(f"damaged: it cannot be read to its end ({error.strerror})", damage=True)
            yield None

    def _check_end(self, container: Any, stream: Any, number: int, latest: Fraction) -> None:
        """Note that frames at the end are missing, if the file says how long it is."""
        if not any(name in container.format.name for name in _EXACT_LENGTH):
            return
        length = (container.duration or 0) * Fraction(1, 1_000_000)
        if "avi" in container.format.name:  # FFmpeg estimates the duration by the file's size
            length = max(length, stream.frames / self.rate)
        end = max(0, container.start_time or 0) * Fraction(1, 1_000_000) + length
        if end - latest > max(Fraction(1, 4), 4 / self.rate):
            where = "" if self.start else f"after frame {number}, "
            self.note(
                f"ends early {where}at {float(latest):.2f} s of {float(end):.2f} s: "
                "the rest is missing",
                damage=True,
            )

    def _pixels(self, frame: Any) -> np.ndarray:
        if hasattr(self, "size") and size_shown(frame) != self.size:
            self.note("its frames change their size: all are scaled to the first one's")
        return shown(frame, getattr(self, "size", size_shown(frame)))


def _why_not(path: Path) -> str:
    """Say why FFmpeg cannot open a file."""
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        return "the file is empty, get it again"
    if head[4:8] in (b"ftyp", b"mdat", b"wide"):
        return (
            "no index (moov atom missing): the recording or the copy was cut off; "
            "copy it again, or repair it with untrunc"
        )
    return "not a video that FFmpeg can read, or damaged"


def _length(container: Any, stream: Any) -> Fraction | None:
    """Return the length of the video in seconds, if the file tells it."""
    if stream.duration:
        length: Fraction = stream.duration * stream.time_base
        return length
    if container.duration:
        late = (stream.start_time or 0) * stream.time_base
        late -= Fraction(container.start_time or 0, 1_000_000)
        return Fraction(container.duration, 1_000_000) - max(late, 0)
    return None


def _end(packet: Any) -> Fraction:
    """Return when a packet ends, in seconds."""
    if packet.pts is None:
        return Fraction(0)
    end: Fraction = (packet.pts + (packet.duration or 0)) * packet.time_base
    return end
