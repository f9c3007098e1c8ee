"""Pictures as frames, for the clips that are made of pictures."""

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from impasto.images import Picture, to_pil


def shows_through(image: Image.Image) -> bool:
    """Whether some pixel of an image is not opaque. WebP has alpha also where none is needed."""
    if not image.has_transparency_data:
        return False
    least: Any = image.convert("RGBA").getchannel("A").getextrema()[0]
    return bool(least < 255)


def levels(picture: Picture, transparent: bool) -> np.ndarray:
    """Return a picture as H×W×3 levels of sRGB, or H×W×4 if the clip is transparent."""
    image = to_pil(replace(picture, icc_profile=None))
    return np.array(image.convert("RGBA" if transparent else "RGB"))
