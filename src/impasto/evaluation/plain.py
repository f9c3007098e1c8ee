"""The usual recipe of neural style transfer, as plain as most public projects have it: what ours is timed against."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.features import FeatureNetwork
from impasto.losses import STYLE_LAYERS

CONTENT_LAYER = "relu4_2"


def _features(network: nn.Sequential, names: list[str], image: Tensor) -> dict[str, Tensor]:
    found = {}
    for name, layer in zip(names, network, strict=True):
        image = layer(image)
        found[name] = image.clone()  # the next ReLU may work in place
    return found


def _gram(features: Tensor) -> Tensor:
    _, c, h, w = features.shape
    flat = features.view(c, h * w)
    return flat @ flat.t() / (c * h * w)


def plain_recipe(
    photo: Float[Tensor, "1 3 h w"], style: Float[Tensor, "1 3 _ _"], vgg: FeatureNetwork, on_step: Callable[[], None]
) -> Callable[[int], None]:
    """A function that optimizes `photo` for so many iterations of L-BFGS.

    float32, contiguous, every layer kept, and the features of photo and style computed anew in each closure.
    """
    network, names = vgg.network.to(memory_format=torch.contiguous_format), list(vgg.names)
    image = photo.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([image], max_iter=1, tolerance_grad=0, tolerance_change=0, history_size=20)

    def closure() -> Tensor:
        optimizer.zero_grad()
        found, kept, wanted = (_features(network, names, (x - vgg.mean) / vgg.std) for x in (image, photo, style))
        content = F.mse_loss(found[CONTENT_LAYER], kept[CONTENT_LAYER].detach())
        styles = [F.mse_loss(_gram(found[name]), _gram(wanted[name]).detach()) for name in STYLE_LAYERS]
        total = content + 1e5 * torch.stack(styles).sum()
        total.backward()
        return total

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.step(closure)
            on_step()

    return run
