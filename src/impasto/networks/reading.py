"""Networks whose styles are pictures: how a painting is read, and what such networks share."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from impasto.images import resize
from impasto.kernels import at_least_float32
from impasto.networks.transform import TransformNet
from impasto.perceptual.features import FeatureNetwork, whole
from impasto.perceptual.loss import gram_matrix

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
SIDE = 512  # longer side, in pixels, at which larger paintings are read


@dataclass(frozen=True)
class StyleStatistics:
    """Gram matrices B×C×C and channel means B×C of paintings, by layer of the compact network."""

    grams: Mapping[str, Tensor]
    means: Mapping[str, Tensor]


@torch.no_grad()
def style_statistics(
    features: FeatureNetwork, paintings: Float[Tensor, "b 3 h w"]
) -> StyleStatistics:
    """Return the statistics of paintings.

    Args:
        features: the compact loss network, with `LAYERS`.
        paintings: B×3×H×W in [0, 1].
    """
    grams, means = {}, {}
    for layer, found in features.walk(paintings, LAYERS):
        values = whole(found)
        grams[layer] = gram_matrix(values)
        means[layer] = at_least_float32(values).mean((2, 3))
    return StyleStatistics(grams, means)


def for_reading(painting: Float[Tensor, "b 3 _ _"]) -> Float[Tensor, "b 3 _ _"]:
    """Return paintings as they are read: scaled down to a longer side of `SIDE`."""
    return resize(painting, min(SIDE, max(painting.shape[-2:])))


class AnyPaintingNet(TransformNet):
    """A network that paints in the style of any picture. Its code comes from the picture."""

    any_picture = True

    @property
    def styles(self) -> list[str]:
        """No names: every picture is a style."""
        return []

    @property
    @abstractmethod
    def reader(self) -> nn.Module:
        """The frozen network whose features `read` uses."""

    @abstractmethod
    def read(self, painting: Float[Tensor, "1 3 _ _"]) -> Float[Tensor, "1 n"]:
        """Return the code of one painting in [0, 1], already scaled as `for_reading` does."""

    @abstractmethod
    def code_of(self, statistics: StyleStatistics) -> Float[Tensor, "b n"]:
        """Return the codes of paintings from their statistics, with gradients."""

    def encode_style(  # type: ignore[override]
        self, style: Sequence[tuple[Float[Tensor, "1 3 _ _"], float]]
    ) -> Float[Tensor, "1 n"]:
        """Return the code of a painting, or of a mixture of paintings.

        Args:
            style: paintings 1×3×H×W in [0, 1], each with its weight, a number above 0.
        """
        total = sum(weight for _, weight in style)
        device = self.to_rgb.weight.device
        codes = [self.read(for_reading(painting).to(device)) * weight for painting, weight in style]
        return torch.stack(codes).sum(0) / total

    def example_codes(self, number: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        """Return codes to try the network with: those of small random pictures."""
        pictures = torch.rand(number, 3, 32, 32, generator=generator).split(1)
        with torch.no_grad():
            return torch.cat([self.read(picture) for picture in pictures])
