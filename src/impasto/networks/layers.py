"""Parts of the transform network: convolution, conditional instance norm, residual block, upsampling."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

Origin = tuple[int, int] | Int[Tensor, "2"]  # where in a larger picture a part of it begins: pixels down, right


class Convolution(nn.Conv2d):
    """Same-size convolution with reflection padding, which keeps borders free of the frame zero padding draws."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride)
        self.border = kernel // 2

    def forward(self, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ _ _"]:
        return self._conv_forward(reflected(x, self.border), self.weight, self.bias)


def reflected(x: Float[Tensor, "b c h w"], border: int) -> Float[Tensor, "b c _ _"]:
    """x with as many more pixels on every side, by reflection."""
    return _Reflected.apply(x, border)


class _Reflected(torch.autograd.Function):
    """torch's own keeps x for the gradient, of which it needs the size, and on CPUs under autocast works in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, border: int) -> Tensor:
        ctx.border = border
        with torch.autocast(x.device.type, enabled=False):
            return F.pad(x, [border] * 4, mode="reflect")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (g,) = gradients
        return _folded(_folded(g, ctx.border, 2), ctx.border, 3), None


def _folded(g: Tensor, border: int, axis: int) -> Tensor:
    """The inside of g, to which the borders at both ends of the axis are added where they came from."""
    size = g.shape[axis] - 2 * border
    inside = g.narrow(axis, border, size).clone()
    inside.narrow(axis, 1, border).add_(g.narrow(axis, 0, border).flip(axis))
    inside.narrow(axis, size - 1 - border, border).add_(g.narrow(axis, border + size, border).flip(axis))
    return inside


def by_columns(layer: Convolution, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ h w"]:
    """What a `Convolution` gives, in float32, faster on CPUs where a large kernel has few outputs, which libraries
    compute as if they were sixteen: its columns become outputs of a narrower kernel, each is moved by its offset, and
    they are summed."""
    outputs, inputs, height, width = layer.weight.shape
    kernel = layer.weight.permute(3, 0, 1, 2).reshape(width * outputs, inputs, height, 1)
    x = reflected(x, layer.border)
    columns = F.conv2d(x, kernel).float()  # half precision would lose in the sum
    across = x.shape[-1] - width + 1
    assert layer.bias is not None
    moved = (part[..., i : i + across] for i, part in enumerate(columns.split(outputs, 1)))
    return sum(moved, start=layer.bias.float()[:, None, None])


class Moments:
    """Variance and mean of every channel, for one normalization after the other: measured, or `given`.

    Args:
        given: B×S, the `statistics` of a whole picture, for its parts (Chen et al. 2022); None: each measures its own.
    """

    def __init__(self, given: Float[Tensor, "b s"] | None = None) -> None:
        self._given, self._taken = given, 0
        self._measured: list[Tensor] = []
        self.measures = given is None

    def __call__(self, x: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "_ c 1 1"], Float[Tensor, "_ c 1 1"]]:
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
        self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "_ n"], moments: Moments | None = None,
        relu: bool = False,
    ) -> Float[Tensor, "b c h w"]:  # fmt: skip
        """(x − mean) / std · γ + β, γ and β being `style @ gamma` and `style @ beta`; B of style may be 1."""
        moments = moments or Moments()
        with torch.no_grad():  # `_Normalized` knows what they do to the gradient
            variance, mean = moments(x)
            inverse = torch.rsqrt(variance + self.eps)
        # float32 under autocast: a statistic over H·W values loses too much in half precision.
        with torch.autocast(x.device.type, enabled=False):
            gamma, beta = ((style @ weight)[..., None, None] for weight in (self.gamma, self.beta))
        return _Normalized.apply(x, gamma, beta, mean, inverse, relu, moments.measures)


class _Normalized(torch.autograd.Function):
    """(x − mean) / std · γ + β, and its ReLU, of which x alone is kept for the gradient; autograd would keep it in four
    forms, which were most of the memory of training."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, inverse: Tensor, relu: bool, measured: bool
    ) -> Tensor:
        scale = gamma * inverse
        shift = (beta - mean * scale).to(x.dtype)
        ctx.save_for_backward(x, gamma, mean, inverse, scale.to(x.dtype), shift)
        ctx.relu, ctx.measured = relu, measured
        return _scaled(x, scale.to(x.dtype), shift, relu)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, mean, inverse, scale, shift = ctx.saved_tensors
        (g,) = gradients
        if ctx.relu:
            g = g * (_scaled(x, scale, shift, False) > 0)
        total = _summed(g, mean.dtype)
        along = (_summed(g * x, mean.dtype) - mean * total) * inverse  # Σ g · (x − mean) / std
        of_x = g * scale
        if ctx.measured:  # mean and variance move with x
            slope = -gamma * inverse.square() * along / x.shape[2:].numel()
            offset = -gamma * inverse * total / x.shape[2:].numel() - slope * mean
            of_x = of_x.addcmul_(x, slope.to(x.dtype)).add_(offset.to(x.dtype))
        return of_x, along.sum_to_size(gamma.shape), total.sum_to_size(gamma.shape), None, None, None, None


