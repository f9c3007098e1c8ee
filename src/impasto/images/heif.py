"""HEIC, the photo format of many phones. Pillow reads it if pillow-heif is installed."""

HINT = (
    "HEIC is read where pillow-heif is installed: pip install pillow-heif, "
    "or convert the photo to JPEG"
)

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


def is_heif(data: bytes) -> bool:
    """Whether a file holds HEVC pictures, by its first bytes (ISO/IEC 23008-12).

    AVIF has the same structure, but other brands.
    """
    if data[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(data[:4]), 1024)
    return any(data[place : place + 4] in _BRANDS for place in range(8, length, 4))


def register() -> bool:
    """Make Pillow read HEIF. Return whether pillow-heif, which does it, is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True
