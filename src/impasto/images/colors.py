"""Convert pictures from their colour spaces to sRGB, and back.

A colour space is an ICC profile. If a file names its space in another way, a profile is made from
PNG's cICP or gAMA and cHRM, AVIF's and HEIF's nclx, TIFF's primaries, or EXIF's mark of Adobe RGB.
Little CMS converts in 8 bits, with its default intent. Colours outside sRGB are clipped.
"""

import io
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageCms

from impasto.images.cicp import (
    D50,
    D65,
    GAMMAS,
    HDR_WHITE,
    HLG,
    LIKE_SRGB,
    PQ,
    PRIMARIES,
    linear_light,
    xyz_matrix,
)

_ADOBE_RGB = (*D65, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060)
_STEEPEST = 32767  # largest exponent in a profile, which has 16 bits for its integer part

# A space counts as sRGB if no colour differs by more than this, in levels of 255.
_SAME = 1
# Largest errors, in levels, of sRGB greys and of sRGB colours after conversion to a space in 8 bits
# and back. A space with larger errors is not written. ProPhoto, the widest space in use, has 1 and
# 15. Linear light has 6 for greys. A space that lacks colours of sRGB has 70 or more.
_HELD = (3, 24)
# Pillow's modes that fit each kind of profile.
_OF_MODES = {
    b"RGB ": ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "YCbCr"),
    b"GRAY": ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N", "F"),
    b"CMYK": ("CMYK",),
}


def profile_of(image: Image.Image) -> bytes | None:
    """Return the profile of an opened image.

    Call it before the pixels are loaded: cICP and nclx are read from the open file. If a PNG names
    its space in several ways, the first of cICP, ICC profile, sRGB, gAMA with cHRM counts (PNG,
    third edition, W3C).

    Returns:
        An ICC profile. None if the file names no space, or sRGB without a profile.
    """
    codes = _png_codes(image) if image.format == "PNG" else None
    if codes and (made := _of_codes(*codes)):
        return made
    profile = image.info.get("icc_profile") or b""
    if image.mode in _OF_MODES.get(profile[16:20], ()) and _readable(profile):
        return profile
    if image.format in ("AVIF", "HEIF"):
        return _of_codes(*codes) if not profile and (codes := _nclx(image)) else None
    tags: Any = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    if chromaticities := tags.get(ExifTags.Base.PrimaryChromaticities):
        return _of_tiff(tags, chromaticities)
    if image.mode in ("RGB", "RGBA") and _is_adobe_rgb(image):
        return matrix_profile(_ADOBE_RGB, _gamma(563 / 256))
    if "gamma" not in image.info or "srgb" in image.info:
        return None
    # Only PNG sets these. They survive `convert`, which forgets the format.
    return _of_gamma(image.info["gamma"], image.info.get("chromaticity"))


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image in sRGB.

    Args:
        image: in mode L, LA, RGB, RGBA or CMYK.
        profile: the image's profile; None: it is sRGB already.

    Returns:
        RGB or RGBA; the image itself if the profile is None or makes no difference.
    """
    if profile is None or is_srgb(profile):
        return image
    if profile[16:20] == b"GRAY":
        colors = _converted(image.getchannel(0), profile)
        if image.mode == "LA":
            colors.putalpha(image.getchannel("A"))
        return colors
    return _converted(image, profile)


def from_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an sRGB image, RGB or RGBA, in the space of an RGB profile.

    It is returned unchanged if the profile is None or makes no difference (see `is_srgb`).
    """
    return image if profile is None or is_srgb(profile) else _converted(image, profile, back=True)


def grey_curve(profile: bytes) -> np.ndarray:
    """Return the sRGB levels, in [0, 1], of the 256 grey levels in a profile of grey or RGB."""
    ramp = Image.frombytes("L", (256, 1), bytes(range(256)))
    ramp = ramp if profile[16:20] == b"GRAY" else ramp.convert("RGB")
    return np.asarray(to_srgb(ramp, profile).convert("L"), np.float32)[0] / 255


@lru_cache(16)
def is_srgb(profile: bytes) -> bool:
    """Whether a profile makes no difference, because it is sRGB or unreadable."""
    if not _readable(profile):
        return True
    if profile[16:20] != b"RGB ":
        return False
    return _largest_difference(_converted(_lattice(), profile), _lattice()) <= _SAME