def _scaled(x: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    y = torch.addcmul(shift, x, scale)
    # Not in place where it is compiled: torch 2.11 then loses the gradient of this function, without a word.
    return y if not relu else y.relu() if torch.compiler.is_compiling() else y.relu_()


def _summed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Over the pixels, which a view has in one axis where x is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(1, dtype=dtype)[..., None, None]


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
        self, x: Float[Tensor, "b _ h w"], style: Float[Tensor, "_ n"], moments: Moments | None = None
    ) -> Float[Tensor, "b _ _ _"]:
        if self.upsampling:
            # Resize, then convolution: no checkerboard (Odena et al. 2016). The nearest neighbour, which they and most
            # take, and less so bilinear, pass the finest patterns of the small map with mirror images in frequency.
            # Later layers may sharpen those to a lattice of dots, 4 pixels apart; `smoothed` removes them.
            mode = "nearest" if self.upsampling == "nearest" else "bilinear"
            with torch.autocast(x.device.type, enabled=False):  # which on CPUs would make it float32
                x = F.interpolate(x, scale_factor=2, mode=mode)
        x = self.convolution(x)
        if self.upsampling == "bilinear_smoothed":
            x = smoothed(x)
        return self.norm(x, style, moments, self.relu)


def smoothed(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Each channel under the binomial filter ¼ (1, 2, 1), both ways (the filter of Zhang 2019's anti-aliasing)."""
    line = x.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(reflected(x, 1), kernel, groups=x.shape[1])


def without_grain(photo: Float[Tensor, "b 3 h w"], grain: float) -> Float[Tensor, "b 3 h w"]:
    """The photo through a Wiener filter in windows of 7×7 (Lim 1990, p. 548, as in scipy).

    What varies less than `grain`, a standard deviation in grey levels, is replaced by its mean; what varies much stays
    as it is. JPEG files have two levels of it.
    """
    noise = (grain / 255) ** 2
    values = photo.float()
    mean, square = _windowed_mean(values), _windowed_mean(values * values)
    # One gain for the three channels, so that it changes no hue.
    variance = (square - mean * mean).mean(1, keepdim=True)
    gain = (variance - noise).clamp(min=0) / variance.clamp(min=noise)
    return (mean + gain * (values - mean)).to(photo.dtype)


def _windowed_mean(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Mean of the 7×7 pixels around each, of those inside the picture: along rows, then along columns."""
    along = F.avg_pool2d(x, (1, 7), 1, (0, 3), count_include_pad=False)
    return F.avg_pool2d(along, (7, 1), 1, (3, 0), count_include_pad=False)


def canvas(photo: Float[Tensor, "_ _ h w"], amplitude: float, origin: Origin = (0, 0)) -> Float[Tensor, "h w"]:
    """A faint pattern, the same at every call, or its part from `origin` (down, right) on.

    The sum of 64 waves 12 to 40 pixels long in all directions, spread evenly by Roberts' sequence ("The unreasonable
    effectiveness of quasirandom sequences", 2018). `amplitude` is its standard deviation in grey levels.
    """
    number = torch.arange(1, 65, device=photo.device)[:, None]
    length, direction, phase = (number * (1 / 1.22074408460576**power) % 1 for power in (1, 2, 3))
    radians = 2 * math.pi / (12 * (40 / 12) ** length)  # per pixel
    down, right = (origin[axis] + torch.arange(photo.shape[axis - 2], device=photo.device) for axis in (0, 1))
    x = radians * (math.pi * direction).cos() * right
    y = radians * (math.pi * direction).sin() * down + 2 * math.pi * phase
    waves = y.cos().T @ x.cos() - y.sin().T @ x.sin()  # cos(x + y), summed over the waves
    return (amplitude / 255 * math.sqrt(2 / len(number)) * waves).to(photo.dtype)


class ResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), no ReLU after the sum (Johnson et al. 2016, after Gross & Wilber)."""

    def __init__(self, channels: int, num_styles: int) -> None:
        super().__init__()
        self.first = ConvNormRelu(channels, channels, 3, num_styles)
        self.second = ConvNormRelu(channels, channels, 3, num_styles, relu=False)

    def forward(
        self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "_ n"], moments: Moments | None = None
    ) -> Float[Tensor, "b c h w"]:
        return x + self.second(self.first(x, style, moments), style, moments)
