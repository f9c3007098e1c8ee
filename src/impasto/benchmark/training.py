"""How fast a training step is: the usual recipe, then impasto's measures added one by one.

For comparison, the tables have the speed that the arithmetic alone would allow.
"""

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
    """A training step and the measures that make it faster.

    Without any measure it is the usual recipe (`plain_network`, `PlainLoss`, Adam, float32).

    Args:
        device: cpu or cuda.
        size: side of the photos in pixels.
        batch: photos a step.
        width: of the transform network.
        shortened: leave out the loss network's layers after the last one needed (always so with
            `ours`).
        cached: compute the painting's Gram matrices only once (always so with `ours`).
        channels_last: keep photos and networks in the channels-last layout. With `ours`, the loss
            network always has that layout.
        ours: `TransformNet` and `PerceptualLoss` instead of the plain ones.
        muon: Muon instead of Adam.
        bf16: bfloat16 autocast.
        compiled: mode of torch.compile; empty: not compiled. It acts with `ours` only.
        network: the loss network. It acts with `ours` only; the plain loss has VGG16.
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
    compiled: str = ""
    network: LossNetwork = "vgg16"


Rows = dict[str, Step]


def ladder(plain: Step, compiled: bool) -> Rows:
    """Return the rows of the first table: the usual recipe, then one measure more in each row.

    The last two rows replace VGG16 by the compact loss network, in float32 and in bfloat16.
    """
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
    steps = itertools.accumulate(
        measures.values(), lambda step, measure: replace(step, **measure), initial=plain
    )
    return dict(zip(measures, itertools.islice(steps, 1, None), strict=True))


def batches_of(step: Step, batches: list[int], compiled: bool) -> Rows:
    """Return rows of our step with Muon and bfloat16, at each batch size.

    With `compiled`, there are also rows with torch.compile and with CUDA graphs.
    """
    modes = {"eager": "", "torch.compile": "default", "CUDA graphs": "reduce-overhead"}
    best = replace(step, channels_last=True, ours=True, muon=True, bf16=True)
    return {
        f"{batch} photos, {name}": replace(best, batch=batch, compiled=mode)
        for batch in batches
        for name, mode in modes.items()
        if not mode or compiled
    }


def training_table(rows: Rows, rounds: int) -> Iterator[str]:
    """Yield the lines of a Markdown table: photos a second, peak memory, and the possible speed.

    Speed and memory have their ratio to the first row. The possible speed is that of a step whose
    operations all run at the rate of a large convolution; the share of it that is reached follows.

    Args:
        rows: the steps by name. In every round each is timed once; memory is measured row by row.
        rounds: number of rounds after a warm-up; medians are shown.
    """
    first = next(iter(rows))
    known = rows[first]
    rates = {bf16: convolution_rate(known.device, bf16) for bf16 in (False, True)}
    yield (
        f"{known.device}, {torch.get_num_threads()} threads, "
        f"{known.batch} photos of {known.size} pixels, width {known.width}; "
        f"a convolution at {rates[False] / 1e9:.0f} GFLOP/s in float32, "
        f"{rates[True] / 1e9:.0f} in bfloat16\n"
    )
    yield (
        "| training step | photos/s (×) | peak memory, MiB (share) "
        "| arithmetic alone, photos/s (share reached) |"
    )
    yield "|---|---|---|---|"
    seconds = _medians(rows, rounds)
    speed = {name: step.batch / seconds[name] for name, step in rows.items()}
    memory: dict[str, float] = {}
    for name, step in rows.items():
        # torch counts a GPU's memory itself. A fresh process, which would compile again, is needed
        # for the CPU's only.
        memory[name] = _peak(step) if step.device == "cuda" else alone(_peak, step)
        floor = rates[step.bf16] / operations(step)
        yield (
            f"| {name} | {speed[name]:.2f} ({speed[name] / speed[first]:.2f}) "
            f"| {memory[name]:.0f} ({memory[name] / memory[first]:.2f}) "
            f"| {floor:.2f} ({speed[name] / floor:.2f}) |"
        )
    yield ""


def loader_line(folder: str, step: Step, workers: int, batches: int = 20) -> str:
    """Return a line that says how many photos a second the workers read, crop and batch.

    Args:
        folder: the photos.
        step: gives the size of crops and batches.
        workers: number of processes that read.
        batches: how many batches are timed, after the first.
    """
    # Not at the top: this imports Lightning, and every process that measures memory would wait.
    from impasto.data.modules import Photos

    photos = Photos(
        folder, crop=step.size, batch_size=step.batch, val_photos=0, num_workers=workers
    )
    photos.setup()
    stream = iter(photos.train_dataloader())
    next(stream)
    taken = seconds_of(lambda: [next(stream) for _ in range(batches)], "cpu")
    speed = batches * step.batch / taken
    return (
        f"{workers} workers read {speed:.1f} photos/s from {folder}; "
        "training that takes more waits for them\n"
    )


def operations(step: Step) -> int:
    """Return the operations of a step for each photo, forward and backward.

    A multiplication and an addition are two operations.
    """
    # Without Muon, whose matrix products do not depend on the number of photos.
    job = training_step(replace(step, bf16=False, compiled="", batch=1, muon=False))
    with FlopCounterMode(display=False) as counter:
        job()
    return counter.get_total_flops()


def convolution_rate(device: str, bf16: bool) -> float:
    """Return the operations a second of a convolution as in VGG, the best of six.

    It has 256 channels and a 3×3 kernel.
    """
    dtype = torch.bfloat16 if bf16 else torch.float32
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype)
    layer.to(memory_format=torch.channels_last)
    photos = 16 if device == "cuda" else 2  # a GPU needs more to be busy
    x = torch.rand(photos, 256, 64, 64, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        return (2 * 9 * 256 * 256 * x[:, 0].numel()
                / min(seconds_of(lambda: layer(x), device) for _ in range(6)))  # fmt: skip


def training_step(step: Step) -> Callable[[], None]:
    """Return a function that makes a training step with photos from the CPU's memory."""
    photos = torch.rand(step.batch, 3, step.size, step.size)
    photos = photos.pin_memory() if step.device == "cuda" else photos
    layout = torch.channels_last if step.channels_last else torch.contiguous_format
    network: torch.nn.Module = (
        TransformNet(1, step.width) if step.ours else plain_network(step.width)
    )
    network = network.to(step.device).to(memory_format=layout)
    optimizer = Muon(network, 0.02) if step.muon else torch.optim.Adam(network.parameters())
    judged = (_ours if step.ours else _plain)(step, network, photos.to(step.device))
    # As FixedStyles does. The setting is global and the rows take turns, so each step sets it.
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


