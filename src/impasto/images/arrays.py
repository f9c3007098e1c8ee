"""Pictures as arrays H×W×C, the form in which clips and OpenCV hold their frames."""

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def from_array(array: Shaped[np.ndarray, "h w c"]) -> Float[Tensor, "1 c h w"]:
    """Return a picture as a tensor in [0, 1].

    Args:
        array: 8-bit levels, or values in [0, 1]; it is copied.
    """
    values = torch.from_numpy(np.array(array)).permute(2, 0, 1)[None]
    return values.float() / 255 if values.dtype == torch.uint8 else values


def to_array(image: Shaped[Tensor, "1 c h w"]) -> Shaped[np.ndarray, "h w c"]:
    """Return a picture as an array of the same values; levels stay levels."""
    return np.ascontiguousarray(image[0].permute(1, 2, 0).cpu().numpy())
