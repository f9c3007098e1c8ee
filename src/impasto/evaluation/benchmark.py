"""What a loss network costs: time and memory, side by side in one run on one machine."""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import track

from impasto.features import FeatureNetwork, LossNetwork
from impasto.losses import STYLE_LAYERS, LossOptions, PerceptualLoss
from impasto.networks import TransformNet

NETWORKS: tuple[LossNetwork, ...] = ("vgg19", "vgg16", "compact")
LAYERS = (*STYLE_LAYERS, "relu4_2")
MEBIBYTE = 2**20
CLEAR_PEAK = Path("/proc/self/clear_refs")  # of Linux: 5 forgets the most memory a process has had


@dataclass(frozen=True)
class Setting:
    """What is measured: photos of `size` × `size` pixels, `batch` at a time."""

    device: str
    size: int
    batch: int
    width: int
    bf16: bool


def benchmark(
    device: Literal["cpu", "cuda"] = "cpu",
    size: int = 256,
    batch: int = 2,
    width: int = 16,
    rounds: int = 7,
    threads: int = 0,
) -> int:
    """Times each loss network, and a training step with it, in float32 and under bfloat16 autocast.

    The networks take turns in every round, so that what else the machine does meets them alike; the median counts.
    The weights are random: they change no time.

    Args:
        device: cpu or cuda.
        size: side of the photos in pixels.
        batch: photos at once.
        width: of the network that is trained.
        rounds: how often each is measured, after one round to warm up.
        threads: of the CPU; 0: as many as torch takes.

    Raises:
        ValueError: no such device here, or a number that is too small.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: no GPU here that torch can use; take cpu")
    if size < 16 or min(batch, width, rounds) < 1:
        raise ValueError(f"size {size}, batch {batch}, width {width}, rounds {rounds}: size from 16, the others from 1")
    torch.set_num_threads(threads or torch.get_num_threads())
    for bf16 in (False, True):
        print(table(Setting(device, size, batch, width, bf16), rounds), flush=True)
    return 0


def table(setting: Setting, rounds: int) -> str:
    """Markdown: milliseconds a photo, times faster than the first network, and peak memory."""
    jobs = {(name, what): _job(name, what, setting) for name in NETWORKS for what in ("loss", "training step")}
    seconds: dict[tuple[LossNetwork, str], list[float]] = {key: [] for key in jobs}
    what = "bfloat16 autocast" if setting.bf16 else "float32"
    for _ in track(range(rounds + 1), what, console=Console(stderr=True), transient=True):
        for key, job in jobs.items():
            seconds[key].append(seconds_of(job, setting.device))
    median = {key: statistics.median(found[1:]) * 1e3 / setting.batch for key, found in seconds.items()}
    lines = [
        f"{what}, {setting.device}, {torch.get_num_threads()} threads, {setting.batch} photos of {setting.size} pixels,"
        f" network of width {setting.width}; milliseconds a photo (× faster than vgg19, × faster than vgg16)\n",
        "| loss network | loss, forward and backward | training step | peak memory of the loss network |",
        "|---|---|---|---|",
    ]
    for name in NETWORKS:
        times = [_against(median, name, what) for what in ("loss", "training step")]
        lines.append(f"| {name} | {times[0]} | {times[1]} | {_memory(name, setting):.0f} MiB |")
    return "\n".join(lines) + "\n"


def _against(median: dict[tuple[LossNetwork, str], float], name: LossNetwork, what: str) -> str:
    here = median[name, what]
    return f"{here:.0f} ({median['vgg19', what] / here:.2f}, {median['vgg16', what] / here:.2f})"


def _job(name: LossNetwork, what: str, setting: Setting) -> Callable[[], None]:
    """One evaluation of content and style, with the gradient at the picture; or a whole training step."""
    loss = PerceptualLoss(LossOptions(balance="fixed"), FeatureNetwork(name, LAYERS, "random")).to(setting.device)
    photos = torch.rand(setting.batch, 3, setting.size, setting.size, device=setting.device)
    target = loss.style_target([photos[:1]])
    network = TransformNet(1, setting.width).to(setting.device).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters())

    def run() -> None:
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.bf16):
            painted = network(photos) if what == "training step" else photos.clone().requires_grad_()
            total = sum(loss(painted, photos, target).values(), torch.zeros((), device=setting.device))
        total.backward()
        if what == "training step":
            optimizer.step()
            optimizer.zero_grad()

    return run


def now(device: str) -> float:
    """Seconds on a clock, when the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(job: Callable[[], object], device: str) -> float:
    """What one call takes."""
    began = now(device)
    job()
    return now(device) - began


def _memory(name: LossNetwork, setting: Setting) -> float:
    """MiB that a loss network and two evaluations of it take at their peak, in a process of their own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak, (name, setting))


def _peak(name: LossNetwork, setting: Setting) -> float:
    small = Setting(setting.device, 32, 1, setting.width, setting.bf16)
    _job("compact", "loss", small)()  # the libraries that the first call loads are not counted
    before = resident()
    job = _job(name, "loss", setting)

    def twice() -> None:
        job()
        job()

    return measured_peak(twice, setting.device, before)


def measured_peak(job: Callable[[], object], device: str, before: float) -> float:
    """MiB that a call takes at its peak; on the CPU above `before`, what the process had (`resident`) earlier."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR_PEAK.exists():
        CLEAR_PEAK.write_text("5")  # building a VGG takes its classifier's memory too, for a moment
    job()
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / MEBIBYTE
    return resident(peak=True) - before


def resident(peak: bool = False) -> float:
    """Memory of this process in MiB: now, or the most it has had. Outside Linux only the latter is known."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:" if peak else "VmRSS:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
