"""What is done to a photo before the layers of a network: its grain taken out, a canvas laid under it.

Neither is in the papers. A network records both among its arguments.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Origin = (
    tuple[int, int] | Int[Tensor, "2"]
)  # where in a larger picture a part of it begins: pixels down, right


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


def canvas(
    down: Int[Tensor, " h"], right: Int[Tensor, " w"], amplitude: float
) -> Float[Tensor, "h w"]:
    """A faint pattern, the same at every call, at these rows and columns of a picture.

    The sum of 64 waves 12 to 40 pixels long in all directions, spread evenly by Roberts' sequence ("The unreasonable
    effectiveness of quasirandom sequences", 2018). `amplitude` is its standard deviation in grey levels.
    """
    number = torch.arange(1, 65, device=down.device)[:, None]
    length, direction, phase = (number * (1 / 1.22074408460576**power) % 1 for power in (1, 2, 3))
    radians = 2 * math.pi / (12 * (40 / 12) ** length)  # per pixel
    x = radians * (math.pi * direction).cos() * right
    y = radians * (math.pi * direction).sin() * down + 2 * math.pi * phase
    waves = y.cos().T @ x.cos() - y.sin().T @ x.sin()  # cos(x + y), summed over the waves
    return amplitude / 255 * math.sqrt(2 / len(number)) * waves
