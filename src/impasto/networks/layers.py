"""Layers of the transform network: convolution, conditional instance norm, residual block."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.kernels import normalized, reflected


class Convolution(nn.Conv2d):
    """Convolution with reflection padding; at stride 1 it keeps the size.

    Zero padding would draw a visible frame around the picture.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        self.border = kernel // 2

    def forward(self, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ _ _"]:
        return self._conv_forward(reflected(x, self.border), self.weight, self.bias)


class Moments:
    """Mean and variance of every channel, for all instance norms of one forward pass.

    Each instance norm calls this object in turn. It measures the features, or returns the next of
    the `given` values. Use a new object for each forward pass.

    Args:
        given: B×S or 1×S, the `statistics` of a whole picture, for painting its parts (Chen et al.
            2022). None: measure each layer's features.

    Attributes:
        measures: whether the values are measured, so that gradients flow through them too.
    """

    def __init__(self, given: Float[Tensor, "b s"] | None = None) -> None:
        self._given, self._taken = given, 0
        self._measured: list[Tensor] = []
        self.measures = given is None

    def __call__(
        self, x: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "_ c 1 1"], Float[Tensor, "_ c 1 1"]]:
        """Return variance and mean for the features x, each B×C×1×1 (1×C×1×1 if given so).

        They are measured in float32, or in float64 if x is float64.
        """
        channels = x.shape[1]
        if self._given is not None:
            here = self._given[:, self._taken : self._taken + 2 * channels, None, None]
            self._taken += 2 * channels
            return here[:, :channels], here[:, channels:]
        # Sums over H·W values lose too much in half precision.
        x = x if x.dtype == torch.float64 else x.float()
        if torch.compiler.is_exporting():  # other runtimes keep features channels-first
            mean = x.mean((2, 3))
            centred = x - mean[..., None, None]
            variance = (centred * centred).mean((2, 3))
        else:
            # This is a view if x is channels-last, as in training. On a CPU, the sums over it take
            # half the time of `torch.var_mean`.
            pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
            mean = pixels.mean(1)
            variance = (pixels - mean[:, None]).square().mean(1)
        self._measured += [variance, mean]
        return variance[..., None, None], mean[..., None, None]

    @property
    def statistics(self) -> Float[Tensor, "b s"]:
        """B×S: variances and means of every layer measured so far, in order, a row per picture."""
        return torch.cat(self._measured, 1)


class ConditionalInstanceNorm(nn.Module):
    """Instance norm with one γ and β per style, mixed linearly (Dumoulin et al. 2017, eq. 5).

    With one style it equals `nn.InstanceNorm2d(channels, affine=True)`.
    """

    def __init__(self, channels: int, num_styles: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(num_styles, channels))
        self.beta = nn.Parameter(torch.zeros(num_styles, channels))

    def forward(
        self, x: Float[Tensor, "b c h w"], code: Float[Tensor, "_ n"],
        moments: Moments | None = None, relu: bool = False,
    ) -> Float[Tensor, "b c h w"]:  # fmt: skip
        """Return (x − mean) / std · γ + β, with γ = `code @ gamma` and β = `code @ beta`.

        Args:
            x: features.
            code: weights of the styles, B×N or 1×N.
            moments: source of mean and variance; None: measure them on x.
            relu: whether to apply a ReLU to the result.
        """
        moments = moments or Moments()
        with torch.no_grad():  # `normalized` itself computes the gradient through these values
            variance, mean = moments(x)
            inverse = torch.rsqrt(variance + self.eps)
        # Autocast would compute γ and β in half precision.
        with torch.autocast(x.device.type, enabled=False):
            gamma, beta = ((code @ weight)[..., None, None] for weight in (self.gamma, self.beta))
        return normalized(x, gamma, beta, mean, inverse, relu, moments.measures)


class ConvNormRelu(nn.Module):
    """Optional upsampling to twice the size, convolution, conditional instance norm and ReLU.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: side of the kernel.
        num_styles: number of styles of the norm.
        stride: of the convolution.
        upsampling: "" for none, `nearest`, `bilinear`, or `bilinear_smoothed`, which applies
            `smoothed` after the convolution.
        relu: whether to apply the ReLU.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, num_styles: int, *,
        stride: int = 1, upsampling: str = "", relu: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.upsampling, self.relu = upsampling, relu
        self.convolution = Convolution(inputs, outputs, kernel, stride)
        self.norm = ConditionalInstanceNorm(outputs, num_styles)

    def forward(
        self,
        x: Float[Tensor, "b _ h w"],
        code: Float[Tensor, "_ n"],
        moments: Moments | None = None,
    ) -> Float[Tensor, "b _ _ _"]:
        if self.upsampling:
            # Resizing before the convolution avoids checkerboards (Odena et al. 2016). Nearest
            # neighbour, their choice and the usual one, aliases the finest patterns of the small
            # map; bilinear does so less. Later layers may sharpen the aliases to a lattice of dots
            # 4 pixels apart. `smoothed` removes them.
            mode = "nearest" if self.upsampling == "nearest" else "bilinear"
            # On CPUs, autocast would resize in float32.
            with torch.autocast(x.device.type, enabled=False):
                x = F.interpolate(x, scale_factor=2, mode=mode)
        x = self.convolution(x)
        if self.upsampling == "bilinear_smoothed":
            x = smoothed(x)
        return self.norm(x, code, moments, self.relu)


def smoothed(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Return x filtered by ¼ (1, 2, 1) along rows and columns (Zhang 2019's anti-aliasing)."""
    line = x.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(reflected(x, 1), kernel, groups=x.shape[1])


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), without a ReLU after the sum.

    Johnson et al. 2016, after Gross & Wilber.
    """

    def __init__(self, channels: int, num_styles: int) -> None:
        super().__init__()
        self.first = ConvNormRelu(channels, channels, 3, num_styles)
        self.second = ConvNormRelu(channels, channels, 3, num_styles, relu=False)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        code: Float[Tensor, "_ n"],
        moments: Moments | None = None,
    ) -> Float[Tensor, "b c h w"]:
        return x + self.second(self.first(x, code, moments), code, moments)
