"""Parts of the transform network: convolution, conditional instance norm, residual block, upsampling."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

GRAIN = 2 / 255  # standard deviation of what `without_grain` takes for noise: two grey levels, as JPEG files have
CANVAS = 6 / 255  # standard deviation of `canvas`; with 3, dark flat parts had dots in even rows

Origin = tuple[int, int] | Int[Tensor, "2"]  # where in a larger picture a part of it begins: pixels down, right


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Same-size convolution with reflection padding, which keeps borders free of the frame zero padding draws."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, padding_mode="reflect")


def by_columns(layer: nn.Conv2d, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ h w"]:
    """What a `convolution` gives, in float32, faster on CPUs where a large kernel has few outputs, which libraries
    compute as if they were sixteen: its columns become outputs of a narrower kernel, each is moved by its offset, and
    they are summed."""
    outputs, inputs, height, width = layer.weight.shape
    kernel = layer.weight.permute(3, 0, 1, 2).reshape(width * outputs, inputs, height, 1)
    x = F.pad(x, (width // 2, width // 2, height // 2, height // 2), mode="reflect")
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
        self._given, self._taken, self._measured = given, 0, list[Tensor]()

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
        self, x: Float[Tensor, "b c h w"], style: Float[Tensor, "_ n"], moments: Moments | None = None
    ) -> Float[Tensor, "b c h w"]:
        """(x − mean) / std · γ + β, γ and β being `style @ gamma` and `style @ beta`; B of style may be 1."""
        variance, mean = (moments or Moments())(x)
        # float32 under autocast: a statistic over H·W values loses too much in half precision.
        with torch.autocast(x.device.type, enabled=False):
            scale = (style @ self.gamma)[..., None, None] * torch.rsqrt(variance + self.eps)
            shift = (style @ self.beta)[..., None, None] - mean * scale
        return x * scale.to(x.dtype) + shift.to(x.dtype)


class ConvNormRelu(nn.Module):
    """Convolution, conditional instance norm, ReLU (unless told otherwise); `upsample` doubles the size, smoothly."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, num_styles: int, *,
        stride: int = 1, upsample: bool = False, relu: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.upsample, self.relu = upsample, relu
        self.convolution = convolution(inputs, outputs, kernel, stride)
        self.norm = ConditionalInstanceNorm(outputs, num_styles)

    def forward(
        self, x: Float[Tensor, "b _ h w"], style: Float[Tensor, "_ n"], moments: Moments | None = None
    ) -> Float[Tensor, "b _ _ _"]:
        if self.upsample:
            # Resize, then convolution: no checkerboard (Odena et al. 2016). Bilinear and `smoothed`, where they and
            # most take the nearest neighbour: the finest patterns of the small map come with mirror images in
            # frequency, which the later layers sharpen to a lattice of dots in flat areas, 4 pixels apart.
            x = smoothed(self.convolution(F.interpolate(x, scale_factor=2, mode="bilinear")))
        else:
            x = self.convolution(x)
        x = self.norm(x, style, moments)
        return F.relu(x, inplace=True) if self.relu else x


def smoothed(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Each channel under the binomial filter ¼ (1, 2, 1), both ways (the filter of Zhang 2019's anti-aliasing)."""
    line = x.new_tensor([0.25, 0.5, 0.25])
    kernel = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1])


def without_grain(photo: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The photo through a Wiener filter in windows of 7×7 (Lim 1990, p. 548, as in scipy), for noise of GRAIN: what
    varies less is replaced by its mean, what varies much stays as it is."""
    values = photo.float()
    mean, square = _windowed_mean(values), _windowed_mean(values * values)
    # One gain for the three channels, so that it changes no hue.
    variance = (square - mean * mean).mean(1, keepdim=True)
    gain = (variance - GRAIN**2).clamp(min=0) / variance.clamp(min=GRAIN**2)
    return (mean + gain * (values - mean)).to(photo.dtype)


def _windowed_mean(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Mean of the 7×7 pixels around each, of those inside the picture: along rows, then along columns."""
    along = F.avg_pool2d(x, (1, 7), 1, (0, 3), count_include_pad=False)
    return F.avg_pool2d(along, (7, 1), 1, (3, 0), count_include_pad=False)


def canvas(photo: Float[Tensor, "_ _ h w"], origin: Origin = (0, 0)) -> Float[Tensor, "h w"]:
    """A faint pattern, the same at every call, or its part from `origin` (down, right) on: the sum of 64 waves 12 to 40
    pixels long in all directions, spread evenly by Roberts' sequence ("The unreasonable effectiveness of quasirandom
    sequences", 2018)."""
    number = torch.arange(1, 65, device=photo.device)[:, None]
    length, direction, phase = (number * (1 / 1.22074408460576**power) % 1 for power in (1, 2, 3))
    radians = 2 * math.pi / (12 * (40 / 12) ** length)  # per pixel
    down, right = (origin[axis] + torch.arange(photo.shape[axis - 2], device=photo.device) for axis in (0, 1))
    x = radians * (math.pi * direction).cos() * right
    y = radians * (math.pi * direction).sin() * down + 2 * math.pi * phase
    waves = y.cos().T @ x.cos() - y.sin().T @ x.sin()  # cos(x + y), summed over the waves
    return (CANVAS * math.sqrt(2 / len(number)) * waves).to(photo.dtype)


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
