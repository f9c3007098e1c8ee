"""Layers of the transform network: convolution, conditional instance norm, residual block."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from impasto.kernels import normalized, reflected

Padding = Literal["reflect", "zeros"]
_IN_CACHE = 2**17  # numbers: half a mebibyte in float32


class Convolution(nn.Conv2d):
    """Convolution with padding; at stride 1 it keeps the size.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: side of the kernel.
        stride: distance of the positions, in pixels.
        padding: `reflect`, or `zeros`, which costs nothing. Zeros draw a visible frame, which a
            reflected border around the photo moves outside the picture.
        border: width of the padding in pixels; None: half the kernel.
        groups: as in `nn.Conv2d`.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *,
        padding: Padding = "reflect", border: int | None = None, groups: int = 1,
    ) -> None:  # fmt: skip
        border = kernel // 2 if border is None else border
        inside = border if padding == "zeros" else 0
        super().__init__(inputs, outputs, kernel, stride, inside, groups=groups)
        self.border = border - inside

    def forward(self, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ _ _"]:
        x = reflected(x, self.border) if self.border else x
        return self._conv_forward(x, self.weight, self.bias)


class SeparableConvolution(nn.Module):
    """A 3×3 convolution of each channel by itself, then one of 1×1 (Howard et al. 2017).

    Departure: MobileNet's norm and ReLU between the two are left out.

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: of the first convolution.
        padding: see `Convolution`.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, padding: Padding = "reflect"
    ) -> None:
        super().__init__()
        self.depthwise = Convolution(inputs, inputs, 3, stride, padding=padding, groups=inputs)
        self.pointwise = Convolution(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ _ _"]:
        return self.pointwise(self.depthwise(x))


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
            parts = [pixels]
            if x.device.type == "cpu" and not torch.compiler.is_compiling():
                # Parts that stay in the cache, with what is computed of them, take half the time.
                parts = pixels.split(max(1, _IN_CACHE // pixels[:, :1].numel()), 1)
            squares = torch.stack([(part - mean[:, None]).square().sum(1) for part in parts])
            variance = squares.sum(0) / pixels.shape[1]
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
        if moments is None and torch.compiler.is_exporting():
            y = self._in_one_operator(x, code)
            return F.relu(y) if relu else y
        moments = moments or Moments()
        with torch.no_grad():  # `normalized` itself computes the gradient through these values
            variance, mean = moments(x)
            inverse = torch.rsqrt(variance + self.eps)
        # Autocast would compute γ and β in half precision.
        with torch.autocast(x.device.type, enabled=False):
            gamma, beta = ((code @ weight)[..., None, None] for weight in (self.gamma, self.beta))
        return normalized(x, gamma, beta, mean, inverse, relu, moments.measures)

    def _in_one_operator(
        self, x: Float[Tensor, "b c h w"], code: Float[Tensor, "_ n"]
    ) -> Float[Tensor, "b c h w"]:
        """Return the same by ONNX's InstanceNormalization, in place of nine operators.

        That operator knows one γ and β for all pictures. So the pictures become further channels.
        """
        gamma, beta = (
            (code @ weight).expand(x.shape[:2]).flatten() for weight in (self.gamma, self.beta)
        )
        together = x.flatten(0, 1)[None].float()  # sums lose too much in half precision
        y = F.instance_norm(together, weight=gamma.float(), bias=beta.float(), eps=self.eps)
        return y.reshape(x.shape).to(x.dtype)


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
        padding: see `Convolution`.
        border: see `Convolution`.
        separable: whether the convolution, of 3×3, is a `SeparableConvolution`.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, num_styles: int, *,
        stride: int = 1, upsampling: str = "", relu: bool = True,
        padding: Padding = "reflect", border: int | None = None, separable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.upsampling, self.relu = upsampling, relu
        self.convolution = (
            SeparableConvolution(inputs, outputs, stride, padding)
            if separable
            else Convolution(inputs, outputs, kernel, stride, padding=padding, border=border)
        )
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

    Args:
        channels: number of channels.
        num_styles: number of styles of the norms.
        kind: `padding` and `separable` of `ConvNormRelu`.
    """

    def __init__(self, channels: int, num_styles: int, **kind: Any) -> None:
        super().__init__()
        self.first = ConvNormRelu(channels, channels, 3, num_styles, **kind)
        self.second = ConvNormRelu(channels, channels, 3, num_styles, relu=False, **kind)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        code: Float[Tensor, "_ n"],
        moments: Moments | None = None,
    ) -> Float[Tensor, "b c h w"]:
        return x + self.second(self.first(x, code, moments), code, moments)
