"""How many frames a second networks paint, bytes in and bytes out, as for a camera."""

import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from impasto.benchmark.measure import turns
from impasto.benchmark.plain import plain_network
from impasto.inference.frozen import Frame, FrozenPainter, unfrozen
from impasto.networks import TransformNet, load_network

SIZES = ((640, 480), (1280, 720), (1920, 1080))
_A_TURN = 0.3  # seconds for which each takes its turn, at least one frame
_PLAIN = "usual recipe, width 32"
_SLOW = 0.25  # seconds; what takes longer for a frame of the first size is not tried at the others

Paint = Callable[[Frame], Frame]


def frames_table(
    network: str, rounds: int, sizes: tuple[tuple[int, int], ...] = SIZES
) -> Iterator[str]:
    """Yield the lines of a Markdown table: frames a second, for frames of several sizes.

    All take turns in every round, so that other load on the machine meets all alike.

    Args:
        network: published name or file. Beside it, one of width 16 and the usual recipe's of width
            32 are measured, whose weights do not matter.
        rounds: number of turns after a warm-up; the median of all frames is shown.
        sizes: width and height of the frames in pixels.
    """
    threads = torch.get_num_threads()
    networks = {network: load_network(network), "width 16": TransformNet(1, 16).eval()}
    plain = plain_network(32).eval()
    yield f"frames a second, bytes in and out, cpu, {threads} threads\n"
    yield (
        "| network | 10⁹ multiply-adds at 640×480 | in | "
        f"{' | '.join(f'{width}×{height}' for width, height in sizes)} |"
    )
    yield f"|---|---|---|{'---|' * len(sizes)}"
    rates: dict[tuple[str, str], list[str]] = {}
    slow: set[tuple[str, str]] = set()
    for width, height in sizes:
        frame = (np.random.default_rng(0).random((height, width, 3)) * 255).astype(np.uint8)
        ways: dict[tuple[str, str], Paint] = {}
        for name, loaded in networks.items():
            code = loaded.example_codes(1, torch.Generator().manual_seed(0))
            ways[name, "torch"] = _in_torch(loaded, code)
            if find_spec("onnxruntime") and not unfrozen(loaded):
                ways[name, "ONNX Runtime, frozen"] = FrozenPainter(loaded, code, frame, threads)
        ways[_PLAIN, "torch"] = _in_torch(plain)
        median = _medians(
            {key: way for key, way in ways.items() if key not in slow},
            frame, rounds, f"{width}×{height}",
        )  # fmt: skip
        for key in ways:
            rates.setdefault(key, []).append(f"{1 / median[key]:.1f}" if key in median else "")
        slow |= {key for key, seconds in median.items() if seconds > _SLOW}
    for (name, way), found in rates.items():
        cost = multiply_adds(networks.get(name, plain)) / 1e9
        yield f"| {name} | {cost:.1f} | {way} | {' | '.join(found)} |"
    yield ""


def multiply_adds(network: nn.Module, width: int = 640, height: int = 480) -> float:
    """Return the multiply-adds of a network's convolutions for one frame, margin included."""
    code = (
        [network.example_codes(1, torch.Generator())] if isinstance(network, TransformNet) else []
    )
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.rand(1, 3, height, width), *code)
    return counter.get_total_flops() / 2


def _in_torch(network: nn.Module, *code: torch.Tensor) -> Paint:
    network = network.to(memory_format=torch.channels_last)

    def paint(frame: Frame) -> Frame:
        with torch.inference_mode():
            content = torch.from_numpy(frame)[None].permute(0, 3, 1, 2).float() / 255
            # The usual recipe fills sides up to a multiple of 4.
            stylized = network(content, *code)[0, :, : frame.shape[0], : frame.shape[1]]
            stylized = stylized.permute(1, 2, 0)
            levels: Frame = (stylized * 255).round().clamp(0, 255).to(torch.uint8).numpy()
        return levels

    return paint


def _medians(
    ways: dict[tuple[str, str], Paint], frame: Frame, rounds: int, what: str
) -> dict[tuple[str, str], float]:
    """Return the median seconds of a frame, after a round that warms up."""
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in ways}
    for number in turns(rounds + 1, what):
        for key, paint in ways.items():
            ends = time.perf_counter() + _A_TURN
            while True:
                began = time.perf_counter()
                paint(frame)
                now = time.perf_counter()
                if number:
                    seconds[key].append(now - began)
                if now > ends:
                    break
    return {key: statistics.median(found) for key, found in seconds.items()}
