"""Read clips: videos by PyAV, animations by Pillow, folders of pictures."""

import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from impasto.choices import IMAGE_SUFFIXES
from impasto.images import from_pil, read_image, to_pil
from impasto.images.reading import open_image
from impasto.spelling import not_there
from impasto.video import hdr
from impasto.video.clips import Frame
from impasto.writing import one_line

_FOLDER_RATE = 25  # frames a second of a folder of pictures
_SHORTEST = 10  # ms; browsers show frames of an animation that claim less for 100 ms
_FINEST = 2**31 - 1  # largest denominator of a time base
# Containers that tell their length exactly, so that a missing end shows.
_EXACT_LENGTH = ("mov", "matroska", "avi")
# Matrices of Y'CbCr by their codes in ITU-T H.273, and what swscale calls them.
_UNSPECIFIED, _BT601, _BT709 = 2, 5, 1

Timed = tuple[int, int, Callable[[], np.ndarray]]  # pts, duration, and the pixels when wanted


def library() -> ModuleType:
    """Return PyAV.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError("clips need PyAV: pip install 'impasto[video]'") from error
    return av


def open_clip(
    path: str | Path,
    start: float | int = 0,
    duration: float | int | None = None,
    fps: float | int | None = None,
) -> "Clip":
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
    kind: type[Clip] = _Folder if path.is_dir() else _kind_of_file(path)
    return kind(
        path,
        _fraction(start),
        None if duration is None else _fraction(duration),
        None if fps is None else _fraction(fps),
    )


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


class _Video(Clip):
    """A video, read by FFmpeg."""

    def _open(self) -> None:
        container, stream = self._container()
        with container:
            self.base = stream.time_base
            self.rate = stream.average_rate or stream.guessed_rate or Fraction(_FOLDER_RATE)
            self.origin = stream.start_time or 0
            if "mpeg" in container.format.name:  # a broadcast's clock starts anywhere
                self.clock = round(Fraction(container.start_time or 0, 1_000_000) / self.base)
            self.aspect = stream.sample_aspect_ratio or Fraction(1)
            self.count = stream.frames or None
            length = _length(container, stream)
            self.seconds = None if length is None else float(length)
            self.tracks += [name for name, _ in tracks(container)]
            videos = sum(not _is_cover(video) for video in container.streams.video)
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
            raise self._refusal(_why_not(self.path, error)) from error
        # FFmpeg would draw a text file as the screen of a terminal.
        stream = None if container.format.name == "tty" else container.streams.best("video")
        if stream is None or _is_cover(stream):
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
        if _turn(frame)[0]:
            self.aspect = 1 / self.aspect
        kind = {hdr.PQ: "PQ", hdr.HLG: "HLG"}.get(frame.color_trc)
        if kind:
            self.note(f"HDR ({kind}) is converted to SDR")
        elif hdr.is_wide(frame.color_primaries):
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
        """Return levels of sRGB, upright, of a decoded frame."""
        deep = frame.color_trc in (hdr.PQ, hdr.HLG) or hdr.is_wide(frame.color_primaries)
        width, height = frame.width, frame.height
        transposed, flips = _turn(frame)
        if hasattr(self, "size"):  # a later frame may have another size
            width, height = self.size[::-1] if transposed else self.size
            if (width, height) != (frame.width, frame.height):
                self.note("its frames change their size: all are scaled to the first one's")
        matrix = None
        if frame.colorspace == _UNSPECIFIED:  # as players guess: HD is BT.709
            matrix = _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601
        from av.video.reformatter import Interpolation

        converted = frame.reformat(
            width,
            height,
            "rgb48le" if deep else "rgb24",
            src_colorspace=matrix,
            dst_color_range="JPEG",
            interpolation=Interpolation.BICUBIC
            | Interpolation.ACCURATE_RND
            | Interpolation.FULL_CHR_H_INT,
            threads=1,
        )
        pixels = converted.to_ndarray()
        if deep:
            pixels = hdr.to_srgb(pixels, frame.color_trc, frame.color_primaries)
        if transposed:
            pixels = pixels.swapaxes(0, 1)
        return np.ascontiguousarray(pixels[flips])


class _Animation(Clip):
    """An animated GIF, WebP or PNG, read by Pillow."""

    animation = True

    def _open(self) -> None:
        times: list[float] = []  # ms
        for image in self._images():
            times.append(image.info.get("duration") or 0)
            self.transparent = self.transparent or _shows_through(image)
        lengths = [_fraction(time / 1000) for time in times]
        self.base = Fraction(1, 1000)
        if self._format == "GIF":
            self.base = Fraction(1, 100)
        elif self._format == "PNG":  # its durations are fractions
            self.base = Fraction(1, math.lcm(100, *(length.denominator for length in lengths)))
            if self.base.denominator > _FINEST:
                self.base = Fraction(1, 90_000)
        self._durations = [round(length / self.base) for length in lengths]
        steps = [self._step(duration) for duration in self._durations]
        self.count, self.seconds = len(steps) or None, float(sum(steps) * self.base)
        self.rate = len(steps) / (sum(steps) * self.base) if steps else Fraction(10)

    def _step(self, duration: int) -> int:
        """Return how long a frame is shown, in units of `base`."""
        short = duration * self.base * 1000 < _SHORTEST
        return round(Fraction(1, 10) / self.base) if short else duration

    def _images(self) -> Iterator[Image.Image]:
        """Yield the image at each of its frames."""
        image = open_image(self.path)
        self._format = image.format
        self.plays = _plays(image)
        for number in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(number)
                image.load()
            except Exception as error:  # damaged files make Pillow raise almost anything
                if not number:
                    raise self._refusal("damaged, get the file again") from error
                self.note(f"ends early after frame {number}: the rest is damaged", damage=True)
                return
            yield image

    def _decoded(self) -> Iterator[Timed]:
        pts = 0
        for image, duration in zip(self._images(), self._durations, strict=False):
            # The image changes with the next frame, so its pixels are taken now.
            pixels = _levels(from_pil(image), self.transparent)
            yield pts, duration, partial(_same, pixels)
            pts += self._step(duration)


class _Folder(Clip):
    """A folder of pictures."""

    def _open(self) -> None:
        self._files = sorted(
            (
                file
                for file in self.path.iterdir()
                if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
            ),
            key=natural,
        )
        if not self._files:
            raise self._refusal(f"no pictures in it; they end in {', '.join(IMAGE_SUFFIXES)}")
        self.rate, self.fps = self.fps or Fraction(_FOLDER_RATE), None
        self.base = 1 / self.rate
        self.count = len(self._files)
        self.seconds = float(self.count * self.base)
        sides: dict[tuple[int, ...], str] = {}
        for file in self._files:
            # What cannot be opened here, such as HEIC or a damaged file, is refused later.
            with suppress(Exception), Image.open(file) as image:
                self.transparent = self.transparent or _shows_through(image)
                sides.setdefault(
                    tuple(sorted(image.size)), file.name
                )  # a photo may lie on its side
        if len(sides) > 1:
            one, other = list(sides.values())[:2]
            raise self._refusal(
                f"{one} and {other} differ in size: all frames of a clip must have one"
            )

    def _decoded(self) -> Iterator[Timed]:
        for number, file in enumerate(self._files):
            yield number, 1, partial(self._pixels, file)

    def _pixels(self, file: Path) -> np.ndarray:
        pixels = _levels(read_image(file), self.transparent)
        size = pixels.shape[1::-1]
        if size != getattr(self, "size", size):
            raise self._refusal(
                f"{file.name} has {size[0]}×{size[1]} pixels, the first picture "
                f"{self.size[0]}×{self.size[1]}: all frames must have one size"
            )
        return pixels


def tracks(container: Any) -> Iterator[tuple[str, Any]]:
    """Yield the streams beside the video, and how a message names them: "audio 1 (aac, eng)"."""
    numbers: Counter[str] = Counter()
    for stream in container.streams:
        if stream.type == "video":
            if _is_cover(stream):
                yield "cover picture", stream
            continue
        numbers[stream.type] += 1
        known = stream.codec_context is not None
        codec = stream.codec_context.codec.canonical_name if known else "unknown"
        language = stream.metadata.get("language", "und")
        facts = codec if language == "und" else f"{codec}, {language}"
        yield f"{stream.type} {numbers[stream.type]} ({facts})", stream


def _kind_of_file(path: Path) -> type[Clip]:
    """Tell an animation from a video, by the first bytes of the file."""
    with path.open("rb") as file:
        head = file.read(64)
    if head[:4] == b"GIF8" or (head[:4], head[8:12]) == (b"RIFF", b"WEBP"):
        return _Animation
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        if open_image(path).info.get("default_image") is not None or b"acTL" in head:
            return _Animation
        raise ValueError(one_line(path, "is a picture: `impasto infer` paints it"))
    if head[:3] == b"\xff\xd8\xff":
        raise ValueError(one_line(path, "is a picture: `impasto infer` paints it"))
    return _Video


def _why_not(path: Path, error: Exception) -> str:
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


def _is_cover(stream: Any) -> bool:
    """Whether a video stream is a picture beside sound."""
    return "attached_pic" in str(stream.disposition)


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


def _turn(frame: Any) -> tuple[bool, tuple[slice, slice]]:
    """Return whether to transpose a frame, and the slices that then flip it, to show it upright.

    The display matrix of FFmpeg and ISO/IEC 14496-12 maps a place (x, y) to (ax + cy, bx + dy).
    """
    data = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if data is None:
        return False, (slice(None), slice(None))
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    transposed = abs(b) > abs(a)
    across, down = (c, b) if transposed else (a, d)
    return transposed, (
        slice(None, None, -1 if down < 0 else None),
        slice(None, None, -1 if across < 0 else None),
    )


def _plays(image: Image.Image) -> int:
    """Return how often an animation is played; 0: for ever."""
    loop = image.info.get("loop")
    if image.format == "GIF":  # counts repetitions
        return 1 if loop is None else loop + 1 if loop else 0
    return loop or 0


def _shows_through(image: Image.Image) -> bool:
    """Whether some pixel of an image is not opaque. WebP has alpha also where none is needed."""
    if not image.has_transparency_data:
        return False
    least: Any = image.convert("RGBA").getchannel("A").getextrema()[0]
    return bool(least < 255)


def _levels(picture: Any, transparent: bool) -> np.ndarray:
    """Return a picture as H×W×3 levels of sRGB, or H×W×4 if the clip is transparent."""
    image = to_pil(replace(picture, icc_profile=None))
    return np.array(image.convert("RGBA" if transparent else "RGB"))


def _same(pixels: np.ndarray) -> np.ndarray:
    return pixels


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts], path.name


def _fraction(number: float | int) -> Fraction:
    """Return the simplest fraction close to a number: 1/10 for 0.1."""
    return Fraction(number).limit_denominator(1_000_000)


def _common(one: Fraction, other: Fraction) -> Fraction:
    """Return the largest unit of which both are multiples; or `other`, if it would be too fine."""
    denominator = math.lcm(one.denominator, other.denominator)
    unit = Fraction(math.gcd(int(one * denominator), int(other * denominator)), denominator)
    return unit if unit.denominator <= _FINEST else other
