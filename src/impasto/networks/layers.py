"""Parts of the transform network: convolution, conditional instance norm, residual block, upsampling."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.kernels import normalized, reflected


class Convolution(nn.Conv2d):
    """Same-size convolution with reflection padding, which keeps borders free of the frame zero padding draws."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        self.border = kernel // 2

    def forward(self, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ _ _"]:
        return self._conv_forward(reflected(x, self.border), self.weight, self.bias)


class Moments:
    """Variance and mean of every channel, for one normalization after the other: measured, or `given`.

    Args:
        given: B×S, the `statistics` of a whole picture, for its parts (Chen et al. 2022); None: each measures its own.
    """

    def __init__(self, given: Float[Tensor, "b s"] | None = None) -> None:
        self._given, self._taken = given, 0
        self._measured: list[Tensor] = []
        self.measures = given is None

    def __call__(
        self, x: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "_ c 1 1"], Float[Tensor, "_ c 1 1"]]:
        """Variance and mean for the features x, in float32 at least."""
        channels = x.shape[1]
        if self._given is not None:
            here = self._given[:, self._taken : self._taken + 2 * channels, None, None]
            self._taken += 2 * channels
            return here[:, :channels], here[:, channels:]
        x = x if x.dtype == torch.float64 else x.float()
        if torch.compiler.is_exporting():  # the layout of other runtimes
            mean = x.mean((2, 3))
            centred = x - mean[..., None, None]
            variance = (centred * centred).mean((2, 3))
        else:
            # A view where x is channels-last, as in training; over it they take half the time of var_mean on a CPU.
            pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
            mean = pixels.mean(1)
            variance = (pixels - mean[:, None]).square().mean(1)
        self._measured += [variance, mean]
        return variance[..., None, None], mean[..., None, None]

    @property
    def statistics(self) -> Float[Tensor, "b s"]:
        """What was measured so far, in one row for each picture."""
        return torch.cat(self._measured, 1)


class ConditionalInstanceNorm(nn.Module):
    """Instance norm with γ and β for each style, mixed linearly (Dumoulin et al. 2017, eq. 5).

    With one style this is `nn.InstanceNorm2d(channels, affine=True)`.
    """

    def __init__(self, channels: int, num_styles: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(num_styles, channels))
        self.beta = nn.Parameter(torch.zeros(num_styles, channels))

    def forward(
        self, x: Float[Tensor, "b c h w"], code: Float[Tensor, "_ n"], moments: Moments | None = None,
        relu: bool = False,
    ) -> Float[Tensor, "b c h w"]:  # fmt: skip
        """(x − mean) / std · γ + β, γ and β being `code @ gamma` and `code @ beta`; B of the code may be 1."""
        moments = moments or Moments()
        with torch.no_grad():  # `normalized` knows what they do to the gradient
            variance, mean = moments(x)
            inverse = torch.rsqrt(variance + self.eps)
        # float32 under autocast: a statistic over H·W values loses too much in half precision.
        with torch.autocast(x.device.type, enabled=False):
            gamma, beta = ((code @ weight)[..., None, None] for weight in (self.gamma, self.beta))
        return normalized(x, gamma, beta, mean, inverse, relu, moments.measures)


class ConvNormRelu(nn.Module):
    """Convolution, conditional instance norm, ReLU (unless told otherwise); with `upsampling`, at twice the size."""

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
            # Resize, then convolution: no checkerboard (Odena et al. 2016). The nearest neighbour, which they and most
            # take, and less so bilinear, pass the finest patterns of the small map with mirror images in frequency.
            # Later layers may sharpen those to a lattice of dots, 4 pixels apart; `smoothed` removes them.
            mode = "nearest" if self.upsampling == "nearest" else "bilinear"
            with torch.autocast(
                x.device.type, enabled=False
            ):  # which on CPUs would make it float32
                x = F.interpolate(x, scale_factor=2, mode=mode)
        x = self.convolution(x)
        if self.upsampling == "bilinear_smoothed":
            x = smoothed(x)
        return self.norm(x, code, moments, self.relu)


def smoothed(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Each channel under the binomial filter ¼ (1, 2, 1), both ways (the filter of Zhang 2019's anti-aliasing)."""
    line = x.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(reflected(x, 1), kernel, groups=x.shape[1])


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), no ReLU after the sum (Johnson et al. 2016, after Gross & Wilber)."""

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
