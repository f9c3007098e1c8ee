"""The usual recipe of neural style transfer, written plainly as in most public projects.

The benchmarks time impasto against it.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.choices import STYLE_LAYERS
from impasto.perceptual.features import IMAGENET_MEAN, IMAGENET_STD, FeatureNetwork
from impasto.perceptual.vgg import architecture, layer_names

CONTENT_LAYER = "relu4_2"


def _features(network: nn.Sequential, names: list[str], image: Tensor) -> dict[str, Tensor]:
    found = {}
    for name, layer in zip(names, network, strict=True):
        image = layer(image)
        found[name] = image.clone()  # an in-place ReLU may overwrite `image`
    return found


def _gram(features: Tensor) -> Tensor:
    _, c, h, w = features.shape
    flat = features.view(c, h * w)
    return flat @ flat.t() / (c * h * w)


def _reflected(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(inputs, outputs, kernel, stride)]


def _normalized(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [
        *_reflected(inputs, outputs, kernel, stride),
        nn.InstanceNorm2d(outputs, affine=True),
        nn.ReLU(),
    ]


class _Residual(nn.Sequential):
    def __init__(self, channels: int) -> None:
        super().__init__(
            *_normalized(channels, channels, 3), *_normalized(channels, channels, 3)[:-1]
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def plain_network(width: int) -> nn.Sequential:
    """Return the network of Johnson et al. 2016, made of torch's own layers."""
    return nn.Sequential(
        *_normalized(3, width, 9),
        *_normalized(width, 2 * width, 3, 2), *_normalized(2 * width, 4 * width, 3, 2),
        *(_Residual(4 * width) for _ in range(5)),
        nn.Upsample(scale_factor=2), *_normalized(4 * width, 2 * width, 3),
        nn.Upsample(scale_factor=2), *_normalized(2 * width, width, 3),
        *_reflected(width, 3, 9), nn.Sigmoid(),
    )  # fmt: skip


class PlainLoss(nn.Module):
    """Content + 10⁵ × style under VGG16 with random weights, as the usual recipe computes it.

    Unless the options change it, every step runs all of VGG16 on output, photos and painting.

    Args:
        photos: a batch in [0, 1], which gives size and device; the painting is random.
        shortened: leave out the layers after the last one that is needed.
        cached: compute the Gram matrices of the painting only once.
    """

    def __init__(self, photos: Float[Tensor, "b 3 h w"], shortened: bool, cached: bool) -> None:
        super().__init__()
        vgg = architecture("vgg16", random=True).requires_grad_(False).to(photos.device)
        names = layer_names(vgg)
        self.names = names[: names.index(STYLE_LAYERS[-1]) + 1] if shortened else names
        self.network = vgg[: len(self.names)]
        self.painting = torch.rand_like(photos[:1]).expand_as(photos).contiguous()
        self.mean, self.std = (
            torch.tensor(v).view(1, 3, 1, 1).to(photos) for v in (IMAGENET_MEAN, IMAGENET_STD)
        )
        self.grams = self._grams(self._features(self.painting)) if cached else None

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        x, found = (image - self.mean) / self.std, {}
        for name, layer in zip(self.names, self.network, strict=True):
            x = layer(x)
            if name in (*STYLE_LAYERS, CONTENT_LAYER):
                found[name] = x
        return found

    def _grams(self, features: dict[str, Tensor]) -> list[Tensor]:
        flat = [features[name].flatten(2) for name in STYLE_LAYERS]
        return [f @ f.transpose(1, 2) / f[0].numel() for f in flat]

    def forward(self, output: Float[Tensor, "b 3 h w"], photos: Float[Tensor, "b 3 h w"]) -> Tensor:
        found, kept = self._features(output), self._features(photos)
        wanted = self.grams or self._grams(self._features(self.painting))
        styles = [
            F.mse_loss(gram, aim) for gram, aim in zip(self._grams(found), wanted, strict=True)
        ]
        return (
            F.mse_loss(found[CONTENT_LAYER], kept[CONTENT_LAYER]) + 1e5 * torch.stack(styles).sum()
        )


def plain_recipe(
    photo: Float[Tensor, "1 3 h w"],
    style: Float[Tensor, "1 3 _ _"],
    vgg: FeatureNetwork,
    on_step: Callable[[], None],
) -> Callable[[int], None]:
    """Return a function that optimizes a picture by a given number of iterations of L-BFGS.

    As usual, it computes in float32 and the contiguous layout, and keeps the output of every layer.
    Every iteration computes the features of photo and painting anew.

    Args:
        photo: in [0, 1]; the optimization starts from it.
        style: the painting, in [0, 1].
        vgg: the loss network; its memory layout is changed.
        on_step: called after every iteration.
    """
    network, names = vgg.network.to(memory_format=torch.contiguous_format), list(vgg.names)
    image = photo.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [image], max_iter=1, tolerance_grad=0, tolerance_change=0, history_size=20
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        found, kept, wanted = (
            _features(network, names, (x - vgg.mean) / vgg.std) for x in (image, photo, style)
        )
        content = F.mse_loss(found[CONTENT_LAYER], kept[CONTENT_LAYER].detach())
        styles = [
            F.mse_loss(_gram(found[name]), _gram(wanted[name]).detach()) for name in STYLE_LAYERS
        ]
        total = content + 1e5 * torch.stack(styles).sum()
        total.backward()
        return total

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.step(closure)
            on_step()

    return run
