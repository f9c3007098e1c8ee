"""Clips made for the tests, tiny, and what ffprobe and ffmpeg say about clips."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import draw as picture

from impasto.images import to_levels

av = pytest.importorskip("av", reason="the video extra is not installed")
needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg and ffprobe are not installed"
)

PAN = 3  # pixels a frame, of `pan`
VARIABLE = [0, 3003, 3500, 9009, 18000, 18001, 30000, 45045, 46000, 90000]  # times that no constant rate has


def drawn(number: int, width: int, height: int) -> np.ndarray:
    """A picture with soft colours and a square that moves to the right, different at each corner."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height, 2)
    pixels = np.stack([60 + 120 * x, 60 + 120 * y, 180 - 80 * x], -1)
    place = 4 * number % max(width - 8, 1)
    pixels[4:12, place : place + 8] = (220, 200, 40)
    return pixels.astype(np.uint8)


def pan(number: int, width: int, height: int) -> np.ndarray:
    """A window that moves to the right over a picture."""
    wide = to_levels(picture(3, height, width + PAN * 12, blur=1.5)[None])[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(wide[:, PAN * number : PAN * number + width])


def make(
    path: Path,
    size: tuple[int, int] = (64, 48),
    times: Iterable[int] = range(10),
    base: Fraction = Fraction(1, 25),
    *,
    pictures: Callable[[int, int, int], np.ndarray] = drawn,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    tags: tuple[int, int, int, int] = (1, 1, 1, 1),
    rotation: int = 0,
    aspect: Fraction = Fraction(1),
    sounds: int = 0,
    last: int = 1,
) -> Path:
    """Write a clip.

    Args:
        times: time of each frame, in units of `base`.
        tags: primaries, transfer function, matrix and range. Pixels are converted by that matrix and range.
        rotation: degrees by which a player turns the frames anticlockwise.
        sounds: number of tones, each a stream of its own.
        last: duration of the last frame.
    """
    times, (width, height) = list(times), size
    scale = {"video_track_timescale": str(base.denominator)} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), mode="w", container_options=scale) as container:
        video = container.add_stream(codec, rate=round(1 / base) if base > Fraction(1, 1000) else 25)
        context = video.codec_context
        context.width, context.height, context.pix_fmt, context.time_base = width, height, pix_fmt, base
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        context.sample_aspect_ratio = aspect
        context.options = {"preset": "ultrafast", "qp": "0", "threads": "1"} if codec == "libx264" else {}
        context.options |= options or {}
        video.time_base = base
        if rotation:
            video.set_display_rotation(rotation)
        tones = [container.add_stream("aac", rate=44100) for _ in range(sounds)]
        for number, tone in enumerate(tones):
            tone.metadata["language"] = ("deu", "fra", "eng")[number]
        container.metadata["title"] = "A walk"
        matrix = {1: 1, 5: 5, 6: 5, 9: 9}.get(tags[2], 5)
        following = [*times[1:], times[-1] + last]
        lengths = {time: after - time for time, after in zip(times, following, strict=True)}

        def put(packets: list[Any]) -> None:
            for packet in packets:
                packet.duration = lengths.get(packet.pts, packet.duration)
                container.mux(packet)

        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(pictures(number, width, height), "rgb24").reformat(
                format=pix_fmt, dst_colorspace=matrix, dst_color_range="JPEG" if tags[3] == 2 else "MPEG"
            )
            frame.pts, frame.time_base = time, base
            put(video.encode(frame))
        put(video.encode(None))
        seconds = float(following[-1] * base)
        for number, tone in enumerate(tones):
            wave = np.sin(np.arange(int(44100 * seconds)) * (0.05 + 0.02 * number))[None].repeat(2, 0)
            for place in range(0, wave.shape[1], 1024):
                part = np.ascontiguousarray(wave[:, place : place + 1024], np.float32)
                sound = av.AudioFrame.from_ndarray(part, "fltp", "stereo")
                sound.sample_rate, sound.pts, sound.time_base = 44100, place, Fraction(1, 44100)
                container.mux(tone.encode(sound))
            container.mux(tone.encode(None))
    return path


def decoded(path: Path) -> list[np.ndarray]:
    """The frames of a video as PyAV decodes them, in RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def times(path: Path, stream: str = "v") -> list[tuple[Fraction, Fraction]]:
    """Start and duration of each packet in seconds, exactly, as ffprobe tells them."""
    told = _ffprobe(path, stream, "packet=pts,duration:stream=time_base")
    base = Fraction(told["streams"][0]["time_base"])
    packets = [(packet["pts"] * base, packet.get("duration", 0) * base) for packet in told["packets"]]
    return sorted(packets)


def streams(path: Path) -> list[dict[str, Any]]:
    """What ffprobe tells about the streams."""
    return _ffprobe(path, None, "stream:format")["streams"]


def sound_hash(path: Path, number: int = 0) -> str:
    """A hash of the packets of a stream of sound, as ffmpeg copies them."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", f"0:a:{number}", "-c", "copy", "-f", "md5", "-"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def seen(path: Path, *options: str, filters: str = "null") -> np.ndarray:
    """The frames N×H×W×3 as ffmpeg shows them: turned, in RGB."""
    command = ["ffmpeg", "-v", "error", *options, "-i", str(path), "-vf", filters, "-fps_mode", "passthrough"]
    done = subprocess.run([*command, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
    first = subprocess.run([*command, "-frames:v", "1", "-f", "image2pipe", "-c:v", "ppm", "-"], capture_output=True)
    width, height = map(int, first.stdout.split(maxsplit=3)[1:3])
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def _ffprobe(path: Path, stream: str | None, entries: str) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_entries", entries, str(path)]
    if stream:
        command[3:3] = ["-select_streams", stream]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