@lru_cache(16)
def holds(profile: bytes) -> bool:
    """Whether an sRGB picture can be written in that space with little loss.

    The profile must be RGB, of a screen or a working space. Linear light in 8 bits, for example,
    has too few dark levels.
    """
    if profile[16:20] != b"RGB " or not _readable(profile):
        return False
    if is_srgb(profile) or profile[12:16] not in (b"mntr", b"spac"):
        return is_srgb(profile)
    try:
        again = _converted(_converted(_lattice(), profile, back=True), profile)
    except ImageCms.PyCMSError:  # the profile converts from its space, but not to it
        return False
    greys = (again.width - 256, 0, again.width, 1)
    return (
        _largest_difference(again.crop(greys), _lattice().crop(greys)) <= _HELD[0]
        and _largest_difference(again, _lattice()) <= _HELD[1]
    )


@lru_cache(1)
def _lattice() -> Image.Image:
    """Return an image, one pixel high, of 729 colours all over sRGB, then all 256 greys."""
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    greys = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    return Image.fromarray(np.concatenate([colors, greys])[None])


def _largest_difference(one: Image.Image, other: Image.Image) -> int:
    """Return the largest difference between two images, in levels."""
    extrema: Any = ImageChops.difference(one, other).getextrema()
    return max(high for _, high in extrema)


def _converted(image: Image.Image, profile: bytes, back: bool = False) -> Image.Image:
    """Return the image converted from the profile to sRGB, or from sRGB to the profile (`back`)."""
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.applyTransform(image, _transform(profile, image.mode, mode, back))
    assert converted is not None  # it is None only for a conversion in place
    converted.info.pop("icc_profile", None)
    return converted


@lru_cache(32)
def _transform(profile: bytes, mode: str, target: str, back: bool) -> ImageCms.ImageCmsTransform:
    own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
    source, destination = (srgb, own) if back else (own, srgb)
    # Threads share the transform. Little CMS's cache of the last colour is not safe for that.
    return ImageCms.buildTransform(source, destination, mode, target, flags=ImageCms.Flags.NOCACHE)


@lru_cache(16)
def _readable(profile: bytes) -> bool:
    """Whether Little CMS can convert from this profile to sRGB."""
    mode = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(profile[16:20])
    try:
        return mode is not None and _transform(profile, mode, "RGB", False) is not None
    except (ImageCms.PyCMSError, OSError):
        return False


def _png_codes(image: Any) -> tuple[int, int] | None:
    """Return primaries and transfer function from a PNG's cICP chunk, which Pillow ignores."""
    file = image.fp
    if file is None or file.closed:
        return None
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, name = struct.unpack(">L4s", head)
            if name == b"cICP":
                primaries, transfer, matrix, full = struct.unpack(">4B", file.read(4))
                return (primaries, transfer) if (matrix, full) == (0, 1) else None
            if name == b"IDAT":
                return None
            file.seek(length + 4, io.SEEK_CUR)
        return None
    finally:
        file.seek(place)


