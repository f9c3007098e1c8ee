"""How fast a network paints: torch, torch compiled, ONNX Runtime, and what the arithmetic alone would take."""

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from impasto.benchmark.measure import seconds_of, turns
from impasto.inference.backends import Painter, TorchPainter, open_painter
from impasto.networks import load_network

SIZES = (256, 512, 1024)
_MATRIX = 2048  # side: large enough for a matrix product to run at the machine's full rate


def inference_table(
    network: str, files: list[str], device: str, rounds: int, sizes: tuple[int, ...] = SIZES
) -> Iterator[str]:
    """Lines of Markdown: milliseconds for a square photo at each size (× faster than eager torch); all take turns."""
    painters: dict[str, Painter] = {
        "torch": open_painter(network, "torch", device),
        "torch.compile": _compiled(network, device),
    }
    painters |= {Path(file).name: open_painter(file, "onnx", device) for file in files}
    rate = arithmetic_rate(device)
    yield (
        f"{network}, {device}, {torch.get_num_threads()} threads, a matrix product at {rate / 1e9:.0f} GFLOP/s;"
        " milliseconds a photo (× faster than torch)\n"
    )
    yield f"| pixels | arithmetic alone | {' | '.join(painters)} |"
    yield f"|---|---|{'---|' * len(painters)}"
    for size in sizes:
        median = _medians(painters, size, device, rounds)
        floor = convolution_flops(network, size) / rate
        cells = [f"{seconds * 1e3:.0f} ({median['torch'] / seconds:.2f})" for seconds in (floor, *median.values())]
        yield f"| {size} | {' | '.join(cells)} |"
    yield ""


def arithmetic_rate(device: str) -> float:
    """Operations a second of a float32 matrix product, the best of six."""
    matrix = torch.rand(_MATRIX, _MATRIX, device=device)
    return 2 * _MATRIX**3 / min(seconds_of(lambda: matrix @ matrix, device) for _ in range(6))


def convolution_flops(network: str, size: int) -> int:
    """Operations of all convolutions for one photo of size × size; a multiplication and an addition are two."""
    loaded = load_network(network)
    code = loaded.encode_style(dict.fromkeys(loaded.styles, 1))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        loaded(torch.rand(1, 3, size, size), code)
    return counter.get_total_flops()


def _compiled(network: str, device: str) -> Painter:
    painter = TorchPainter(load_network(network), device)
    painter.network.compile(dynamic=False)  # each size by itself: torch 2.11 fails where the size varies
    return painter


def _medians(painters: dict[str, Painter], size: int, device: str, rounds: int) -> dict[str, float]:
    """Seconds of each way, after one round to warm up, in which torch.compile compiles."""
    photo = torch.rand(1, 3, size, size)
    seconds: dict[str, list[float]] = {name: [] for name in painters}
    for _ in turns(rounds + 1, f"{size} pixels"):
        for name, painter in painters.items():
            seconds[name].append(seconds_of(_job(painter, photo), device))
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def _job(painter: Painter, photo: torch.Tensor) -> Callable[[], object]:
    code = painter.encode_style(dict.fromkeys(painter.styles, 1))

    def job() -> object:
        with torch.inference_mode():
            return painter.paint(photo, code)

    return job
