"""Write videos: H.264 beside the tracks of the clip that was painted, by FFmpeg."""

import heapq
import io
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from impasto.images import on_white
from impasto.video import colors
from impasto.video.clips import Frame
from impasto.video.pyav import library
from impasto.video.tracks import tracks
from impasto.video.writing.output import Encoder, Output
from impasto.video.writing.segments import Encoded, Segments
from impasto.writing import new_file

BT709, LIMITED = 1, 1  # codes of ITU-T H.273, and FFmpeg's of the range
_THREADS = 4  # of the encoder; fixed, because its result depends on them
# Facts about the input's file that FFmpeg stores as metadata. They are not true of the output.
_OF_THE_FILE = (
    "major_brand",
    "minor_version",
    "compatible_brands",
    "encoder",
    "DURATION",
    "rotate",
)
_APART = 10  # seconds that streams of a file may lie apart


class Video(Output):
    """H.264 in MP4, MOV or Matroska."""

    def encoding(self) -> dict[str, str | int]:
        return {"PyAV": library().__version__, "crf": self.crf, "space": str(self.clip.space)}

    def encoder(self) -> Encoder:
        av = library()
        context = av.CodecContext.create("libx264", "w")
        self._set_up(context)
        durations: dict[int, int] = {}

        def encode(frame: Frame | None) -> list[Encoded]:
            picture = None
            if frame is not None:
                durations[frame.pts] = frame.duration
                picture = self._to_yuv(frame)
            # Without B-frames, packets come in the order of the frames, and dts is pts.
            return [
                (bytes(packet), packet.pts, durations[packet.pts], packet.is_keyframe)
                for packet in context.encode(picture)
            ]

        return encode

    def _set_up(self, context: Any) -> None:
        """Set up an encoder. All encoders of a clip are equal, so their headers are."""
        context.width, context.height = self.size
        context.pix_fmt = "yuv444p" if self._odd() else "yuv420p"
        context.time_base = self.clip.time_base
        context.framerate = self.clip.rate.limit_denominator(1_000_000)
        context.sample_aspect_ratio = self.clip.aspect
        context.color_primaries, context.color_trc = self.clip.space
        context.colorspace, context.color_range = BT709, LIMITED
        context.flags |= library().codec.context.Flags.global_header
        # With x264's macroblock tree, 9 of 120 runs gave other bits for equal frames; without it,
        # none of 160.
        context.options = {
            "crf": str(self.crf), "bf": "0", "mbtree": "0", "threads": str(_THREADS),
        }  # fmt: skip

    def _to_yuv(self, frame: Frame) -> Any:
        pixels = frame.pixels
        if pixels.shape[2] == 4:
            pixels = np.asarray(on_white(Image.fromarray(pixels)))
        picture = yuv(colors.from_srgb(pixels, self.clip.space[0]), self._odd())
        picture.pts, picture.time_base = frame.pts, self.clip.time_base
        return picture

    def _odd(self) -> bool:
        return self.size[0] % 2 == 1 or self.size[1] % 2 == 1

    def join(self, segments: Segments) -> None:
        with new_file(self.path, self.overwrite, durable=True) as file:
            self._mux(str(file.name), segments)

    def _lost(self) -> list[str]:
        lost = []
        if self._odd():
            width, height = self.size
            lost.append(
                f"{width}×{height} has an odd side: written as 4:4:4, which some players do "
                "not show"
            )
        if self.clip.transparent:
            lost.append(f"{self.path.suffix} has no transparency: laid on white")
        return lost

    def _mux(self, path: str, segments: Segments) -> None:
        """Write frames, and the other streams of the clip packet by packet, into a container."""
        av = library()
        options = {}
        if self.kind != "matroska":
            # FFmpeg would multiply a small time scale, and round durations with it.
            options = {"video_track_timescale": str(self.clip.time_base.denominator)}
            options["movflags"] = "faststart"
            options["movie_timescale"] = "1000000"  # where streams start; FFmpeg's default is 1000
        try:
            with (
                self.clip.container() as source,
                av.open(path, mode="w", format=self.kind, container_options=options) as target,
            ):
                video = target.add_stream("libx264", rate=self.clip.rate.limit_denominator(10**6))
                self._set_up(video.codec_context)
                copies = self._add_tracks(source, target)
                painted, copied = self._painted(video, segments), self._copied(source, copies)
                for packet in heapq.merge(painted, copied, key=_time):
                    target.mux(packet)
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error

    def _painted(self, video: Any, segments: Segments) -> Iterator[Any]:
        """Yield the packets of the frames."""
        av = library()
        for data, pts, duration, key in segments.frames():
            packet = av.Packet(data)
            packet.stream, packet.time_base = video, self.clip.time_base
            packet.pts = packet.dts = pts
            packet.duration, packet.is_keyframe = duration, key
            yield packet

    def _add_tracks(self, source: Any, target: Any) -> dict[int, Any]:
        """Add the streams that are copied, and return them by their number in the source."""
        if source is None:
            return {}
        for name, text in source.metadata.items():
            if name not in _OF_THE_FILE:
                target.metadata[name] = text
        if not self.clip.start and self.clip.until is None:
            target.set_chapters(source.chapters())
        copies = {}
        for name, stream in tracks(source):
            if stream.type == "audio" and self.audio == "none":
                continue
            if not _holds(self.kind, stream):
                self.notes.append(self._left_out(name))
                continue
            copies[stream.index] = copy = target.add_stream_from_template(stream)
            copy.disposition = stream.disposition
            for key, text in stream.metadata.items():
                if key not in _OF_THE_FILE:
                    copy.metadata[key] = text
        return copies

    def _copied(self, source: Any, copies: dict[int, Any]) -> Iterator[Any]:
        """Yield the packets of other streams that lie in the part, shifted as its frames are."""
        if not copies:
            return
        av, clip = library(), self.clip
        before: dict[int, int] = {}
        try:
            for packet in source.demux([source.streams[index] for index in copies]):
                if packet.dts is None:  # the end of a stream
                    continue
                time = (packet.dts if packet.pts is None else packet.pts) * packet.time_base
                if clip.until is not None and time > clip.until + _APART:
                    return
                if (clip.start and time < clip.shift) or (
                    clip.until is not None and time >= clip.until
                ):
                    continue
                index, shift = packet.stream.index, round(clip.shift / packet.time_base)
                # Times of damaged files may go back, which containers refuse.
                packet.dts = max(packet.dts - shift, before.get(index, packet.dts - shift - 1) + 1)
                before[index] = packet.dts
                if packet.pts is not None:
                    packet.pts = max(packet.pts - shift, packet.dts)
                packet.stream = copies[index]
                yield packet
        except av.FFmpegError as error:
            self.notes.append(f"sound and subtitles end early: damaged ({error.strerror})")


def yuv(pixels: UInt8[np.ndarray, "h w 3"], odd: bool) -> Any:
    """Return R'G'B' levels as a frame of PyAV, in the matrix of BT.709 and limited range.

    Args:
        pixels: the levels.
        odd: keep all colours (4:4:4), as an odd side needs, instead of one of four pixels (4:2:0).
    """
    av = library()
    names = av.video.reformatter
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24").reformat(
        format="yuv444p" if odd else "yuv420p",
        dst_colorspace=names.Colorspace.ITU709,
        dst_color_range=names.ColorRange.MPEG,
        interpolation=names.Interpolation.BICUBIC | names.Interpolation.ACCURATE_RND,
        threads=1,
    )


def _holds(kind: str, stream: Any) -> bool:
    """Whether a container takes a stream. Only writing its header shows that for sure."""
    av = library()
    try:
        with av.open(io.BytesIO(), mode="w", format=kind) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


def _time(packet: Any) -> Fraction:
    time: Fraction = packet.dts * packet.time_base
    return time
