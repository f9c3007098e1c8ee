"""Preprocessing of photos inside a network: removing grain, padding, and a canvas to add.

Grain and canvas are not in the papers. Each network records both among its arguments.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

# Position of a part in a larger picture: pixels down, pixels right.
Origin = tuple[int, int] | Int[Tensor, "2"]


def without_grain(photo: Float[Tensor, "b 3 h w"], grain: float) -> Float[Tensor, "b 3 h w"]:
    """Return the photo after a Wiener filter in windows of 7×7 (Lim 1990, p. 548, as in scipy).

    Pixels whose window varies less than `grain` become the window's mean. Pixels whose window
    varies much more stay as they are.

    Args:
        photo: RGB in [0, 1].
        grain: standard deviation of the noise in grey levels, above 0. JPEG files have 2.
    """
    noise = (grain / 255) ** 2
    values = photo.float()
    mean, square = _windowed_mean(values), _windowed_mean(values * values)
    # One gain for all three channels keeps the hue.
    variance = (square - mean * mean).mean(1, keepdim=True)
    gain = (variance - noise).clamp(min=0) / variance.clamp(min=noise)
    return (mean + gain * (values - mean)).to(photo.dtype)


def _windowed_mean(x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Return the mean of the 7×7 window around each pixel, cut at the picture's edges."""
    along = F.avg_pool2d(x, (1, 7), 1, (0, 3), count_include_pad=False)
    return F.avg_pool2d(along, (7, 1), 1, (3, 0), count_include_pad=False)


def canvas(
    down: Int[Tensor, " h"], right: Int[Tensor, " w"], amplitude: float
) -> Float[Tensor, "h w"]:
    """Return a faint, fixed pattern at the given rows and columns, H×W, to add to a photo.

    The pattern is the sum of 64 waves, 12 to 40 pixels long, in all directions. Roberts' sequence
    spreads their lengths, directions and phases evenly ("The unreasonable effectiveness of
    quasirandom sequences", 2018).

    Args:
        down: positions of the rows in pixels, of any sign.
        right: positions of the columns in pixels, of any sign.
        amplitude: standard deviation in grey levels.
    """
    number = torch.arange(1, 65, device=down.device)[:, None]
    length, direction, phase = (number * (1 / 1.22074408460576**power) % 1 for power in (1, 2, 3))
    radians = 2 * math.pi / (12 * (40 / 12) ** length)  # per pixel
    x = radians * (math.pi * direction).cos() * right
    y = radians * (math.pi * direction).sin() * down + 2 * math.pi * phase
    waves = y.cos().T @ x.cos() - y.sin().T @ x.sin()  # cos(x + y), summed over the waves
    return amplitude / 255 * math.sqrt(2 / len(number)) * waves


def canvas_at(
    down: Float[Tensor, "*b h w"], right: Float[Tensor, "*b h w"], amplitude: float
) -> Float[Tensor, "*b h w"]:
    """Return the pattern of `canvas` at any positions, one for each pixel.

    Between whole positions it is interpolated with a cubic, to 3 % of the amplitude. The waves
    themselves, at each pixel, would take six times as long.

    Args:
        down: distance of each pixel from the first row, in pixels, also between rows.
        right: distance from the first column.
        amplitude: standard deviation in grey levels.
    """
    spans = []
    for place in (down, right):
        first, last = (int(value) for value in torch.stack(place.aminmax()).floor())
        spans.append(torch.arange(first - 1, last + 3, device=down.device))
    rows, columns = spans
    pattern = canvas(rows, columns, amplitude).to(down.dtype)
    x = (right - columns[0]) * (2 / (len(columns) - 1)) - 1
    y = (down - rows[0]) * (2 / (len(rows) - 1)) - 1
    grid = torch.stack([x, y], -1).reshape(1, -1, down.shape[-1], 2)
    found = F.grid_sample(pattern[None, None], grid, mode="bicubic", align_corners=True)
    return found.reshape(down.shape)


def padding(image: Tensor, axis: int, margin: int, multiple: int) -> tuple[Tensor, Tensor]:
    """Return the indices that pad one axis, of the image and of the canvas.

    The padding is `margin` pixels at both ends. At the far end it also fills up to a multiple of
    `multiple`, because the network halves the size. Index tensors can be exported to ONNX for
    images of any size.

    Large images and their canvas are reflected. An image no larger than the padding is replicated,
    while its canvas continues unreflected. Replicated as well, the canvas of a one-pixel image
    would be flat, and rounding errors would decide the output.

    Args:
        image: B×3×H×W, before padding.
        axis: −2 for rows, −1 for columns.
        margin: as in `TransformNet.forward`.
        multiple: as in `TransformNet`.

    Returns:
        For each padded row or column, the row or column of the image to copy, and the row or column
        of the canvas to add.
    """
    side = image.shape[axis]
    after = margin + -side % multiple
    position = torch.arange(-margin, side + after, device=image.device)
    last = side - 1
    reflected = (last - (last - position.abs()).abs()).clamp(0, last)
    large = side + 0 * position > after
    return (
        torch.where(large, reflected, position.clamp(0, last)),
        torch.where(large, reflected, position),
    )
