"""Write animated GIF and WebP files."""

import io
import struct
from abc import abstractmethod
from fractions import Fraction
from typing import Any, BinaryIO

from PIL import GifImagePlugin, Image

from impasto.video.clips import Frame
from impasto.video.writing.output import Stills
from impasto.video.writing.segments import Segments
from impasto.writing import new_file, one_line

_OPAQUE = 128  # least alpha of a pixel that GIF shows


class _Animation(Stills):
    longest: int  # largest side in pixels

    def join(self, segments: Segments) -> None:
        with new_file(self.path, self.overwrite, durable=True) as file:
            self._join(file, segments)

    @abstractmethod
    def _join(self, file: BinaryIO, segments: Segments) -> None:
        """Write the file."""

    def _lost(self) -> list[str]:
        if max(self.size) > self.longest:
            raise ValueError(
                one_line(self.path, f"{max(self.size)} pixels, it holds {self.longest} a side")
            )
        return super()._lost()

    def _shown(self, frame: Frame, second: int) -> int:
        """Return how long a frame of an animation is shown, in parts of a second.

        Rounded ends, not rounded lengths, so that errors do not add up.
        """
        length: Fraction | int = frame.duration
        if not length and not self.clip.animation:
            length = 1 / self.clip.rate / self.clip.time_base
        unit = self.clip.time_base * second
        return round((frame.pts + length) * unit) - round(frame.pts * unit)


class Gif(_Animation):
    """An animated GIF."""

    longest = 65535

    def _encoded(self, frame: Frame) -> bytes:
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

    def _join(self, file: BinaryIO, segments: Segments) -> None:
        width, height = self.size
        file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0x70, 0, 0))
        if self.clip.plays != 1:
            loop = max(self.clip.plays - 1, 0)  # GIF counts repetitions; 0: for ever
            file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", loop, 0))
        for data, *_ in segments.frames():
            file.write(data)
        file.write(b";")


class Webp(_Animation):
    """An animated WebP."""

    longest = 16383

    def _encoded(self, frame: Frame) -> bytes:
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

    def _join(self, file: BinaryIO, segments: Segments) -> None:
        width, height = self.size
        flags = 0x02 | (0x10 if self.clip.transparent else 0)
        head = b"WEBP" + _chunk(
            b"VP8X", bytes([flags, 0, 0, 0]) + _three(width - 1) + _three(height - 1)
        )
        head += _chunk(b"ANIM", struct.pack("<LH", 0, self.clip.plays))
        length = sum(len(data) for data, *_ in segments.frames())
        file.write(b"RIFF" + struct.pack("<L", len(head) + length) + head)
        for data, *_ in segments.frames():
            file.write(data)


def _three(number: int) -> bytes:
    return struct.pack("<L", number)[:3]


def _chunk(name: bytes, data: bytes) -> bytes:
    """Return a chunk of RIFF."""
    return name + struct.pack("<L", len(data)) + data + bytes(len(data) % 2)
