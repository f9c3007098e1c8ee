"""PyAV, which is FFmpeg for Python. It is an extra, and imported only when a clip needs it."""

from types import ModuleType


def library() -> ModuleType:
    """Return PyAV.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ValueError("clips need PyAV: pip install 'impasto[video]'") from error
    return av
