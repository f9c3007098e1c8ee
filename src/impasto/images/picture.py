"""A picture in memory, and as a Pillow image."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

import impasto.images.colors as colors
import impasto.images.transparency as transparency
from impasto.images.scaling import resize, resized_shape


@dataclass(frozen=True)
class Picture:
    """A picture with what belongs to it.

    A picture from a file has no hidden colours: under alpha 0, the pixels take on the visible
    colours around them; see `transparency`.

    Attributes:
        pixels: sRGB in [0, 1].
        alpha: in [0, 1]; None: the picture is opaque.
        icc_profile: RGB profile to write the picture with; None: sRGB.
        note: what the user should know, such as that only the first page was read; may be empty.
    """

    pixels: Float[Tensor, "1 3 h w"]
    alpha: Float[Tensor, "1 1 h w"] | None = None
    icc_profile: bytes | None = None
    note: str = ""

    def resized(self, size: int) -> "Picture":
        """Return the picture with its longer side scaled to `size` pixels.

        It is scaled as by `resize`, with colours weighted by alpha.
        """
        if self.alpha is None:
            return replace(self, pixels=resize(self.pixels, size))
        shape = resized_shape(self.pixels, size)
        if shape == self.pixels.shape[-2:]:
            return self
        pixels, alpha = transparency.resize_tensor(self.pixels, self.alpha, shape)
        return replace(self, pixels=pixels, alpha=alpha)


def to_pil(picture: Picture) -> Image.Image:
    """Return the picture in 8 bits, as RGB, or as RGBA if it has alpha.

    The image is in the colour space of the picture's profile, which is in `.info`.
    """
    parts = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha]
    image = Image.fromarray(
        to_levels(torch.cat(parts, dim=1)[0]).permute(1, 2, 0).contiguous().numpy()
    )
    return in_space(image, picture.icc_profile)


def in_space(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an sRGB image, RGB or RGBA, in the colour space of a profile, and put it in `.info`.

    Without a profile, or with an unreadable one, the pixels stay sRGB.
    """
    image = colors.from_srgb(image, profile)
    if profile:
        image.info["icc_profile"] = profile
    return image


def to_levels(image: Float[Tensor, "*b c h w"]) -> UInt8[Tensor, "*b c h w"]:
    """Return an image in [0, 1] as 8-bit levels on the CPU, rounded to the nearest."""
    return image.detach().float().mul(255).round().clamp(0, 255).to("cpu", torch.uint8)


def on_white(image: Image.Image) -> Image.Image:
    """Return an RGB or RGBA image as RGB, laid on white."""
    if image.mode == "RGB":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    white.info = image.info
    return white
