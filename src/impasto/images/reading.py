"""Read pictures: upright, in sRGB, and without colours that alpha hides."""

import io
import math
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped
from PIL import ExifTags, Image
from torch import Tensor

import impasto.images.colors as colors
import impasto.images.heif as heif
import impasto.images.samples as samples
import impasto.images.transparency as transparency
from impasto.images.errors import READABLE, explained, refusal
from impasto.images.picture import Picture, to_pil
from impasto.images.samples import DEEP

# How to turn a picture upright, by EXIF's orientation. ImageOps.exif_transpose would rewrite the
# EXIF, and fail if it is damaged.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SOFTWARE = "impasto"  # EXIF's Software in pictures that this package wrote
_GREY = "impasto_profile"  # key in an image's `.info`: the colour profile of its deep greys

# `_quiet` changes warning filters and Pillow's pixel limit, which belong to the whole process. So
# only one thread may do it at a time, and no fork may happen meanwhile.
_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release
    )


def read_image(path: str | Path, data: bytes | None = None) -> Picture:
    """Return the picture in a file, upright and in sRGB.

    Args:
        path: the file.
        data: its bytes, if they have been read already.

    Raises:
        ImageError: the file is missing, damaged, no image, or too large.
    """
    image = open_image(path, data)
    with explained(path):
        return _picture(image)


