"""A painting as a style to learn, and what a network's file records about it."""

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_SIDE = 8  # side of a thumbnail, in pixels


@dataclass
class Painting:
    """A style to learn.

    Args:
        image: the picture file.
        title: what the painting is called.
        artist: who painted it.
        year: when it was painted.
        licence: the licence of the picture.
        source: where the picture comes from.
    """

    image: str
    title: str = ""
    artist: str = ""
    year: int | None = None
    licence: str = ""
    source: str = ""

    def credits(self) -> dict[str, Any]:
        """Return all known fields but `image`, a path that means nothing on other machines."""
        return {key: value for key, value in asdict(self).items() if key != "image" and value}


def checked(styles: Mapping[str, str | Painting]) -> dict[str, Painting]:
    """Return the styles to learn, by name; a picture file alone becomes a Painting.

    Raises:
        ValueError: there is none, a name cannot be used, or a file does not exist.
    """
    if not styles:
        raise ValueError("styles: none given; --model.styles.NAME PICTURE adds one")
    check_style_names(styles)
    for name in styles:
        style, _, field = name.rpartition(".")
        if style and field in {known.name for known in fields(Painting)}:
            # jsonargparse takes --model.styles.NAME.image for a name, until NAME is known.
            raise ValueError(f"style name {name!r}: begin with --model.styles.{style} PICTURE")
    found = {
        name: Painting(style) if isinstance(style, str) else style for name, style in styles.items()
    }
    for name, painting in found.items():
        if not Path(painting.image).is_file():
            what = f"painting {name}: {painting.image} does not exist"
            raise ValueError(f"{what}; give --model.styles.{name}.image PICTURE")
    return found


def thumbnail(picture: Float[Tensor, "1 3 h w"]) -> str:
    """Return a picture, in [0, 1], averaged to 8×8 pixels, as base64 text.

    A network's file stores it to recognize the painting. Another size or compression of the same
    picture gives nearly the same thumbnail.
    """
    small = F.interpolate(picture.float().cpu(), size=(_SIDE, _SIDE), mode="area")
    levels = small.mul(255).round().clamp(0, 255).to(torch.uint8)
    return base64.b64encode(levels[0].numpy().tobytes()).decode()


def other_picture(known: object, seen: str) -> bool:
    """Whether two thumbnails show different pictures.

    The answer is False if one is no valid thumbnail: files of earlier versions have none.
    """
    first, second = _levels(known), _levels(seen)
    if first is None or second is None:
        return False
    # Rounding makes half a level. Recompressed or trimmed pictures differ by more, in proportion to
    # their contrast.
    return bool((first - second).square().mean().sqrt() > 1 + 0.4 * first.std())


def _levels(text: object) -> Tensor | None:
    try:
        levels = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError):
        return None
    return (
        torch.tensor(list(levels), dtype=torch.float32)
        if len(levels) == 3 * _SIDE * _SIDE
        else None
    )


def check_style_names(names: Iterable[str]) -> None:
    """Raise ValueError for a name that cannot be part of a file's name.

    Files are named after styles.
    """
    for name in names:
        if not name.strip(" .") or not name.isprintable() or {"/", "\\"} & {*name}:
            raise ValueError(
                f"style name {name!r}: must be text without / or \\, since files are named after it"
            )
