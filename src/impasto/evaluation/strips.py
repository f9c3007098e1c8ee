"""Strips of a painted clip: the part that moves most, in frames side by side, enlarged."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from impasto.evaluation.footage import Footage, Frames
from impasto.images import from_pil

SIDE, FRAMES = 96, 6  # the part's side in pixels at most, and the number of frames at most
CELL = 3 * SIDE  # side of the enlarged part in pixels
_STEP = 16  # pixels between the places where the part may lie


class Part(NamedTuple):
    """A square part of a frame, for frames of any size.

    Attributes:
        top: distance from the top, as a share of the height.
        left: distance from the left, as a share of the width.
        side: as a share of the width.
    """

    top: float
    left: float
    side: float


def moving_part(footage: Footage) -> Part:
    """Return the part in which most moves during the frames that a strip shows."""
    first, last = frames_shown(len(footage.frames))
    moved = footage.in_order(footage.motions)[first : last - 1]
    height, width = footage.frames[0].shape[:2]
    speed = np.zeros((height, width))
    for each in filter(None, moved):
        speed += np.where(each.trusted, np.linalg.norm(each.flow, axis=-1), 0)
    side = min(SIDE, height, width)
    # Of several with the same motion, the topmost is taken, then the leftmost.
    _, top, left = max(
        (speed[top : top + side, left : left + side].mean(), -top, -left)
        for top in range(0, height - side + 1, _STEP)
        for left in range(0, width - side + 1, _STEP)
    )
    return Part(-top / height, -left / width, side / width)


def strip(paintings: Frames, part: Part) -> Float[Tensor, "1 3 _ _"]:
    """Return a part of the frames in the middle of a clip side by side, CELL pixels each.

    Args:
        paintings: of all frames.
        part: what is shown of them.
    """
    first, last = frames_shown(len(paintings))
    height, width = paintings[0].shape[:2]
    top, left = round(part.top * height), round(part.left * width)
    side = round(part.side * width)
    cells = [
        # Nearest pixels, since interpolation would hide the flicker of single pixels.
        Image.fromarray(each[top : top + side, left : left + side]).resize(
            (CELL, CELL), Image.Resampling.NEAREST
        )
        for each in paintings[first:last]
    ]
    return torch.cat([from_pil(cell).pixels for cell in cells], dim=-1)


def frames_shown(count: int) -> tuple[int, int]:
    """Return the first frame that a strip of a clip shows, and the one after its last."""
    first = max(0, (count - FRAMES) // 2)
    return first, min(count, first + FRAMES)