def open_image(
    path: str | Path, data: bytes | None = None, limit: int | None = None
) -> Image.Image:
    """Open a picture without decoding its pixels; `decoded` does that.

    Args:
        path: the file.
        data: its bytes, if they have been read already.
        limit: most pixels to accept; None: Pillow's limit, 89 million.

    Returns:
        A Pillow image, of which format and size are known.

    Raises:
        ImageError: as in `read_image`.
    """
    with explained(path, limit=limit):
        if not (data := Path(path).read_bytes() if data is None else data):
            raise refusal(path, "the file is empty, get it again")
        if (of_phones := heif.is_heif(data)) and not heif.register():
            raise refusal(path, heif.HINT)
        with _quiet(limit):
            image = Image.open(io.BytesIO(data), formats=("HEIF",) if of_phones else READABLE)
        if image.width * image.height > (limit or Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError  # up to twice the limit, Pillow itself only warns
        return image


def made_here(path: str | Path) -> bool:
    """Whether this package wrote the file, as its EXIF tells; its pixels are not read."""
    try:
        with _quiet(sys.maxsize), Image.open(path, formats=READABLE) as image:
            # Not `image.getexif`: that of PNG decodes the pixels, to look behind them.
            return Image.Image.getexif(image).get(ExifTags.Base.Software) == SOFTWARE
    except Exception:  # an unreadable file is reported where it is read; EXIF can raise anything
        return False


def from_pil(image: Image.Image) -> Picture:
    """Return the picture in an open Pillow image, as `read_image` does.

    Of an animation, it is the current frame.
    """
    with explained(getattr(image, "filename", "") or "image", "cannot be converted"):
        return _picture(image)


def _picture(image: Image.Image) -> Picture:
    image, profile, note = decoded(image)
    return Picture(*tensors(image), profile, note)


def decoded(image: Image.Image) -> tuple[Image.Image, bytes | None, str]:
    """Decode an open image.

    Returns:
        The image, upright; the profile to write it with, if any; and a note for the user. The
        image is sRGB, in mode RGB or in RGBA without hidden colours. Greyscale of more than 8 bits
        stays in a mode of `DEEP`; `tensors` converts it.
    """
    note = _note(image)
    with _quiet():
        profile = colors.profile_of(image)
    # Only TIFF parses metadata while decoding. Other formats decode without the lock of `_quiet`.
    with _quiet() if image.format == "TIFF" else nullcontext():
        loaded = samples.load(image)
    image = _upright(loaded, image)
    if image.mode not in DEEP:
        image = _eight_bit(image, profile)
    elif profile is not None:
        image = image.copy()  # it may be the caller's
        image.info[_GREY] = profile
    return image, profile if profile is not None and colors.holds(profile) else None, note


@contextmanager
def _quiet(limit: int | None = None) -> Iterator[None]:
    """Set Pillow's pixel limit to `limit`, and silence its warnings about metadata.

    These warnings do not matter if the pixels are fine. None keeps Pillow's limit.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, limit or Image.MAX_IMAGE_PIXELS
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _note(image: Image.Image) -> str:
    """Return a note that other frames or pages are left out, or "" if there are none.

    The further pictures in an MPO (a JPEG of some phones) do not count.
    """
    with _quiet():
        frames = getattr(image, "n_frames", 1)
    if frames == 1 or image.format == "MPO":
        return ""
    kind = f"{frames} pages" if image.format == "TIFF" else f"animated, {frames} frames"
    return f"{kind}: {f'number {image.tell() + 1}' if image.tell() else 'the first'} is used"


def _upright(image: Image.Image, file: Image.Image) -> Image.Image:
    """Return the image turned as the EXIF of `file` says."""
    try:
        with _quiet():
            turn = _TURNS.get(file.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF can raise anything; the pixels are still fine
        return image
    return image if turn is None else image.transpose(turn)


def tensors(image: Image.Image, brightest: float | None = None) -> tuple[Tensor, Tensor | None]:
    """Return an image from `decoded` as tensors in [0, 1].

    Args:
        image: the image, or a part of it.
        brightest: for a part of a deep image, the largest value of the whole, which decides white;
            None: the largest value of `image`.

    Returns:
        Pixels 1×3×H×W, and alpha 1×1×H×W or None.
    """
    if image.mode in DEEP:
        return _deep_grey(image, brightest)
    values = channels(image)[None].float() / 255
    return values[:, :3], values[:, 3:] if image.mode == "RGBA" else None


def channels(image: Image.Image) -> Shaped[Tensor, "c h w"]:
    """Return the stored values of an image, C×H×W, in the data type of its mode."""
    values = torch.from_numpy(np.array(image))  # a copy, because the image's own array is read-only
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()


def _eight_bit(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image of a mode not in `DEEP` as sRGB.

    The result is RGB, or RGBA without hidden colours if the image has transparency.
    """
    mode = "RGBA" if image.has_transparency_data else "RGB"
    space = (profile or b"")[16:20]
    if space == b"GRAY":
        image = image.convert("LA" if mode == "RGBA" else "L")
    elif space != b"CMYK":
        image = _as(mode, image)
    image = _as(mode, colors.to_srgb(image, profile))
    return transparency.fill_hidden(image) if mode == "RGBA" else image


def _as(mode: str, image: Image.Image) -> Image.Image:
    """Return the image in that mode; the image itself if it has the mode."""
    return image if image.mode == mode else image.convert(mode)


def deep_values(image: Image.Image) -> Float[Tensor, "1 1 h w"]:
    """Return the values of an image of a mode in `DEEP`. Infinities and NaN become 0."""
    values = channels(image if image.mode == "F" else image.convert("I"))[None].float()
    return values.nan_to_num(0.0, 0.0, 0.0)


def _deep_grey(image: Image.Image, brightest: float | None) -> tuple[Tensor, Tensor | None]:
    """Return pixels and alpha of greyscale with more than 8 bits, as `tensors` does."""
    values = deep_values(image)
    white = samples.white_of(
        float(values.max()) if brightest is None else brightest, image.mode == "F"
    )
    transparent = image.info.get("transparency")  # the value that marks transparent pixels
    grey = (values / white).clamp(0, 1)
    if _GREY in image.info:
        curve = colors.grey_curve(image.info[_GREY])
        grey = torch.from_numpy(
            np.interp(grey.numpy(), np.linspace(0, 1, 256), curve).astype(np.float32)
        )
    pixels = grey.repeat(1, 3, 1, 1)
    if not isinstance(transparent, int):
        return pixels, None
    alpha = (values != transparent).float()
    filled = transparency.fill_hidden(to_pil(Picture(pixels, alpha)))
    return torch.where(alpha == 0, channels(filled)[None, :3] / 255, pixels), alpha
