"""HEIC, the photos of many phones: Pillow reads them where the package pillow-heif is installed."""

HINT = "HEIC is read where pillow-heif is installed: pip install pillow-heif, or convert the photo to JPEG"

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}


def is_heif(data: bytes) -> bool:
    """Whether a file begins as one of HEVC pictures does (ISO/IEC 23008-12); AVIF, which is built alike, does not."""
    if data[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(data[:4]), 1024)
    return any(data[place : place + 4] in _BRANDS for place in range(8, length, 4))


def register() -> bool:
    """Makes Pillow open the format HEIF; False where pillow-heif is not installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True
