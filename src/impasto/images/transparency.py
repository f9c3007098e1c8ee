"""Handle the colours of pictures with alpha.

Where pixels are mixed, colours are weighted by alpha. A file may hold any hidden colours under
alpha 0. Before a network sees the picture, they are replaced by the visible colours around them, so
they have no influence on the result.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

# Colours spread in a small copy of the picture. Its longer side is at most twice this, in pixels.
_SIDE = 512
# Alpha, of 255. Below it, colours multiplied by alpha are too coarse in 8 bits.
_LEAST = 32


def fill_hidden(image: Image.Image) -> Image.Image:
    """Return an RGBA image with its colours under alpha 0 replaced by visible ones around them.

    The image itself is returned if no pixel has alpha 0.
    """
    alpha = image.getchannel("A")
    if alpha.getextrema()[0] > 0:  # type: ignore[operator]  # one band has one pair
        return image
    small = image.convert("RGBa").reduce(max(1, max(image.size) // _SIDE))
    values = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None]
    spread = _spread(values.float() / 255)[0].permute(1, 2, 0).mul(255).round().byte()
    fill = Image.fromarray(spread.contiguous().numpy())
    fill = fill.resize(image.size, Image.Resampling.BILINEAR)
    fill.putalpha(0)
    filled = image.copy()  # the image may belong to the caller
    filled.paste(fill, mask=alpha.point([255] + [0] * 255))
    return filled


def _spread(image: Float[Tensor, "1 4 h w"]) -> Float[Tensor, "1 3 h w"]:
    """Return colours that fill the transparent parts of an image.

    The image is laid on a filled copy of half its size, and that copy on one of a quarter, and so
    on.

    Args:
        image: colours multiplied by alpha, and alpha as the fourth channel, in [0, 1].

    Returns:
        RGB in [0, 1], without alpha; grey if the image is all transparent.
    """
    colors, alpha = image[:, :3], image[:, 3:]
    if min(alpha.min(), 1) == 1 or image[0, 0].numel() == 1:
        return (colors / alpha).clamp(0, 1) if alpha.min() > 0 else torch.full_like(colors, 0.5)
    coarse = _spread(avg_pool2d(image, 2, ceil_mode=True, count_include_pad=False))
    return colors + (1 - alpha) * interpolate(coarse, size=image.shape[-2:], mode="bilinear")


def resize_image(
    image: Image.Image,
    size: tuple[int, int],
    filter: Image.Resampling,
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """Return a resized image, as `image.resize` does, with colours weighted by alpha.

    Args:
        image: RGB, or RGBA without hidden colours (see `fill_hidden`).
        size: width and height of the result, in pixels.
        filter: Pillow's resampling filter.
        box: the part to scale: left, top, right, bottom; None: the whole image.
    """
    if size == image.size and box is None:
        return image
    if image.mode != "RGBA":
        return image.resize(size, filter, box)
    weighed = image.resize(size, filter, box)  # Pillow weights colours by alpha for RGBA
    alpha = weighed.getchannel("A")
    plain = image.convert("RGB").resize(size, filter, box)
    plain.paste(weighed.convert("RGB"), mask=alpha.point([0] * _LEAST + [255] * (256 - _LEAST)))
    plain.putalpha(alpha)
    return plain


def resize_tensor(
    pixels: Float[Tensor, "1 3 _ _"],
    alpha: Float[Tensor, "1 1 _ _"],
    size: Sequence[int],
    mode: str = "bicubic",
) -> tuple[Float[Tensor, "1 3 h w"], Float[Tensor, "1 1 h w"]]:
    """Return pixels and alpha, both in [0, 1], resized with colours weighted by alpha.

    Args:
        pixels: RGB in [0, 1], without hidden colours.
        alpha: in [0, 1].
        size: height and width of the result, in pixels.
        mode: interpolation, `bilinear` or `bicubic`, with antialiasing.
    """
    both = interpolate(
        torch.cat([pixels * alpha, alpha, pixels], 1), size=list(size), mode=mode, antialias=True
    )
    weighed, alpha, plain = both.split([3, 1, 3], dim=1)
    least = (_LEAST - 0.5) / 255
    return (
        torch.where(alpha < least, plain, weighed / alpha.clamp(min=least)).clamp(0, 1),
        alpha.clamp(0, 1),
    )
