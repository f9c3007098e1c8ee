"""A transform network for any painting: a predictor gives the code of a painting never seen before.

It follows Ghiasi et al. 2017, with two departures. The predictor reads what the style loss
compares, Gram matrices and means of the compact loss network, instead of an Inception network's
features. Its code weighs a basis of learned styles, instead of naming each γ and β.
"""

import hashlib
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from impasto.networks.layers import Padding
from impasto.networks.reading import LAYERS, AnyPaintingNet, StyleStatistics, style_statistics
from impasto.networks.transform import MARGIN, Kernel, Patch, TransformNet, Upsampling
from impasto.perceptual.features import FeatureNetwork
from impasto.perceptual.vgg import BLOCK_CHANNELS, shipped_compact

REDUCED = 32  # channels to which the features of each layer are reduced
_NUMBERS = len(LAYERS) * (REDUCED * (REDUCED + 1) // 2 + REDUCED)  # of the predictor's input


class StylePredictor(nn.Module):
    """Predicts the code of a painting from its statistics.

    Every layer's features are reduced to 32 channels by a learned 1×1 convolution. A Gram matrix of
    reduced features is P G Pᵀ, so the convolution is applied to the statistics instead.

    Args:
        num_styles: number N of basis styles.
    """

    unit: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, num_styles: int) -> None:
        super().__init__()
        self.reduce = nn.ParameterDict(
            {
                layer: nn.Parameter(torch.empty(REDUCED, channels))
                for layer, channels in zip(LAYERS, BLOCK_CHANNELS, strict=True)
            }
        )
        for weight in self.reduce.values():
            nn.init.orthogonal_(weight)
        last = nn.Linear(256, num_styles)
        self.layers = nn.Sequential(
            nn.Linear(_NUMBERS, 512), nn.SiLU(), nn.Linear(512, 256), nn.SiLU(), last
        )
        # All paintings begin with nearly the same code. Exactly the same, with weights of 0, would
        # leave the layers before without a gradient at the first step.
        nn.init.normal_(last.weight, std=0.01)
        nn.init.zeros_(last.bias)
        # Constants of the training set (`fit_constants`): units of each layer's Gram matrices and
        # means, then mean and standard deviation of the numbers.
        self.register_buffer("unit", torch.ones(len(LAYERS), 2))
        self.register_buffer("centre", torch.zeros(_NUMBERS))
        self.register_buffer("spread", torch.ones(_NUMBERS))

    def forward(self, statistics: StyleStatistics) -> Float[Tensor, "b n"]:
        """Return the codes B×N of paintings, weights that sum to 1 and may be negative."""
        # Autocast would compute the products in half precision.
        with torch.autocast(self.centre.device.type, enabled=False):
            code = self.layers((self._numbers(statistics) - self.centre) / self.spread)
            return code + (1 - code.sum(1, keepdim=True)) / code.shape[1]

    def _numbers(self, statistics: StyleStatistics) -> Float[Tensor, "b _"]:
        """Return the upper triangles of the reduced Gram matrices, and the reduced means."""
        rows, columns = torch.triu_indices(REDUCED, REDUCED, device=self.centre.device)
        parts = []
        for layer, (of_gram, of_mean) in zip(LAYERS, self.unit, strict=True):
            reduce = self.reduce[layer]
            gram = reduce @ (statistics.grams[layer] / of_gram) @ reduce.mT
            mean = (statistics.means[layer] / of_mean) @ reduce.mT
            parts += [gram[:, rows, columns], mean]
        numbers = torch.cat(parts, 1)
        # A signed square root, with a finite slope at 0: a few channels are far larger than others.
        return numbers * (numbers.abs() + 0.01).rsqrt()

    @torch.no_grad()
    def fit_constants(self, statistics: StyleStatistics) -> None:
        """Set the constants that give the numbers of a training set mean 0 and deviation 1."""
        for unit, layer in zip(self.unit, LAYERS, strict=True):
            grams, means = statistics.grams[layer], statistics.means[layer]
            unit[0] = grams.diagonal(dim1=1, dim2=2).mean()
            unit[1] = means.square().mean().sqrt()
        numbers = self._numbers(statistics)
        self.centre.copy_(numbers.mean(0))
        self.spread.copy_(numbers.std(0).clamp(min=1e-3))


class AnyStyleNet(AnyPaintingNet):
    """A transform network whose codes a predictor computes from paintings.

    The arguments are those of `TransformNet`; `num_styles` is the number of basis styles, which
    have no names.
    """

    def __init__(
        self, num_styles: int = 64, width: int = 16, residual_blocks: int = 5,
        canvas: float = 3.0, grain: float = 0.0, upsampling: Upsampling = "nearest",
        patch: Patch = 1, kernel: Kernel = 9, separable: bool = False,
        padding: Padding = "reflect", margin: int = MARGIN,
    ) -> None:  # fmt: skip
        super().__init__(
            num_styles, width, residual_blocks, canvas, grain, upsampling,
            patch, kernel, separable, padding, margin,
        )  # fmt: skip
        self.predictor = StylePredictor(num_styles)
        # The compact network comes with the package. In a list, it is no part of the weights.
        self._readers: list[FeatureNetwork] = []

    @property
    def reader(self) -> FeatureNetwork:
        """The compact network.

        Raises:
            ValueError: the compact network is not the one that the predictor was trained with.
        """
        if not self._readers:
            trained = self.metadata.get("statistics", {}).get("sha256")
            if trained not in (None, compact_hash()):
                raise ValueError(
                    "the network was trained with another compact loss network than the one of "
                    "this version: update impasto, or train the network again"
                )
            self._readers.append(FeatureNetwork("compact", LAYERS))
        device = self.to_rgb.weight.device
        if self._readers[0].mean.device != device:  # an exporter cannot move anything
            self._readers[0].to(device)
        return self._readers[0]

    def read(self, painting: Float[Tensor, "1 3 _ _"]) -> Float[Tensor, "1 n"]:
        """Return the code of one painting."""
        return self.code_of(style_statistics(self.reader, painting))

    def code_of(self, statistics: StyleStatistics) -> Float[Tensor, "b n"]:
        """Return the predicted codes of paintings."""
        return self.predictor(statistics)


def compact_hash() -> str:
    """Return the SHA-256 of the compact network's file, which decides the codes of paintings."""
    return hashlib.sha256(shipped_compact().read_bytes()).hexdigest()


def with_basis(network: AnyStyleNet, other: TransformNet | None) -> dict[str, Any]:
    """Return the weights that a network begins its training with.

    Args:
        network: the network to train.
        other: a trained network, of the same width and blocks, whose weights and styles it takes
            over; None: it begins at random.

    Returns:
        A state dict. Basis styles that `other` lacks are the mean of its styles, with noise of a
        tenth of their size.
    """
    state = network.state_dict()
    generator = torch.Generator().manual_seed(0)
    if other is not None:
        state.update({k: v for k, v in other.state_dict().items() if "norm" not in k})
    for key, value in state.items():
        if not key.endswith((".gamma", ".beta")):
            continue
        known = value[:0] if other is None else other.state_dict()[key]
        mean = value.mean(0) if other is None else known.mean(0)
        noise = 0.1 * torch.randn(value.shape, generator=generator)
        rows = mean + noise * mean.abs().mean().clamp(min=0.5)
        rows[: len(known)] = known
        state[key] = rows
    return state
