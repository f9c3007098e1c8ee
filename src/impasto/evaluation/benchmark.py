"""What a loss network, or the reference, costs: time and memory, side by side in one run on one machine."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from rich.console import Console
from rich.progress import track

from impasto.evaluation.cells import Reference
from impasto.evaluation.cost import Cost, alone, cost_of_plain_recipe, cost_of_reference
from impasto.evaluation.measure import measured_peak, resident, seconds_of
from impasto.evaluation.speed import inference_table
from impasto.features import FeatureNetwork
from impasto.losses import STYLE_LAYERS, LossOptions, PerceptualLoss
from impasto.networks import TransformNet
from impasto.networks.transform import TRAINING_MARGIN
from impasto.optimization import OptimizeOptions
from impasto.vgg import LossNetwork

NETWORKS: tuple[LossNetwork, ...] = get_args(LossNetwork)
LAYERS = (*STYLE_LAYERS, "relu4_2")


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
    what: Literal["loss", "reference", "inference"] = "loss",
    network: str = "gallery",
    files: list[str] = [],  # noqa: B006  only read
) -> int:
    """Times each loss network, and a training step with it, in float32 and under bfloat16 autocast.

    Or the reference, an iteration of L-BFGS, against a plain implementation of the usual recipe. Or how fast a network
    paints photos of 256, 512 and 1024 pixels: in torch, compiled, and in ONNX Runtime.

    The networks take turns in every round, so that what else the machine does meets them alike; the median counts.
    The weights are random: they change no time.

    Args:
        device: cpu or cuda.
        size: side of the photos in pixels.
        batch: photos at once.
        width: of the network that is trained.
        rounds: how often each is measured, after one round to warm up.
        threads: of the CPU; 0: as many as torch takes.
        what: loss; reference (which takes one photo, and no notice of batch and width); or inference (of these, it
            heeds device, rounds and threads).
        network: for inference, a published name or file.
        files: for inference, exports of that network.

    Raises:
        ValueError: no such device here, no such network or file, or a number that is too small.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: no GPU here that torch can use; take cpu")
    if size < 16 or min(batch, width, rounds) < 1 or threads < 0:
        given = f"size {size}, batch {batch}, width {width}, rounds {rounds}, threads {threads}"
        raise ValueError(f"{given}: size from 16, threads from 0, the others from 1")
    torch.set_num_threads(threads or torch.get_num_threads())
    if what == "reference":
        print(reference_table(device, size, rounds))
        return 0
    if what == "inference":
        print(inference_table(network, files, device, rounds))
        return 0
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


def reference_table(device: str, size: int, rounds: int) -> str:
    """Markdown: milliseconds an iteration, and peak memory, with vgg19; each in processes of its own, in turns."""
    loss = LossOptions(balance="fixed", weights="random")
    plain, checkpointed = (Reference(OptimizeOptions(checkpointing=less), loss) for less in (False, True))
    jobs: dict[str, Callable[[], Cost]] = {
        "usual recipe": lambda: cost_of_plain_recipe("vgg19", size, device),
        "impasto optimize": lambda: cost_of_reference(plain, size, device),
        "with --checkpointing true": lambda: cost_of_reference(checkpointed, size, device),
    }
    costs: dict[str, list[Cost]] = {name: [] for name in jobs}
    for _ in track(range(rounds), "reference", console=Console(stderr=True), transient=True):
        for name, job in jobs.items():
            costs[name].append(job())
    first = statistics.median(cost.seconds for cost in costs["usual recipe"])
    whole = statistics.median(cost.mebibytes for cost in costs["impasto optimize"])
    lines = [f"{device}, {torch.get_num_threads()} threads, {size} pixels, vgg19, float32\n",
             "| reference | an iteration of L-BFGS, ms (× faster) | peak memory, MiB (share) |",
             "|---|---|---|"]  # fmt: skip
    for name, found in costs.items():
        seconds = statistics.median(cost.seconds for cost in found)
        memory = statistics.median(cost.mebibytes for cost in found)
        lines.append(f"| {name} | {seconds * 1e3:.0f} ({first / seconds:.2f}) | {memory:.0f} ({memory / whole:.2f}) |")
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
            painted = (
                network(photos, margin=TRAINING_MARGIN) if what == "training step" else photos.clone().requires_grad_()
            )
            total = sum(loss(painted, photos, target).values(), torch.zeros((), device=setting.device))
        total.backward()
        if what == "training step":
            optimizer.step()
            optimizer.zero_grad()

    return run


def _memory(name: LossNetwork, setting: Setting) -> float:
    """MiB that a loss network and two evaluations of it take at their peak, in a process of their own."""
    return alone(_peak, name, setting)


def _peak(name: LossNetwork, setting: Setting) -> float:
    small = Setting(setting.device, 32, 1, setting.width, setting.bf16)
    _job("compact", "loss", small)()  # the libraries that the first call loads are not counted
    before = resident()
    job = _job(name, "loss", setting)

    def twice() -> None:
        job()
        job()

    return measured_peak(twice, setting.device, before)
