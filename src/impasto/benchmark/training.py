"""How fast training is: the usual recipe, ours as each measure is added, and what the arithmetic alone would take."""

import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from impasto.benchmark.measure import alone, in_use, measured_peak, now, seconds_of, turns
from impasto.benchmark.plain import PlainLoss, plain_network
from impasto.choices import LossNetwork, LossOptions
from impasto.networks import TransformNet
from impasto.networks.transform import TRAINING_MARGIN
from impasto.perceptual.loss import PerceptualLoss
from impasto.training.muon import Muon


@dataclass(frozen=True)
class Step:
    """A training step of `batch` photos of `size` × `size` pixels, and the measures that make it faster.

    Of the usual recipe: shortened, cached, channels_last; `ours` has these, and the others.
    """

    device: str
    size: int
    batch: int
    width: int
    shortened: bool = False
    cached: bool = False
    channels_last: bool = False
    ours: bool = False
    muon: bool = False
    bf16: bool = False
    compiled: str = ""  # a mode of torch.compile
    network: LossNetwork = "vgg16"


Rows = dict[str, Step]


def ladder(plain: Step, compiled: bool) -> Rows:
    """The usual recipe, then one measure more in each row."""
    measures: dict[str, dict[str, Any]] = {
        "usual recipe": {},
        "nothing past the last layer needed": {"shortened": True},
        "the painting's targets once": {"cached": True},
        "channels-last": {"channels_last": True},
        "our network and loss": {"ours": True},
        "Muon instead of Adam": {"muon": True},
        "bfloat16 autocast": {"bf16": True},
        "torch.compile": {"compiled": "default"},
        "compact loss network, float32": {"network": "compact", "bf16": False, "compiled": ""},
        "compact loss network, bfloat16": {"bf16": True},
    }
    if not compiled:
        del measures["torch.compile"]
    steps = itertools.accumulate(measures.values(), lambda step, measure: replace(step, **measure), initial=plain)
    return dict(zip(measures, itertools.islice(steps, 1, None), strict=True))


def batches_of(step: Step, batches: list[int], compiled: bool) -> Rows:
    """As trained, in bfloat16, at each batch; compiled, and with CUDA graphs, too."""
    modes = {"eager": "", "torch.compile": "default", "CUDA graphs": "reduce-overhead"}
    best = replace(step, ours=True, muon=True, bf16=True)
    return {f"{batch} photos, {name}": replace(best, batch=batch, compiled=mode) for batch in batches
            for name, mode in modes.items() if not mode or compiled}  # fmt: skip


def training_table(rows: Rows, rounds: int) -> Iterator[str]:
    """Lines of Markdown: photos a second and memory, against the first row; and the share of what arithmetic alone
    allows. The speeds are measured together, the memory row by row."""
    first = next(iter(rows))
    known = rows[first]
    rates = {bf16: convolution_rate(known.device, bf16) for bf16 in (False, True)}
    yield (
        f"{known.device}, {torch.get_num_threads()} threads, {known.batch} photos of {known.size} pixels, width "
        f"{known.width}; a convolution at {rates[False] / 1e9:.0f} GFLOP/s in float32, {rates[True] / 1e9:.0f} in "
        "bfloat16\n"
    )
    yield "| training step | photos/s (×) | peak memory, MiB (share) | arithmetic alone, photos/s (share reached) |"
    yield "|---|---|---|---|"
    seconds = _medians(rows, rounds)
    speed = {name: step.batch / seconds[name] for name, step in rows.items()}
    memory: dict[str, float] = {}
    for name, step in rows.items():
        # A GPU's memory is counted by torch, and needs no process of its own, in which all would be compiled again.
        memory[name] = _peak(step) if step.device == "cuda" else alone(_peak, step)
        floor = rates[step.bf16] / operations(step)
        yield (
            f"| {name} | {speed[name]:.2f} ({speed[name] / speed[first]:.2f}) "
            f"| {memory[name]:.0f} ({memory[name] / memory[first]:.2f}) | {floor:.2f} ({speed[name] / floor:.2f}) |"
        )
    yield ""


