"""Read and write pictures.

Inside impasto, an image is sRGB float32 in [0, 1], B×3×H×W. This package converts files and Pillow
images to that form and back. Alpha, and the colour profile to write a picture with, are kept beside
the pixels in a `Picture`. Every refusal is an `ImageError` of one line.
"""

from impasto.images.errors import ImageError, explained
from impasto.images.picture import Picture, in_space, on_white, to_levels, to_pil
from impasto.images.reading import (
    channels,
    decoded,
    deep_values,
    from_pil,
    made_here,
    open_image,
    read_image,
    tensors,
)
from impasto.images.recoloring import keep_colors, match_colors
from impasto.images.samples import DEEP
from impasto.images.saving import encode, save, writable, write_image
from impasto.images.scaling import resize, scaled

__all__ = [
    "DEEP", "ImageError", "Picture",
    "channels", "decoded", "deep_values", "encode", "explained", "from_pil", "in_space",
    "keep_colors", "made_here", "match_colors", "on_white", "open_image", "read_image",
    "resize", "save", "scaled", "tensors", "to_levels", "to_pil", "writable", "write_image",
]  # fmt: skip
