"""Write pictures, and refuse before they are made what cannot be written."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image

from impasto.choices import WRITABLE
from impasto.images.errors import explained, refusal
from impasto.images.picture import Picture, on_white, to_pil
from impasto.images.reading import SOFTWARE
from impasto.writing import REASONS, check_room, new_file

_QUALITY: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
}
# Longest side in pixels. JPEG's own limit is 65535, libjpeg's is 65500.
_LONGEST = {"JPEG": 65500, "WEBP": 16383}
_LEAST = 1 / 10  # least size on disk of a compressed picture, relative to its bytes in memory


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


def save(image: Image.Image, kind: str, file: BinaryIO) -> None:
    """Write an image into an open file, with the profile that is in its `.info`.

    EXIF's Software names impasto, by which `made_here` knows the file. The format `kind` must be
    able to hold the image's mode.
    """
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SOFTWARE
    profile = image.info.get("icc_profile")
    image.save(file, kind, icc_profile=profile, exif=exif, **_QUALITY.get(kind, {}))


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
        raise refusal(
            path, f"suffix '{path.suffix}' cannot be written: choose one of {', '.join(WRITABLE)}"
        )
    if max(size) > _LONGEST.get(kind, max(size)):
        raise refusal(
            path,
            f"{size[0]}×{size[1]} pixels, {kind} holds {_LONGEST[kind]} a side: use .png or .tif",
        )
    if kind == "TIFF" and 4 * size[0] * size[1] >= 2**32:
        raise refusal(path, f"{size[0]}×{size[1]} pixels, a TIFF holds 4 GB: use .png")
    if not overwrite and os.path.lexists(path):
        raise refusal(path, REASONS[errno.EEXIST])
    check_room(path, round(3 * size[0] * size[1] * (1 if kind == "TIFF" else _LEAST)))
    return kind
