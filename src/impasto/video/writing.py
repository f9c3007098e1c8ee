"""Write clips in segments, so that an interrupted run can go on; then join them without loss.

A segment is one file of `.NAME.parts/` beside the output. It holds encoded frames, their exact
times, and what the painter needs to go on after them. It is written whole or not at all, so frames
and state always belong together. Every segment starts with a key frame and a new encoder, which
knows nothing of the frames before. So an interrupted run gives the same frames as one without a
pause.
"""

import heapq
import io
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import GifImagePlugin, Image
from safetensors import safe_open
from safetensors.numpy import load_file, save

from impasto.images import on_white
from impasto.video.clips import FRAME_NAME, Frame, check_output
from impasto.video.reading import Clip, library, tracks
from impasto.writing import new_file, one_line, sweep, write_text

_FORMAT = 1  # of the parts
_BT709, _LIMITED = 1, 1  # codes of ITU-T H.273, and FFmpeg's of the range
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
_OPAQUE = 128  # least alpha of a pixel that GIF shows

Encoded = tuple[bytes, int, int, bool]  # data, pts, duration, whether it is a key frame


class ClipWriter:
    """Writes the frames of a painted clip, with the sound and the metadata of the clip it was.

    Call `write` for each frame from number `done` on, `end_segment` every `clips.SEGMENT` frames,
    and `finish` at the end.

    Attributes:
        done: number of frames in whole segments found on disk.
        state: what was stored with the last of them; None: there is none.
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
        audio: Literal["copy", "none"] = "copy",
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
            ValueError: as in `check_output`; or the segments there are of another identity.
        """
        self.output, self.clip, self.size = Path(output), clip, size
        self.crf, self.audio, self.overwrite = crf, audio, overwrite
        self.kind = check_output(self.output, clip.path, overwrite)
        self.notes: list[str] = []
        self._say_what_is_lost()
        self._parts = self.output.absolute().parent / f".{self.output.name}.parts"
        self._segment: list[Encoded] = []
        self._encode: Callable[[Frame | None], list[Encoded]] | None = None
        self._last: int | None = None  # pts of the last frame
        self._resume(self._identity(identity))

    def write(self, frame: Frame) -> None:
        """Add a frame: pixels of the size given at the start, and a later time than the last.

        Raises:
            ValueError: the encoder refuses it.
        """
        assert frame.pixels.shape[1::-1] == self.size, "the size was given at the start"
        assert self._last is None or frame.pts > self._last, "times rise"
        self._last = frame.pts
        if self._encode is None:
            self._encode = self._encoder()
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
        data, pts, durations, keys = zip(*self._segment, strict=True)
        arrays: dict[str, np.ndarray] = {
            "data": np.frombuffer(b"".join(data), np.uint8),
            "sizes": np.array([len(part) for part in data], np.int64),
            "pts": np.array(pts, np.int64),
            "durations": np.array(durations, np.int64),
            "keys": np.array(keys, np.uint8),
        }
        # safetensors stores an array's memory as it lies.
        arrays |= {f"state.{name}": np.array(value, order="C") for name, value in state.items()}
        with new_file(self._segment_file(self._segments), durable=True) as file:
            file.write(save(arrays))
        self.done += len(pts)
        self._segments += 1
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
            raise ValueError(one_line(self.output, "no frame was written: nothing to join"))
        if self.kind == "folder":
            self._join_folder()
        else:
            with new_file(self.output, self.overwrite, durable=True) as file:
                if self.kind == "gif":
                    self._join_gif(file)
                elif self.kind == "webp":
                    self._join_webp(file)
                else:
                    self._mux(str(file.name))
        shutil.rmtree(self._parts)
        return self.notes

    # Segments

    def _identity(self, pictures: str) -> str:
        clip, versions = self.clip, {}
        if self.kind in ("mp4", "mov", "matroska"):
            versions = {"PyAV": library().__version__, "crf": self.crf}
        part = [clip.start, clip.duration, clip.fps, clip.time_base]
        facts = {"format": _FORMAT, "kind": self.kind, "size": self.size, **versions}
        return json.dumps(facts | {"part": [str(value) for value in part], "pictures": pictures})

    def _resume(self, identity: str) -> None:
        """Find the segments of an interrupted run, or begin."""
        self.done, self.state = 0, None
        self._segments = 0
        place = self._parts / "identity.json"
        if self._parts.exists():
            if not place.exists() or place.read_text() != identity:
                if place.exists() and not self.overwrite:
                    raise ValueError(
                        one_line(
                            self.output,
                            "an interrupted run with another clip, network or options left "
                            f"{self._parts.name}; repeat its command to go on, or pass "
                            "--overwrite to start anew",
                        )
                    )
                shutil.rmtree(self._parts)
            else:
                sweep(self._parts)
        if not self._parts.exists():
            write_text(place, identity)
        while (file := self._segment_file(self._segments)).exists():
            with safe_open(file, "np") as stored:
                self.done += stored.get_slice("pts").get_shape()[0]
            self._segments += 1
        if self._segments:
            arrays = load_file(self._segment_file(self._segments - 1))
            self._last = int(arrays["pts"][-1])
            self.state = {
                name.removeprefix("state."): value
                for name, value in arrays.items()
                if name.startswith("state.")
            }

    def _segment_file(self, number: int) -> Path:
        return self._parts / f"{number:06d}.safetensors"

    def _stored(self) -> Iterator[Encoded]:
        """Yield all encoded frames in order; one segment at a time is in memory."""
        for number in range(self._segments):
            arrays = load_file(self._segment_file(number))
            data, place = arrays["data"].tobytes(), 0
            for size, pts, duration, key in zip(
                arrays["sizes"].tolist(),
                arrays["pts"].tolist(),
                arrays["durations"].tolist(),
                arrays["keys"].tolist(),
                strict=True,
            ):
                yield data[place : place + size], pts, duration, bool(key)
                place += size

    # Encoders: functions of a frame, or of None at the end of a segment

    def _encoder(self) -> Callable[[Frame | None], list[Encoded]]:
        stills = {"gif": self._gif_frame, "webp": self._webp_frame, "folder": self._png}
        if self.kind not in stills:
            return self._h264()
        encode = stills[self.kind]

        def one(frame: Frame | None) -> list[Encoded]:
            if frame is None:
                return []
            return [(encode(frame), frame.pts, frame.duration, True)]

        return one

    def _h264(self) -> Callable[[Frame | None], list[Encoded]]:
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
        from av.codec.context import Flags

        context.width, context.height = self.size
        context.pix_fmt = "yuv444p" if self._odd() else "yuv420p"
        context.time_base = self.clip.time_base
        context.framerate = self.clip.rate.limit_denominator(1_000_000)
        context.sample_aspect_ratio = self.clip.aspect
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        context.flags |= Flags.global_header
        # x264's macroblock tree gave other bits in one of a thousand equal segments, by chance.
        context.options = {
            "crf": str(self.crf), "bf": "0", "mbtree": "0", "threads": str(_THREADS),
        }  # fmt: skip

    def _to_yuv(self, frame: Frame) -> Any:
        av = library()
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        pixels = frame.pixels
        if pixels.shape[2] == 4:
            pixels = np.asarray(on_white(Image.fromarray(pixels)))
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24").reformat(
            format="yuv444p" if self._odd() else "yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND,
            threads=1,
        )
        picture.pts, picture.time_base = frame.pts, self.clip.time_base
        return picture

    def _odd(self) -> bool:
        return self.size[0] % 2 == 1 or self.size[1] % 2 == 1

    def _shown(self, frame: Frame, second: int) -> int:
        """Return how long a frame of an animation is shown, in parts of a second.

        Rounded ends, not rounded lengths, so that errors do not add up.
        """
        length: Fraction | int = frame.duration
        if not length and not self.clip.animation:
            length = 1 / self.clip.rate / self.clip.time_base
        unit = self.clip.time_base * second
        return round((frame.pts + length) * unit) - round(frame.pts * unit)

    def _gif_frame(self, frame: Frame) -> bytes:
        image = Image.fromarray(frame.pixels)
        options: dict[str, Any] = {}
        fast = Image.Quantize.FASTOCTREE  # 80 times as fast as the default, errors 1.4 times
        if image.mode == "RGBA":
            hidden = image.getchannel("A").point([255] * _OPAQUE + [0] * (256 - _OPAQUE))
            image = image.convert("RGB").quantize(255, fast)
            palette = (image.getpalette() or []) + [0] * 768
            image.putpalette(palette[:768])
            image.paste(255, mask=hidden)
            options = {"transparency": 255, "disposal": 2}  # the frame is taken off again
        else:
            image = image.quantize(256, fast)
        duration = 10 * self._shown(frame, 100)  # ms
        return b"".join(
            GifImagePlugin.getdata(image, duration=duration, include_color_table=True, **options)
        )

    def _webp_frame(self, frame: Frame) -> bytes:
        """Return a frame as a chunk ANMF of WebP's container."""
        Image.fromarray(frame.pixels).save(file := io.BytesIO(), "WEBP", quality=95)
        still, chunks, place = file.getvalue(), b"", 12
        while place < len(still):
            length = struct.unpack_from("<L", still, place + 4)[0]
            following = place + 8 + length + length % 2
            if still[place : place + 4] in (b"ALPH", b"VP8 ", b"VP8L"):
                chunks += still[place:following]
            place = following
        width, height = self.size
        head = bytes(6) + _three(width - 1) + _three(height - 1)
        # 2: replace what was there before, instead of blending with it.
        return _chunk(b"ANMF", head + _three(self._shown(frame, 1000)) + b"\2" + chunks)

    def _png(self, frame: Frame) -> bytes:
        Image.fromarray(frame.pixels).save(file := io.BytesIO(), "PNG")
        return file.getvalue()

    # Joining

    def _join_gif(self, file: Any) -> None:
        width, height = self.size
        file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0))
        if self.clip.plays != 1:
            loop = max(self.clip.plays - 1, 0)  # GIF counts repetitions; 0: for ever
            file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", loop, 0))
        for data, *_ in self._stored():
            file.write(data)
        file.write(b";")

    def _join_webp(self, file: Any) -> None:
        width, height = self.size
        flags = 0x02 | (0x10 if self.clip.transparent else 0)
        head = b"WEBP" + _chunk(
            b"VP8X", bytes([flags, 0, 0, 0]) + _three(width - 1) + _three(height - 1)
        )
        head += _chunk(b"ANIM", struct.pack("<LH", 0, self.clip.plays))
        length = sum(len(data) for data, *_ in self._stored())
        file.write(b"RIFF" + struct.pack("<L", len(head) + length) + head)
        for data, *_ in self._stored():
            file.write(data)

    def _join_folder(self) -> None:
        """Write the frames into a folder beside the segments, and give it its name when whole."""
        draft = self._parts / "frames"
        shutil.rmtree(draft, ignore_errors=True)
        for number, (data, *_) in enumerate(self._stored(), 1):
            with new_file(draft / FRAME_NAME.format(number)) as file:
                file.write(data)
        target = self.output.resolve()
        if target.is_dir():
            check_output(self.output, self.clip.path, self.overwrite)  # only frames lie in it
            for old in target.iterdir():
                old.unlink()
            target.rmdir()
        draft.replace(target)

    def _mux(self, path: str) -> None:
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
                packets = heapq.merge(self._painted(video), self._copied(source, copies), key=_time)
                for packet in packets:
                    target.mux(packet)
        except av.FFmpegError as error:
            raise OSError(error.errno, error.strerror) from error

    def _painted(self, video: Any) -> Iterator[Any]:
        """Yield the packets of the frames."""
        av = library()
        for data, pts, duration, key in self._stored():
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
                self._lose(name)
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

    def _say_what_is_lost(self) -> None:
        if self.kind in ("mp4", "mov", "matroska"):
            if self._odd():
                width, height = self.size
                self.notes.append(
                    f"{width}×{height} has an odd side: written as 4:4:4, which some players do "
                    "not show"
                )
            if self.clip.transparent:
                self.notes.append(f"{self.output.suffix} has no transparency: laid on white")
            return
        for name in self.clip.tracks:
            if not (name.startswith("audio") and self.audio == "none"):
                self._lose(name)
        longest = {"gif": 65535, "webp": 16383}.get(self.kind, max(self.size))
        if max(self.size) > longest:
            raise ValueError(
                one_line(self.output, f"{max(self.size)} pixels, it holds {longest} a side")
            )

    def _lose(self, name: str) -> None:
        place = "a folder" if self.kind == "folder" else self.output.suffix
        hint = "" if self.kind == "matroska" or name.startswith("data") else "; try .mkv"
        self.notes.append(f"{name} cannot be held in {place}: left out{hint}")


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


def _three(number: int) -> bytes:
    return struct.pack("<L", number)[:3]


def _chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of RIFF."""
    return name + struct.pack("<L", len(data)) + data + bytes(len(data) % 2)
