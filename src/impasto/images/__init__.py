"""Read and write pictures.

Inside impasto, an image is sRGB float32 in [0, 1], B×3×H×W. This package converts files and Pillow
images to that form and back. Alpha, and the colour profile to write a picture with, are kept beside
the pixels in a `Picture`. Every refusal is an `ImageError` of one line.
"""

import errno
import io
import logging
import math
import os
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from impasto.choices import IMAGE_SUFFIXES, WRITABLE
from impasto.images import colors, heif, samples, transparency
from impasto.images.samples import DEEP
from impasto.spelling import not_there
from impasto.writing import REASONS, FileError, check_room, new_file, one_line

# Kinds of pictures that cannot be read. `named_images` leaves them out, and a warning counts them.
_OTHER_SUFFIXES = (
    ".jxl", ".jp2", ".psd", ".svg", ".tga", ".exr", ".hdr",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef",
)  # fmt: skip

# Without this list, Pillow would try every format it knows, and start Ghostscript for EPS.
_READABLE = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
_QUALITY: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}
# Longest side in pixels. JPEG's own limit is 65535, libjpeg's is 65500.
_LONGEST = {"JPEG": 65500, "WEBP": 16383}
_REASONS = {**REASONS, errno.EISDIR: "is a folder: give the name of an image file"}
_LEAST = 1 / 10  # least size on disk of a compressed picture, relative to its bytes in memory
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
_GREY = "impasto_profile"  # key in an image's `.info`: the colour profile of its deep greys
_DAMAGED = "damaged, get the file again"

# `_quiet` changes warning filters and Pillow's pixel limit, which belong to the whole process. So
# only one thread may do it at a time, and no fork may happen meanwhile.
_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release
    )

_LOG = logging.getLogger("impasto")

Images = Float[Tensor, "b 3 h w"]


class ImageError(ValueError):
    """An image cannot be read or written. The message is one line, "<path>: <reason>"."""


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
        shape = _resized_shape(self.pixels, size)
        if shape == self.pixels.shape[-2:]:
            return self
        pixels, alpha = transparency.resize_tensor(self.pixels, self.alpha, shape)
        return replace(self, pixels=pixels, alpha=alpha)