def _nclx(image: Any) -> tuple[int, int] | None:
    """Return primaries and transfer function of an AVIF or HEIF file.

    For AVIF, they are read from the box `colr`, which Pillow ignores.
    """
    if told := image.info.get("nclx_profile"):  # pillow-heif has read them
        return int(told["color_primaries"]), int(told["transfer_characteristics"])
    if image.format != "AVIF" or image.fp is None or image.fp.closed:
        return None
    place = image.fp.tell()
    image.fp.seek(0)
    head = image.fp.read(65536)
    image.fp.seek(place)
    at = head.find(b"colrnclx")
    return struct.unpack_from(">2H", head, at + 8) if 0 <= at <= len(head) - 12 else None


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Whether the EXIF marks Adobe RGB.

    Cameras do so with an uncalibrated colour space and the interoperability index R03 (DCF 2.0).
    """
    # Pillow would decode all pixels of such a PNG, to look for EXIF after them.
    if image.format == "PNG" and "exif" not in image.info:
        return False
    try:
        exif = image.getexif()
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        return space == 0xFFFF and str(exif.get_ifd(ExifTags.IFD.Interop).get(1, "")).startswith(
            "R03"
        )
    except Exception:  # damaged EXIF can raise anything
        return False


def _of_tiff(tags: Any, chromaticities: Sequence[Any]) -> bytes | None:
    """Return a profile from TIFF's primaries, or None if they are invalid (TIFF 6.0, section 20).

    TIFF's transfer function has tables for red, green and blue. The first is used for all three.
    """
    white = tags.get(ExifTags.Base.WhitePoint, D65)
    places = [float(value) for value in (*white, *chromaticities)]
    table = np.array(tags.get(ExifTags.Base.TransferFunction, ()))[:256]
    curve = _table(table / 65535) if len(table) == 256 else _gamma(2.2)
    return _made(places, curve) if len(places) == 8 else None


@lru_cache(16)
def _of_codes(primaries: int, transfer: int) -> bytes | None:
    """Return a profile for codes of H.273; None for sRGB, and for unknown codes."""
    places = PRIMARIES.get(primaries)
    if places is None or (primaries == 1 and transfer in LIKE_SRGB):
        return None
    # HDR profiles get the class of a camera, so that `holds` refuses them: we write no HDR.
    if transfer in (PQ, HLG):
        return matrix_profile(places, _table(_clipped(np.linspace(0, 1, 4096), transfer)), b"scnr")
    if transfer in LIKE_SRGB:
        return matrix_profile(places, _SRGB_CURVE)
    return matrix_profile(places, _gamma(GAMMAS[transfer])) if transfer in GAMMAS else None


def _clipped(signal: np.ndarray, transfer: int) -> np.ndarray:
    """Return the light of PQ or HLG relative to HDR's reference white; brighter light is clipped.

    HLG's is that of a screen of 1000 cd/m².
    """
    light = linear_light(signal, transfer)
    return np.minimum((1000 * light**1.2 if transfer == HLG else light) / HDR_WHITE, 1)


@lru_cache(16)
def _of_gamma(gamma: float | None, chromaticity: tuple[float, ...] | None) -> bytes | None:
    """Return a profile from PNG's gAMA and cHRM.

    None if they are invalid, or if they have the values that PNG's second edition gives for sRGB.
    """
    places = tuple(chromaticity or PRIMARIES[1])
    ordinary = max(abs(a - b) for a, b in zip(places, PRIMARIES[1], strict=False)) < 0.002
    if (
        not gamma
        or 1 / gamma > _STEEPEST
        or len(places) != 8
        or (ordinary and abs(gamma - 0.45455) < 0.001)
    ):
        return None
    return _made(places, _gamma(1 / gamma))


def _made(chromaticities: Sequence[float], curve: bytes) -> bytes | None:
    """Return a profile for what a file says, or None if that is no valid colour space."""
    try:
        with np.errstate(all="ignore"):
            made = matrix_profile(chromaticities, curve)
    except (ValueError, ArithmeticError, struct.error):
        return None
    return made if _readable(made) else None


def _gamma(exponent: float) -> bytes:
    """Return the profile tag of a transfer function v^exponent."""
    return struct.pack(">4s4xHxxi", b"para", 0, round(exponent * 65536))


def _table(values: np.ndarray) -> bytes:
    """Return the profile tag of a transfer function given by its values, in [0, 1]."""
    return (
        struct.pack(">4s4xL", b"curv", len(values))
        + (values * 65535).round().astype(">u2").tobytes()
    )


# sRGB's transfer function (IEC 61966-2-1): ((v + 0.055) / 1.055)^2.4, and v / 12.92 below 0.04045.
_SRGB_CURVE = struct.pack(
    ">4s4xHxx5i",
    b"para",
    3,
    *(round(x * 65536) for x in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)),
)


def matrix_profile(chromaticities: Sequence[float], curve: bytes, kind: bytes = b"mntr") -> bytes:
    """Return an ICC profile, version 4.3, of an RGB space.

    Args:
        chromaticities: x and y of white, red, green and blue.
        curve: tag of the transfer function, which all three channels share.
        kind: class of device: `mntr` for a screen, `scnr` for a camera or scanner.
    """
    primaries = xyz_matrix(chromaticities)
    tags = {b"desc": _text("RGB as the file said"), b"cprt": _text("CC0"), b"wtpt": _xyz(D50)}
    tags |= {
        name: _xyz(column)
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries.T, strict=True)
    }
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve + bytes(-len(curve) % 4))
    table, body = struct.pack(">L", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sLL", name, 128 + 4 + 12 * len(tags) + len(body), len(data))
        body += data
    head = struct.pack(
        ">L4xL4s4s4s12x4s",
        128 + len(table) + len(body),
        0x04300000,
        kind,
        b"RGB ",
        b"XYZ ",
        b"acsp",
    )
    head = head.ljust(68, b"\0") + _xyz(D50)[8:]
    return head.ljust(128, b"\0") + table + body


def _xyz(values: np.ndarray) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", *(round(value * 65536) for value in values))


def _text(text: str) -> bytes:
    words = text.encode("utf-16-be")
    data = struct.pack(">4s4xLL4sLL", b"mluc", 1, 12, b"enUS", len(words), 28) + words
    return data + bytes(-len(data) % 4)
