"""Adaptive instance normalization: any painting in one network, without a code to learn.

Huang & Belongie 2017. A frozen encoder gives features of the photo at relu4_1. They get the mean
and standard deviation that the painting's features have, and a learned decoder makes the picture.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.kernels import normalized
from impasto.networks.layers import Convolution, Moments
from impasto.networks.reading import AnyPaintingNet, StyleStatistics
from impasto.networks.transform import MARGIN
from impasto.perceptual.features import IMAGENET_MEAN, IMAGENET_STD
from impasto.perceptual.vgg import COMPACT_RANKS, factored, layer_names, load_compact

LAYER, CHANNELS = "relu4_1", 512
EPS = 1e-5  # added to variances, as in the paper
# Radius, in pixels, from which the photo affects an output pixel: 33 by the encoder, 28 by the
# decoder's convolutions, and up to 7 since nearest-neighbour upsampling repeats pixels.
REACH = 68


class Encoder(nn.Module):
    """The compact loss network up to relu4_1, frozen.

    Departure: the paper's encoder is VGG19, of five times the arithmetic and a download.
    """

    def __init__(self) -> None:
        super().__init__()
        layers = factored("vgg16", COMPACT_RANKS)
        self.network = layers[: layer_names(layers).index(LAYER) + 1].requires_grad_(False)

    def forward(
        self, x: Float[Tensor, "b 3 h w"], code: object = None, moments: object = None
    ) -> Float[Tensor, "b 512 _ _"]:
        """Return the features at relu4_1 of pictures in [0, 1]."""
        mean, std = (x.new_tensor(of)[:, None, None] for of in (IMAGENET_MEAN, IMAGENET_STD))
        return self.network((x - mean) / std)


class AdaptiveInstanceNorm(nn.Module):
    """σ · (x − mean(x)) / std(x) + μ, where a code holds μ and σ (the paper's eq. 8)."""

    def forward(
        self, x: Float[Tensor, "b c h w"], code: Float[Tensor, "_ n"], moments: Moments | None
    ) -> Float[Tensor, "b c h w"]:
        moments = moments or Moments()
        variance, mean = moments(x)
        mu, sigma = (part[..., None, None] for part in code.chunk(2, 1))
        inverse = torch.rsqrt(variance + EPS)
        return normalized(x, sigma, mu, mean, inverse, False, moments.measures)


class Decoding(nn.Module):
    """Optional upsampling to twice the size, a 3×3 convolution and a SiLU.

    Without a norm: it would undo the statistics that the painting gave (the paper's section 7.1).
    Departure: the paper's ReLU left parts of pictures grey, where all channels of a layer were 0.
    """

    def __init__(self, inputs: int, outputs: int, upsample: bool = False) -> None:
        super().__init__()
        self.upsample = upsample
        self.convolution = Convolution(inputs, outputs, 3)

    def forward(
        self, x: Float[Tensor, "b _ _ _"], code: object = None, moments: object = None
    ) -> Float[Tensor, "b _ _ _"]:
        if self.upsample:
            # On CPUs, autocast would resize in float32.
            with torch.autocast(x.device.type, enabled=False):
                x = F.interpolate(x, scale_factor=2, mode="nearest")
        return F.silu(self.convolution(x))


class AdaINNet(AnyPaintingNet):
    """Encoder, adaptive instance norm, decoder.

    A code holds the means and the standard deviations of the 512 channels at relu4_1. So a mixture
    of codes is the paper's mixture of styles (its eq. 15), and a mixture with the photo's own code
    is its content-style trade-off (eq. 14).

    Args:
        width: channels of the decoder at full resolution. Departure: the paper's decoder mirrors
            VGG, with 64; at 32 it is no heavier than the compact encoder.
        canvas: as in `TransformNet`; 0 is the paper's.
    """

    multiple = 8

    def __init__(self, width: int = 32, canvas: float = 3.0) -> None:
        nn.Module.__init__(self)  # TransformNet's own would build its layers
        if width < 1 or canvas < 0:
            raise ValueError(f"width {width}, canvas {canvas}: width from 1, canvas from 0")
        self.arguments = {"width": width, "canvas": canvas}
        self.num_styles, self.canvas, self.grain, self.reach = 2 * CHANNELS, canvas, 0.0, REACH
        self.patch, self.margin, self._last_block = 1, MARGIN, 5
        self.metadata = {}
        self.layers = nn.ModuleList([
            Encoder(),
            AdaptiveInstanceNorm(),
            Decoding(CHANNELS, 4 * width),
            Decoding(4 * width, 4 * width),
            Decoding(4 * width, 2 * width, upsample=True),
            Decoding(2 * width, 2 * width),
            Decoding(2 * width, width, upsample=True),
            Decoding(width, width, upsample=True),
        ])  # fmt: skip
        self.to_rgb = Convolution(width, 3, 3)

    @property
    def reader(self) -> Encoder:
        """The encoder, which is the first layer."""
        first = self.layers[0]
        assert isinstance(first, Encoder)
        return first

    def with_encoder(self) -> "AdaINNet":
        """Give the encoder the weights of the compact network that comes with the project."""
        encoder = self.reader.network
        encoder.load_state_dict(load_compact(None)[: len(encoder)].state_dict())
        return self

    def read(self, painting: Float[Tensor, "1 3 _ _"]) -> Float[Tensor, "1 n"]:
        """Return μ and σ of one painting."""
        moments = Moments()
        variance, mean = moments(self.reader(painting))
        return torch.cat([mean, (variance + EPS).sqrt()], 1)[..., 0, 0]

    def code_of(self, statistics: StyleStatistics) -> Float[Tensor, "b n"]:
        """Return μ and σ of paintings, from their Gram matrices and means."""
        mean, gram = statistics.means[LAYER], statistics.grams[LAYER]
        square = gram.diagonal(dim1=1, dim2=2) * CHANNELS  # a Gram matrix is divided by C·H·W
        return torch.cat([mean, ((square - mean.square()).clamp(min=0) + EPS).sqrt()], 1)
