"""What alpha means for colours: they count by it where pixels are mixed, and not at all where it is 0.

A file may hold anything under alpha 0. Before a network sees the picture, those places take on the visible colours
around them, so what was hidden there changes nothing."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

_SIDE = 512  # of the small picture, at most twice that, in which colours spread
_LEAST = 32  # of 255: below that alpha, 8 bits hold the colours multiplied by it too coarsely


def fill_hidden(image: Image.Image) -> Image.Image:
    """An RGBA image whose colours under alpha 0 are made of the visible ones around them; itself, if it has none."""
    alpha = image.getchannel("A")
    if alpha.getextrema()[0] > 0:  # type: ignore[operator]  # one band has one pair
        return image
    small = image.convert("RGBa").reduce(max(1, max(image.size) // _SIDE))
    values = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None]
    spread = _spread(values.float() / 255)[0].permute(1, 2, 0).mul(255).round().byte()
    fill = Image.fromarray(spread.contiguous().numpy()).resize(image.size, Image.Resampling.BILINEAR)
    fill.putalpha(0)
    filled = image.copy()  # it may be the caller's
    filled.paste(fill, mask=alpha.point([255] + [0] * 255))
    return filled


def _spread(image: Float[Tensor, "1 4 h w"]) -> Float[Tensor, "1 3 h w"]:
    """Colours, multiplied by the alpha that is their fourth channel, laid on the same at half the size, and so on."""
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
    """`image.resize` for RGB and, with colours weighed by alpha, for RGBA without hidden colours (`fill_hidden`)."""
    if size == image.size and box is None:
        return image
    if image.mode != "RGBA":
        return image.resize(size, filter, box)
    weighed = image.resize(size, filter, box)  # of Pillow alone this mode is weighed
    alpha = weighed.getchannel("A")
    plain = image.convert("RGB").resize(size, filter, box)
    plain.paste(weighed.convert("RGB"), mask=alpha.point([0] * _LEAST + [255] * (256 - _LEAST)))
    plain.putalpha(alpha)
    return plain


def resize_tensor(
    pixels: Float[Tensor, "1 3 _ _"], alpha: Float[Tensor, "1 1 _ _"], size: Sequence[int], mode: str = "bicubic"
) -> tuple[Float[Tensor, "1 3 h w"], Float[Tensor, "1 1 h w"]]:
    """The same of pixels and alpha in [0, 1]; antialiased."""
    both = interpolate(torch.cat([pixels * alpha, alpha, pixels], 1), size=list(size), mode=mode, antialias=True)
    weighed, alpha, plain = both.split([3, 1, 3], dim=1)
    least = (_LEAST - 0.5) / 255
    return torch.where(alpha < least, plain, weighed / alpha.clamp(min=least)).clamp(0, 1), alpha.clamp(0, 1)