def _plain(
    step: Step, network: torch.nn.Module, photos: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from photos to the plain loss of their stylized pictures."""
    loss = PlainLoss(photos, step.shortened, step.cached)
    if step.channels_last:
        loss.to(memory_format=torch.channels_last)
    return lambda here: loss(network(here), here)


def _ours(
    step: Step, network: torch.nn.Module, photos: torch.Tensor
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function from photos to our loss of their stylized pictures."""
    weights = "random" if step.network != "compact" else None
    loss = PerceptualLoss(LossOptions(step.network, weights, balance="fixed")).to(step.device)
    target = loss.style_target([photos[:1]]).select(
        torch.zeros(step.batch, dtype=torch.long, device=step.device)
    )
    style = torch.ones(step.batch, 1, device=step.device)
    paint, judge = (
        torch.compile(part.forward, mode=step.compiled) if step.compiled else part
        for part in (network, loss)
    )

    def judged(here: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            list(judge(paint(here, style, TRAINING_MARGIN), here, target).values())
        ).sum()

    return judged


def _medians(rows: Rows, rounds: int) -> dict[str, float]:
    """Return the median seconds of each step, after a round in which torch.compile compiles."""
    jobs = {name: training_step(step) for name, step in rows.items()}
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in turns(rounds + 1, "training"):
        for name, job in jobs.items():
            seconds[name].append(seconds_of(job, rows[name].device))
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


def _peak(step: Step) -> float:
    """Return the peak MiB of two steps, with network and loss."""
    # A first small step loads the libraries, whose memory is not to be counted.
    training_step(replace(step, size=32, batch=1, width=4, compiled=""))()
    before = in_use(step.device)
    job = training_step(step)
    if step.compiled:
        job()  # compiles, which is not to be counted either
    return measured_peak(lambda: [job(), now(step.device), job()], step.device, before)
