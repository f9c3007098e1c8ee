"""How fast clips are painted, and what steadiness costs: flow, canvas and blending."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from impasto.benchmark.measure import resident, seconds_of, turns
from impasto.choices import Backend
from impasto.images import resize, to_levels
from impasto.inference import Stylizer
from impasto.inference.backends import open_painter
from impasto.inference.steady import Frame, SteadyPainter
from impasto.networks import TransformNet
from impasto.perceptual.gaps import dead_leaves

SIZE = (640, 360)  # of the frames, width and height in pixels
_STEP = 3  # pixels by which the clip pans with a frame


class TimedPainter(SteadyPainter):
    """A painter that knows how long its network took.

    Attributes:
        network: seconds of the network for the last frame; 0 for frames painted by themselves.
    """

    network = 0.0

    def _painted(self, onto: Tensor, photo: Tensor, code: Tensor) -> Tensor:
        found: list[Tensor] = []
        painted = super()._painted
        self.network = seconds_of(
            lambda: found.append(painted(onto, photo, code)), str(self.stylizer.painter.device)
        )
        return found[0]


def timed(
    painter: TimedPainter, frames: Sequence[Frame], on_frame: Callable[[int], None]
) -> tuple[list[Frame], dict[str, float]]:
    """Paint the frames of a clip; return the paintings and what it took.

    The first frame does not count: it is measured, and the network warms up.

    Args:
        painter: a new painter.
        frames: two or more, H×W×3.
        on_frame: called after each frame with the number of those done.

    Returns:
        The paintings, and by name `fps`, the frames a second, and unless every frame is painted by
        itself `motion`, the share of the time outside the network: flow, canvas and blending.
    """
    paintings: list[Frame] = []
    whole, network = [], []
    for number, frame in enumerate(frames, 1):
        seconds, of_network = _seconds(painter, frame, paintings)
        whole.append(seconds)
        network.append(of_network)
        on_frame(number)
    numbers = {"fps": 1 / statistics.median(whole[1:])}
    if painter.steady:
        numbers["motion"] = _share(whole[1:], network[1:])
    return paintings, numbers


def video_table(
    network: str, files: list[str], device: str, rounds: int, size: tuple[int, int] = SIZE
) -> Iterator[str]:
    """Yield the lines of a Markdown table: frames a second, painted alone and steadily.

    Every round paints one frame in each way, so that other load on the machine meets all alike.

    Args:
        network: published name or file; beside it, networks of the widths 32 and 16 are measured,
            whose weights do not matter.
        files: exported files to measure in ONNX Runtime.
        device: where it is measured.
        rounds: number of frames after a warm-up; medians are shown.
        size: width and height of the frames in pixels.

    Raises:
        ValueError: a network is missing, or OpenCV is not installed.
    """
    ways = {f"{network}, torch": _stylizer(network, "torch", device)}
    ways |= {
        f"width {width}, torch": Stylizer(TransformNet(1, width), device=device)
        for width in (32, 16)
    }
    ways |= {f"{Path(file).name}, ONNX Runtime": _stylizer(file, "onnx", device) for file in files}
    alone = {name: TimedPainter(way, 0) for name, way in ways.items()}
    steady = {name: TimedPainter(way) for name, way in ways.items()}
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    frames = panning(rounds + 1, size)
    settled, half = 0.0, (rounds + 1) // 2
    for number in turns(rounds + 1, "frames"):
        if number == half:  # all buffers are there
            settled = resident()
        for name in ways:
            single, _ = _seconds(alone[name], frames[number], [])
            times[name].append((single, *_seconds(steady[name], frames[number], [])))
    first = 0.0
    yield f"{size[0]}×{size[1]}, {device}, {torch.get_num_threads()} threads\n"
    yield "| network | alone, frames/s | steady, frames/s | ratio | flow, canvas and blending |"
    yield "|---|---|---|---|---|"
    for name, found in times.items():
        by_itself, whole, of_network = ([row[at] for row in found[1:]] for at in range(3))
        rates = [1 / statistics.median(seconds) for seconds in (by_itself, whole)]
        first = first or rates[1]
        share = _share(whole, of_network)
        yield f"| {name} | {rates[0]:.2f} | {rates[1]:.2f} | {rates[1] / first:.2f} | {share:.0%} |"
    grown = resident() - settled
    yield f"\nmemory from frame {half} of each to frame {rounds + 1}: {grown:+.0f} MiB\n"


def panning(number: int, size: tuple[int, int]) -> list[Frame]:
    """Return the frames of a clip that pans over a drawn picture.

    Args:
        number: of frames.
        size: their width and height in pixels.
    """
    width, height = size
    drawn = resize(dead_leaves(1, 512), max(height, width + _STEP * number))
    levels = to_levels(drawn)[0].permute(1, 2, 0).numpy()
    return [
        np.ascontiguousarray(levels[:height, _STEP * at : _STEP * at + width])
        for at in range(number)
    ]


def _stylizer(network: str, backend: Backend, device: str) -> Stylizer:
    first = next(iter(open_painter(network, backend, device).styles), None)
    return Stylizer(network, first, device=device, backend=backend)


def _seconds(painter: TimedPainter, frame: Frame, paintings: list[Frame]) -> tuple[float, float]:
    """Paint a frame, add the painting, and return the seconds of all and of the network."""
    device = str(painter.stylizer.painter.device)
    seconds = seconds_of(lambda: paintings.append(painter(frame)), device)
    return seconds, painter.network


def _share(whole: list[float], network: list[float]) -> float:
    """Return the median share of the time outside the network."""
    return statistics.median(1 - part / total for part, total in zip(network, whole, strict=True))
