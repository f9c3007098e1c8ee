"""Styles as users give them: names that published networks know, and pictures."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from impasto.choices import IMAGE_SUFFIXES
from impasto.images import from_pil, read_image
from impasto.networks import published_metadata, published_styles
from impasto.networks.styles import Number, Style, style_parts
from impasto.spelling import did_you_mean

# Every kind of style that a Stylizer takes.
AnyStyle = Style | Path | Image.Image | Tensor | Mapping[Path, Number] | None
ANY = "any"  # the published network for any picture


def pictures(style: AnyStyle) -> dict[str, tuple[Tensor, float]]:
    """Return the paintings that a style means, 1×3×H×W in [0, 1], with their weights, by name.

    Args:
        style: a path, a mixture of paths ("a.jpg=0.7,b.jpg=0.3", or a mapping to weights), a PIL
            image, or a tensor 3×H×W or 1×3×H×W in [0, 1].

    Raises:
        ValueError: no style, a file that cannot be read, or a weight that is not above 0.
    """
    if style is None:
        raise ValueError("this network paints in the style of a picture: --style painting.jpg")
    if isinstance(style, Tensor):
        return {"painting": (style if style.ndim == 4 else style[None], 1.0)}
    if isinstance(style, Image.Image):
        return {"painting": (from_pil(style).pixels, 1.0)}
    weights: Mapping[Any, Number]
    if isinstance(style, Path) or (isinstance(style, str) and Path(style).expanduser().is_file()):
        weights = {style: 1.0}
    else:
        weights = style_parts(style) if isinstance(style, str) else style
    found = {}
    for path, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"style {path}={weight}: a weight must be a number above 0")
        found[str(path)] = (read_image(Path(path).expanduser()).pixels, float(weight))
    if not found:
        raise ValueError("style: no picture is given")
    return found


def are_pictures(style: str) -> bool:
    """Whether a style names picture files, not styles of a network."""
    return all(Path(name).expanduser().is_file() for name in style_parts(style))


def network_of(style: str) -> str:
    """Return the published network that knows a style, or every style of a mixture.

    If several do, it is the one with the fewest styles, and one for real time only if no other
    does. For picture files it is the network `any`.

    Raises:
        ValueError: no published network does.
    """
    known = published_styles()
    if ANY in known and are_pictures(style):
        return ANY
    every = sorted({name for names in known.values() for name in names})
    wanted = style_parts(style, every)
    if unknown := [name for name in wanted if name not in every]:
        meant = did_you_mean(unknown[0], every)
        raise ValueError(
            f"style {unknown[0]!r} is unknown: {meant}published are {', '.join(every)}"
            f"{_if_picture(unknown[0])}"
        )
    fitting = [name for name, names in known.items() if wanted.keys() <= {*names}]
    if not fitting:
        knowing = "; ".join(
            f"{network} knows {', '.join(names)}" for network, names in known.items()
        )
        raise ValueError(f"style {style!r}: no published network knows all of these: {knowing}")
    patches = {
        name: metadata["arguments"].get("patch", 1)
        for name, metadata in published_metadata().items()
    }
    return min(fitting, key=lambda name: (patches[name] > 1, len(known[name]), name))


def elsewhere(name: str) -> str:
    """Return the end of a message about an unknown style: what the user can do instead.

    It names the published networks that know the style. If none does and `name` looks like an image
    file, it says how to paint with that file.
    """
    others = [network for network, styles in published_styles().items() if name in styles]
    return f"; {' and '.join(others)} would know it" if others else _if_picture(name)


def _if_picture(name: str) -> str:
    """Return how to use a painting of one's own, if `name` looks like an image file; else ""."""
    if not name.lower().endswith(IMAGE_SUFFIXES):
        return ""
    return (
        f"; a painting of your own is painted with `impasto optimize PHOTO {name}`, "
        "or learned with `impasto train`"
    )
