"""What a picture costs in seconds and peak memory; each approach is measured in its own process."""

import statistics
from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from impasto.benchmark.measure import alone, in_use, measured_peak, now, seconds_of
from impasto.benchmark.plain import CONTENT_LAYER, plain_recipe
from impasto.choices import STYLE_LAYERS, LossNetwork
from impasto.inference import Stylizer
from impasto.networks import load_network
from impasto.perceptual.features import FeatureNetwork
from impasto.perceptual.loss import PerceptualLoss
from impasto.reference import Reference, optimize_image

ROUNDS = 5  # pictures or iterations that are timed, after one to warm up


@dataclass(frozen=True)
class Cost:
    """The cost of a picture or of an iteration.

    Args:
        seconds: the median time, after a warm-up.
        mebibytes: peak memory in MiB.
    """

    seconds: float
    mebibytes: float


def cost_of_network(name: str, size: int, device: str) -> Cost:
    """Return the cost of painting one picture of size × size pixels with a network."""
    return alone(_network_cost, name, size, device)


def cost_of_reference(reference: Reference, size: int, device: str) -> Cost:
    """Return the cost of one iteration of the reference at size × size pixels."""
    return alone(_reference_cost, reference, size, device)


def cost_of_plain_recipe(name: LossNetwork, size: int, device: str) -> Cost:
    """Return the cost of one iteration of `plain_recipe` at size × size pixels.

    Args:
        name: the loss network; its weights are random.
        size: side of photo and painting in pixels.
        device: where it is measured.
    """
    return alone(_plain_cost, name, size, device)


def _network_cost(name: str, size: int, device: str) -> Cost:
    before = in_use(device)
    network = load_network(name)
    photo = torch.rand(1, 3, size, size, device=device)
    style = photo if network.any_picture else network.styles[0]
    stylizer = Stylizer(network, style, stroke="pixels", device=device)
    times: list[float] = []
    peak = measured_peak(
        lambda: times.extend(
            seconds_of(lambda: stylizer(photo), device) for _ in range(ROUNDS + 1)
        ),
        device,
        before,
    )
    return Cost(statistics.median(times[1:]), peak)


def _reference_cost(reference: Reference, size: int, device: str) -> Cost:
    before = in_use(device)
    loss = PerceptualLoss(reference.loss).to(device)
    photo = torch.rand(1, 3, size, size, device=device)
    ends: list[float] = []
    options = replace(reference.options, steps=ROUNDS + 1, coarse=[], patience=0)
    peak = measured_peak(
        lambda: optimize_image(
            photo, [photo.flip(-1)], loss, options, on_step=lambda *_: ends.append(now(device))
        ),
        device,
        before,
    )
    # `on_step` is also called with the last picture, after an evaluation that is no iteration.
    return Cost(_iteration(ends[1:-1]), peak)


def _plain_cost(name: LossNetwork, size: int, device: str) -> Cost:
    before = in_use(device)
    vgg = FeatureNetwork(name, [*STYLE_LAYERS, CONTENT_LAYER], "random").to(device)
    photo = torch.rand(1, 3, size, size, device=device)
    ends: list[float] = []
    run = plain_recipe(photo, photo.flip(-1), vgg, lambda: ends.append(now(device)))
    peak = measured_peak(lambda: run(ROUNDS + 1), device, before)
    return Cost(_iteration(ends), peak)


def _iteration(ends: list[float]) -> float:
    """Return the median time between successive ends of iterations."""
    return statistics.median(after - before for before, after in pairwise(ends))
