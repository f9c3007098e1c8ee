"""Sampling of pictures between their pixels, for backward flow, in torch and with gradients.

Backward flow B×2×H×W is in pixels, right then down: pixel p of the second frame shows what is at
p + flow(p) in the first.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def positions(flow: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 2 h w"]:
    """Return the place in the first frame of each pixel of the second, right then down."""
    rows, columns = (torch.arange(side, device=flow.device) for side in flow.shape[-2:])
    return flow + torch.stack(torch.meshgrid(columns, rows, indexing="xy")).to(flow)


def sampled(
    picture: Float[Tensor, "b c _ _"],
    places: Float[Tensor, "_ 2 h w"],
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Float[Tensor, "b c h w"]:
    """Return a picture's values at places in pixels, right then down; it is reflected beyond.

    Places of the shape 1×2×H×W are those of every picture of the batch.
    """
    last = torch.tensor(picture.shape[:1:-1], device=places.device) - 1  # width, height
    grid = 2 * places.movedim(1, -1) / last.clamp(min=1) - 1
    grid = grid.to(picture).expand(len(picture), -1, -1, -1)
    return F.grid_sample(picture, grid, mode, "reflection", align_corners=True)


def warped(
    picture: Float[Tensor, "b c h w"], flow: Float[Tensor, "_ 2 h w"]
) -> Float[Tensor, "b c h w"]:
    """Return the first frame's values, moved by backward flow to where the second shows them."""
    return sampled(picture, positions(flow))
