"""A painting as a style to learn, and what is said of it in the network's file."""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_SIDE = 8  # pixels of a thumbnail


@dataclass
class Painting:
    """A style to learn.

    Args:
        image: the picture file.
        title: what the painting is called.
        artist: who painted it.
        year: when.
        licence: under which the picture may be used.
        source: where the picture can be had.
    """

    image: str
    title: str = ""
    artist: str = ""
    year: int | None = None
    licence: str = ""
    source: str = ""

    def credits(self) -> dict[str, Any]:
        """What is known of it, without the path of its picture, which is of one machine."""
        return {key: value for key, value in asdict(self).items() if key != "image" and value}


def thumbnail(picture: Float[Tensor, "1 3 h w"]) -> str:
    """The picture, in [0, 1], averaged to 8×8 pixels, as text: what a network's file knows a painting by.

    It is nearly the same for another size or compression of a picture, and another for another picture.
    """
    small = F.interpolate(picture.float().cpu(), size=(_SIDE, _SIDE), mode="area")
    levels = small.mul(255).round().clamp(0, 255).to(torch.uint8)
    return base64.b64encode(levels[0].numpy().tobytes()).decode()


def other_picture(known: object, seen: str) -> bool:
    """Whether two thumbnails are of different pictures; of one that is none, as in earlier files, nothing is known."""
    first, second = _levels(known), _levels(seen)
    if first is None or second is None:
        return False
    # Half a level is rounding; recompressed or trimmed pictures differ by more, in contrasts.
    return bool((first - second).square().mean().sqrt() > 1 + 0.4 * first.std())


def _levels(text: object) -> Tensor | None:
    try:
        levels = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        return None
    return torch.tensor(list(levels), dtype=torch.float32) if len(levels) == 3 * _SIDE * _SIDE else None


def check_style_names(names: Iterable[str]) -> None:
    """Refuses, by ValueError, what cannot be part of a file's name: files are named after styles."""
    for name in names:
        if not name.strip(" .") or not name.isprintable() or {"/", "\\"} & {*name}:
            raise ValueError(f"style name {name!r}: must be text without / or \\, since files are named after it")
