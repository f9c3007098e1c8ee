"""What the loss networks cost: time of the loss and of a training step, and memory."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

import torch

from impasto.benchmark.measure import alone, in_use, measured_peak, seconds_of, turns
from impasto.choices import STYLE_LAYERS, LossNetwork, LossOptions
from impasto.networks import TransformNet
from impasto.networks.transform import TRAINING_MARGIN
from impasto.perceptual.features import FeatureNetwork
from impasto.perceptual.loss import PerceptualLoss

NETWORKS: tuple[LossNetwork, ...] = get_args(LossNetwork)
LAYERS = (*STYLE_LAYERS, "relu4_2")


@dataclass(frozen=True)
class Setting:
    """What is measured.

    Args:
        device: where it is measured.
        size: side of the photos in pixels.
        batch: photos at a time.
        width: of the transform network.
        bf16: under bfloat16 autocast instead of in float32.
    """

    device: str
    size: int
    batch: int
    width: int
    bf16: bool


def loss_network_table(setting: Setting, rounds: int) -> Iterator[str]:
    """Yield the lines of a Markdown table: time and peak memory of each loss network.

    Times are milliseconds a photo, the medians of `rounds` rounds after a warm-up. Each has its
    ratios to vgg19 and to vgg16.
    """
    jobs = {
        (name, what): _job(name, what, setting)
        for name in NETWORKS
        for what in ("loss", "training step")
    }
    seconds: dict[tuple[LossNetwork, str], list[float]] = {key: [] for key in jobs}
    what = "bfloat16 autocast" if setting.bf16 else "float32"
    for _ in turns(rounds + 1, what):
        for key, job in jobs.items():
            seconds[key].append(seconds_of(job, setting.device))
    median = {
        key: statistics.median(found[1:]) * 1e3 / setting.batch for key, found in seconds.items()
    }
    yield (
        f"{what}, {setting.device}, {torch.get_num_threads()} threads, "
        f"{setting.batch} photos of {setting.size} pixels,"
        f" network of width {setting.width}; "
        "milliseconds a photo (× faster than vgg19, × faster than vgg16)\n"
    )
    yield (
        "| loss network | loss, forward and backward | training step "
        "| peak memory of the loss network |"
    )
    yield "|---|---|---|---|"
    for name in NETWORKS:
        times = [_against(median, name, what) for what in ("loss", "training step")]
        yield f"| {name} | {times[0]} | {times[1]} | {_memory(name, setting):.0f} MiB |"
    yield ""


def _against(median: dict[tuple[LossNetwork, str], float], name: LossNetwork, what: str) -> str:
    """Return a cell of the table: milliseconds, and how much faster than vgg19 and than vgg16."""
    here = median[name, what]
    return f"{here:.0f} ({median['vgg19', what] / here:.2f}, {median['vgg16', what] / here:.2f})"


def _job(name: LossNetwork, what: str, setting: Setting) -> Callable[[], None]:
    """Return a function that does what is timed.

    Args:
        name: the loss network; its weights are random.
        what: `loss`: the loss, and its gradient at the picture; `training step`: a whole step.
        setting: photos, device and precision.
    """
    loss = PerceptualLoss(LossOptions(balance="fixed"), FeatureNetwork(name, LAYERS, "random")).to(
        setting.device
    )
    photos = torch.rand(setting.batch, 3, setting.size, setting.size, device=setting.device)
    target = loss.style_target([photos[:1]])
    network = (
        TransformNet(1, setting.width).to(setting.device).to(memory_format=torch.channels_last)
    )
    optimizer = torch.optim.Adam(network.parameters())

    def run() -> None:
        with torch.autocast(setting.device, torch.bfloat16, enabled=setting.bf16):
            painted = (
                network(photos, margin=TRAINING_MARGIN)
                if what == "training step"
                else photos.clone().requires_grad_()
            )
            total = sum(
                loss(painted, photos, target).values(), torch.zeros((), device=setting.device)
            )
        total.backward()
        if what == "training step":
            optimizer.step()
            optimizer.zero_grad()

    return run


def _memory(name: LossNetwork, setting: Setting) -> float:
    """Return the peak MiB of a loss network and two evaluations, measured in a fresh process."""
    return alone(_peak, name, setting)


def _peak(name: LossNetwork, setting: Setting) -> float:
    small = Setting(setting.device, 32, 1, setting.width, setting.bf16)
    _job("compact", "loss", small)()  # loads the libraries, whose memory is not to be counted
    before = in_use(setting.device)
    job = _job(name, "loss", setting)

    def twice() -> None:
        job()
        job()

    return measured_peak(twice, setting.device, before)