def named_images(files: Iterable[Path]) -> Iterator[Path]:
    """Yield the files with the suffix of an image; a warning counts pictures of other kinds."""
    left: Counter[str] = Counter()
    for file in files:
        suffix = file.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            yield file
        elif suffix in _OTHER_SUFFIXES:
            left[suffix] += 1
    if left:
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in sorted(left.items()))
        _LOG.warning(
            "left out, as files of these kinds cannot be read: %s; "
            "convert them to JPEG, PNG or TIFF",
            kinds,
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
            raise _error(path, "the file is empty, get it again")
        if (of_phones := heif.is_heif(data)) and not heif.register():
            raise _error(path, heif.HINT)
        with _quiet(limit):
            image = Image.open(io.BytesIO(data), formats=("HEIF",) if of_phones else _READABLE)
        if image.width * image.height > (limit or Image.MAX_IMAGE_PIXELS or math.inf):
            raise Image.DecompressionBombError  # up to twice the limit, Pillow itself only warns
        return image


def from_pil(image: Image.Image) -> Picture:
    """Return the picture in an open Pillow image, as `read_image` does.

    Of an animation, it is the current frame.
    """
    with explained(getattr(image, "filename", "") or "image", "cannot be converted"):
        return _picture(image)


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


def write_image(path: str | Path, picture: Picture, *, overwrite: bool = False) -> None:
    """Write a picture, whole or not at all; its folder is made if missing.

    Args:
        path: the file to write; its suffix decides the format.
        picture: the picture; see `encode` for its alpha.
        overwrite: replace an existing file.

    Raises:
        ImageError: unknown suffix, existing file (unless `overwrite`), too many pixels, or the file
            cannot be written there.
    """
    with explained(path, "cannot be written"):
        kind = writable(Path(path), picture.pixels.shape[:-3:-1], overwrite)
        with new_file(Path(path), overwrite) as file:
            encode(picture, kind, file)


def encode(picture: Picture, kind: str, file: BinaryIO) -> None:
    """Write a picture into an open file, in the format that `writable` returned.

    JPEG has no alpha, so a transparent picture is laid on white.
    """
    image = to_pil(picture)
    save(on_white(image) if kind == "JPEG" else image, kind, file)


def on_white(image: Image.Image) -> Image.Image:
    """Return an RGB or RGBA image as RGB, laid on white."""
    if image.mode == "RGB":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    white.info = image.info
    return white


def save(image: Image.Image, kind: str, file: BinaryIO) -> None:
    """Write an image into an open file, with the profile that is in its `.info`.

    The format `kind` must be able to hold the image's mode.
    """
    image.save(file, kind, icc_profile=image.info.get("icc_profile"), **_QUALITY.get(kind, {}))


def resize(image: Float[Tensor, "b c h w"], size: int) -> Float[Tensor, "b c h2 w2"]:
    """Return images in [0, 1] with their longer side scaled to `size` pixels.

    The scaling is bicubic and antialiased, the result clamped to [0, 1]. For a picture with alpha,
    use `Picture.resized`.
    """
    shape = _resized_shape(image, size)
    if shape != image.shape[-2:]:
        image = torch.nn.functional.interpolate(image, size=shape, mode="bicubic", antialias=True)
    return image.clamp(0, 1).contiguous()  # torch would make an image of one pixel channels-last


def _resized_shape(image: Tensor, size: int) -> tuple[int, int]:
    if size < 1:
        raise ImageError(f"size {size}: must be at least 1 pixel")
    return scaled(image.shape[-2:], size)


def scaled(shape: Sequence[int], size: int) -> tuple[int, int]:
    """Return two sides in the same ratio, the longer one being `size`; each is at least 1."""
    return max(1, round(shape[0] * size / max(shape))), max(1, round(shape[1] * size / max(shape)))


def keep_colors(stylized: Images, content: Images) -> Images:
    """Return images with the luminance of `stylized` and the colour of `content`, all in [0, 1].

    This is the luminance-only transfer of Gatys et al. 2016. Replacing Y in YIQ, and keeping I and
    Q, adds the same difference to R, G and B. The difference is limited so that all three stay in
    [0, 1].
    """
    luminance = stylized.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    difference = ((stylized - content) * luminance).sum(dim=1, keepdim=True)
    return content + difference.clamp(
        -content.amin(1, keepdim=True), 1 - content.amax(1, keepdim=True)
    )


def match_colors(
    image: Float[Tensor, "1 3 _ _"], like: Float[Tensor, "1 3 _ _"]
) -> Float[Tensor, "1 3 _ _"]:
    """Return `image` with the mean and covariance of the colours of `like`, clipped to [0, 1].

    This is the histogram matching of Gatys et al. 2016.
    """
    colors, wanted = image[0].flatten(1), like[0].flatten(1)
    change = torch.eye(3).to(colors)
    for part, power in ((colors, -0.5), (wanted, 0.5)):
        values, vectors = torch.linalg.eigh(
            torch.cov(part, correction=min(1, part.shape[1] - 1)) + 1e-5 * torch.eye(3).to(part)
        )
        change = vectors * values.pow(power) @ vectors.T @ change
    matched = change @ (colors - colors.mean(1, keepdim=True)) + wanted.mean(1, keepdim=True)
    return matched.reshape(image.shape).clamp(0, 1)


def _error(name: object, reason: str) -> ImageError:
    return ImageError(one_line(name, reason))


@contextmanager
def explained(name: object, otherwise: str = _DAMAGED, limit: int | None = None) -> Iterator[None]:
    """Turn any error about a file into an `ImageError` of one line.

    Args:
        name: the file's name, with which the message begins.
        otherwise: reason to give for an error of no known kind.
        limit: most pixels that were accepted; None: Pillow's limit.
    """
    try:
        yield
    except ImageError:
        raise
    except FileError as error:
        raise ImageError(str(error)) from error
    except UnidentifiedImageError:
        raise _error(
            name, f"no image that can be read ({', '.join(_READABLE)}), or damaged"
        ) from None
    except Image.DecompressionBombError:
        bomb = (
            f"more than {limit or Image.MAX_IMAGE_PIXELS:,} pixels, "
            "refused as a decompression bomb: scale it down"
        )
        raise _error(name, bomb) from None
    except FileNotFoundError as error:
        raise ImageError(" ".join(not_there(str(name)).splitlines())) from error
    except Exception as error:  # damaged files make decoders raise almost anything
        known = _REASONS.get(getattr(error, "errno", None) or 0) or getattr(error, "strerror", None)
        raise _error(
            name, known or f"{otherwise} ({str(error) or type(error).__name__})"
        ) from error


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


def writable(path: Path, size: Sequence[int], overwrite: bool) -> str:
    """Return Pillow's name of the format for a file, after all checks that need no pixels.

    Args:
        path: the file to write; its suffix decides the format.
        size: width and height in pixels.
        overwrite: accept an existing file.

    Raises:
        ImageError: unknown suffix, too many pixels for the format, or an existing file (unless
            `overwrite`).
        FileError: the disk has too little room.
    """
    kind = WRITABLE.get(path.suffix.lower())
    if kind is None:
        raise _error(
            path, f"suffix '{path.suffix}' cannot be written: choose one of {', '.join(WRITABLE)}"
        )
    if max(size) > _LONGEST.get(kind, max(size)):
        raise _error(
            path,
            f"{size[0]}×{size[1]} pixels, {kind} holds {_LONGEST[kind]} a side: use .png or .tif",
        )
    if kind == "TIFF" and 4 * size[0] * size[1] >= 2**32:
        raise _error(path, f"{size[0]}×{size[1]} pixels, a TIFF holds 4 GB: use .png")
    if not overwrite and os.path.lexists(path):
        raise _error(path, _REASONS[errno.EEXIST])
    check_room(path, round(3 * size[0] * size[1] * (1 if kind == "TIFF" else _LEAST)))
    return kind
