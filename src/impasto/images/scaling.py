"""Sizes of pictures, and pictures in another size."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from impasto.images.errors import ImageError


def resize(image: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c h2 w2"]:
    """Return images in [0, 1] with their longer side scaled to `size` pixels.

    The scaling is bicubic and antialiased, the result clamped to [0, 1]. For a picture with alpha,
    use `Picture.resized`.
    """
    shape = resized_shape(image, size)
    if shape != image.shape[-2:]:
        image = torch.nn.functional.interpolate(image, size=shape, mode="bicubic", antialias=True)
    return image.clamp(0, 1).contiguous()  # torch would make an image of one pixel channels-last


def resized_shape(image: Tensor, size: int) -> tuple[int, int]:
    """Return height and width of an image after `resize`; raise `ImageError` for no pixels."""
    if size < 1:
        raise ImageError(f"size {size}: must be at least 1 pixel")
    return scaled(image.shape[-2:], size)


def scaled(shape: Sequence[int], size: int) -> tuple[int, int]:
    """Return two sides in the same ratio, the longer one being `size`; each is at least 1."""
    return max(1, round(shape[0] * size / max(shape))), max(1, round(shape[1] * size / max(shape)))
