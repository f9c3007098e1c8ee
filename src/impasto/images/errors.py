"""Errors about pictures: one line, whatever went wrong."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from impasto.spelling import not_there
from impasto.writing import REASONS, FileError, one_line

# Without this list, Pillow would try every format it knows, and start Ghostscript for EPS.
READABLE = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
_REASONS = {**REASONS, errno.EISDIR: "is a folder: give the name of an image file"}
_DAMAGED = "damaged, get the file again"


class ImageError(ValueError):
    """An image cannot be read or written. The message is one line, "<path>: <reason>"."""


def refusal(name: object, reason: str) -> ImageError:
    """Return an error for a file, "<path>: <reason>"."""
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
        raise refusal(
            name, f"no image that can be read ({', '.join(READABLE)}), or damaged"
        ) from None
    except Image.DecompressionBombError:
        bomb = (
            f"more than {limit or Image.MAX_IMAGE_PIXELS:,} pixels, "
            "refused as a decompression bomb: scale it down"
        )
        raise refusal(name, bomb) from None
    except FileNotFoundError as error:
        raise ImageError(" ".join(not_there(str(name)).splitlines())) from error
    except Exception as error:  # damaged files make decoders raise almost anything
        known = _REASONS.get(getattr(error, "errno", None) or 0) or getattr(error, "strerror", None)
        raise refusal(
            name, known or f"{otherwise} ({str(error) or type(error).__name__})"
        ) from error