def loader_line(folder: str, step: Step, workers: int, batches: int = 20) -> str:
    """Photos a second that processes read, crop and batch from a folder, after the first batch."""
    from impasto.data.modules import Photos  # imports Lightning, for which every process of a row would wait

    photos = Photos(folder, crop=step.size, batch_size=step.batch, val_photos=0, num_workers=workers)
    photos.setup()
    stream = iter(photos.train_dataloader())
    next(stream)
    taken = seconds_of(lambda: [next(stream) for _ in range(batches)], "cpu")
    speed = batches * step.batch / taken
    return f"{workers} workers read {speed:.1f} photos/s from {folder}; training that takes more waits for them\n"


def operations(step: Step) -> int:
    """Operations a photo, forward and backward; a multiplication and an addition are two."""
    job = training_step(replace(step, bf16=False, compiled="", batch=1, muon=False))  # its products are no photo's
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


def convolution_rate(device: str, bf16: bool) -> float:
    """Operations a second of a convolution as VGG has them, 256 channels of 3×3: the best of six."""
    dtype = torch.bfloat16 if bf16 else torch.float32
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    photos = 16 if device == "cuda" else 2  # sixteen take a CPU seconds; fewer leave a GPU waiting for its next call
    x = torch.rand(photos, 256, 64, 64, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return 2 * 9 * 256 * 256 * x[:, 0].numel() / min(seconds_of(lambda: layer(x), device) for _ in range(6))


def training_step(step: Step) -> Callable[[], None]:
    """A function that takes a step, its photos coming from the CPU's memory."""
    photos = torch.rand(step.batch, 3, step.size, step.size)
    photos = photos.pin_memory() if step.device == "cuda" else photos
    layout = torch.channels_last if step.channels_last else torch.contiguous_format
    network: torch.nn.Module = TransformNet(1, step.width) if step.ours else plain_network(step.width)
    network = network.to(step.device).to(memory_format=layout)
    optimizer = Muon(network, 0.02) if step.muon else torch.optim.Adam(network.parameters())
    judged = (_ours if step.ours else _plain)(step, network, photos.to(step.device))
    # As FixedStyles does; the rows take turns, so each sets it.
    precision = "high" if step.bf16 and step.device == "cuda" else "highest"

    def run() -> None:
        torch.set_float32_matmul_precision(precision)
        here = photos.to(step.device, non_blocking=True).contiguous(memory_format=layout)
        with torch.autocast(step.device, torch.bfloat16, enabled=step.bf16):
            total = judged(here)
        total.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def _plain(step: Step, network: torch.nn.Module, photos: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    loss = PlainLoss(photos, step.shortened, step.cached)
    if step.channels_last:
        loss.to(memory_format=torch.channels_last)
    return lambda here: loss(network(here), here)


def _ours(step: Step, network: torch.nn.Module, photos: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    weights = "random" if step.network != "compact" else None
    loss = PerceptualLoss(LossOptions(step.network, weights, balance="fixed")).to(step.device)
    target = loss.style_target([photos[:1]]).select(torch.zeros(step.batch, dtype=torch.long, device=step.device))
    style = torch.ones(step.batch, 1, device=step.device)
    paint, judge = (
        torch.compile(part.forward, mode=step.compiled) if step.compiled else part for part in (network, loss)
    )

    def judged(here: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(judge(paint(here, style, TRAINING_MARGIN), here, target).values())).sum()

    return judged


def _medians(rows: Rows, rounds: int) -> dict[str, float]:
    """Seconds of each step, after one round to warm up, in which torch.compile compiles; they take turns."""
    jobs = {name: training_step(step) for name, step in rows.items()}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in turns(rounds + 1, "training"):
        for name, job in jobs.items():
            seconds[name].append(seconds_of(job, rows[name].device))
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def _peak(step: Step) -> float:
    """MiB that two steps take at their peak, with network and loss."""
    training_step(replace(step, size=32, batch=1, width=4, compiled=""))()  # the libraries of a first call do not count
    before = in_use(step.device)
    job = training_step(step)
    if step.compiled:
        job()  # nor does the compiler
    return measured_peak(lambda: [job(), now(step.device), job()], step.device, before)
