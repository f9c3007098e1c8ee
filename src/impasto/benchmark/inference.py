"""How fast a network paints in torch, in compiled torch and in ONNX Runtime.

For comparison, the table has the time that the arithmetic alone would take.
"""

import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from impasto.benchmark.measure import seconds_of, turns
from impasto.inference.backends import Painter, TorchPainter, open_painter
from impasto.networks import load_network

SIZES = (256, 512, 1024)
_MATRIX = 2048  # side of a matrix whose product runs at the machine's full rate


def inference_table(
    network: str, files: list[str], device: str, rounds: int, sizes: tuple[int, ...] = SIZES
) -> Iterator[str]:
    """Yield the lines of a Markdown table: milliseconds a photo, and how much faster than torch.

    Every round times each way to paint once, so that other load on the machine meets all alike.

    Args:
        network: published name or file.
        files: exported files of that network.
        device: where it is measured.
        rounds: number of rounds after a warm-up; medians are shown.
        sizes: sides of the square photos in pixels.
    """
    painters: dict[str, Painter] = {
        "torch": open_painter(network, "torch", device),
        "torch.compile": _compiled(network, device),
    }
    painters |= {Path(file).name: open_painter(file, "onnx", device) for file in files}
    rate = arithmetic_rate(device)
    yield (
        f"{network}, {device}, {torch.get_num_threads()} threads, "
        f"a matrix product at {rate / 1e9:.0f} GFLOP/s;"
        " milliseconds a photo (× faster than torch)\n"
    )
    yield f"| pixels | arithmetic alone | {' | '.join(painters)} |"
    yield f"|---|---|{'---|' * len(painters)}"
    for size in sizes:
        median = _medians(painters, size, device, rounds)
        floor = convolution_flops(network, size) / rate
        cells = [
            f"{seconds * 1e3:.0f} ({median['torch'] / seconds:.2f})"
            for seconds in (floor, *median.values())
        ]
        yield f"| {size} | {' | '.join(cells)} |"
    yield ""


def arithmetic_rate(device: str) -> float:
    """Return the operations a second of a float32 matrix product, the best of six.

    A multiplication and an addition are two operations.
    """
    matrix = torch.rand(_MATRIX, _MATRIX, device=device)
    return 2 * _MATRIX**3 / min(seconds_of(lambda: matrix @ matrix, device) for _ in range(6))


def convolution_flops(network: str, size: int) -> int:
    """Return the operations of a network's convolutions for one photo of size × size pixels.

    A multiplication and an addition are two operations.
    """
    loaded = load_network(network)
    code = torch.full((1, loaded.num_styles), 1 / loaded.num_styles)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        loaded(torch.rand(1, 3, size, size), code)
    return counter.get_total_flops()


def _compiled(network: str, device: str) -> Painter:
    painter = TorchPainter(load_network(network), device)
    # A compilation for each size: torch 2.11 fails to compile for varying sizes.
    painter.network.compile(dynamic=False)
    return painter


def _medians(painters: dict[str, Painter], size: int, device: str, rounds: int) -> dict[str, float]:
    """Return the median seconds of each painter, after a round in which torch.compile compiles."""
    photo = torch.rand(1, 3, size, size)
    seconds: dict[str, list[float]] = {name: [] for name in painters}
    for _ in turns(rounds + 1, f"{size} pixels"):
        for name, painter in painters.items():
            seconds[name].append(seconds_of(_job(painter, photo), device))
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def _job(painter: Painter, photo: torch.Tensor) -> Callable[[], object]:
    if painter.any_picture:
        code = painter.encode_style([(photo, 1.0)])
    else:
        code = painter.encode_style(dict.fromkeys(painter.styles, 1))

    def job() -> object:
        with torch.inference_mode():
            return painter.paint(photo, code)

    return job
