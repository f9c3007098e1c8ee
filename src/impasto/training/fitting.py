"""Fitting of one style to its painting: its row of γ and β learns, all other weights stay.

Dumoulin et al. 2017 add a style to a trained network so.
"""

import time
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from impasto.choices import LossOptions
from impasto.networks.preprocess import Origin
from impasto.networks.rows import is_row
from impasto.networks.transform import TRAINING_MARGIN, TransformNet
from impasto.training.objective import Objective

# Adam's rate. In 13 steps on four paintings, 0.01 and 0.03 were equally good.
LEARNING_RATE = 0.02


def fit_row(
    network: TransformNet,
    painting: Float[Tensor, "1 3 _ _"],
    photos: Float[Tensor, "p 3 s s"],
    seconds: float,
    tell: Callable[[float], object] = lambda passed: None,
) -> int:
    """Fit the only style of a network to a painting, in place; return the number of steps.

    Args:
        network: a network of one style.
        painting: the painting in [0, 1], at the size whose strokes are wanted.
        photos: two or more photos in [0, 1] to learn on, one in each step.
        seconds: for how long, the measuring of painting and photos not counted.
        tell: called before every step with the seconds that have passed.

    The loss is that of the compact loss network, with the style strength of the network's training.
    """
    strength = network.metadata.get("loss", {}).get("style_strength", LossOptions().style_strength)
    device = network.to_rgb.weight.device
    objective = Objective(LossOptions(network="compact", style_strength=strength), device)
    target = objective.loss.style_target([painting.to(device)], photos.to(device))
    rows = [p for name, p in network.named_parameters() if is_row(name)]
    for row in rows:
        row.requires_grad_(True)
    optimizer = torch.optim.Adam(rows, LEARNING_RATE)

    def paint(content: Tensor, code: Tensor, origin: Origin) -> Tensor:
        return network(content, code, TRAINING_MARGIN, origin)

    begun, step = time.monotonic(), 0
    code = torch.ones(1, 1, device=device)
    while (passed := time.monotonic() - begun) < seconds:
        tell(passed)
        photo = photos[step % len(photos)][None].to(device)
        optimizer.zero_grad()
        objective(paint, photo, code, target, step)[1].backward()
        optimizer.step()
        step += 1
    network.requires_grad_(False)
    return step
