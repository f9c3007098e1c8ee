"""Styles as users name them, and their codes: weights over the styles of a network."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from impasto.spelling import did_you_mean

Number = float | int  # beartype refuses an int where only float is declared
Style = str | Mapping[str, Number]


class UnknownStyle(ValueError):
    """A style, `name`, that the network has not learned."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(
            f"style {name!r} is unknown: {did_you_mean(name, names)}"
            f"this network knows {', '.join(names)}"
        )
        self.name = name


def style_weights(style: Style | None, names: Sequence[str]) -> Float[Tensor, "1 n"]:
    """Return the code of a style or mixture: weights 1×N in the order of `names`, with sum 1.

    Args:
        style: a name ("wave"), a mixture ("wave=0.3,scream=0.7", or "wave,scream" for equal parts),
            or a mapping of names to weights. None is allowed where N = 1.
        names: the N styles of the network.

    Raises:
        UnknownStyle: a name that is not among `names`.
        ValueError: no style for a network of several, a repeated name, a weight that is negative or
            not a finite number, weights for some names only, or all weights 0.
    """
    if style is None and len(names) > 1:
        raise ValueError(
            f"this network has {len(names)} styles, choose one or a mixture: {', '.join(names)}"
        )
    parts = (
        {names[0]: 1.0}
        if style is None
        else style_parts(style, names)
        if isinstance(style, str)
        else style
    )
    for name, weight in parts.items():
        if name not in names:
            raise UnknownStyle(name, names)
        if not (isinstance(weight, int | float) and math.isfinite(weight) and weight >= 0):
            raise ValueError(f"style {name}={weight}: a weight must be a number from 0 up")
    if not any(parts.values()):
        raise ValueError(f"style {style!r}: at least one weight must be above 0")
    # Divide by the largest weight first, because the sum of huge weights would overflow.
    weights = torch.tensor([[float(parts.get(name, 0)) for name in names]], dtype=torch.float64)
    weights = weights / weights.max()
    return (weights / weights.sum()).float()


def style_parts(style: str, names: Sequence[str] = ()) -> dict[str, Number]:
    """Return the weight of each name in a mixture: {"wave": 0.3, "scream": 0.7} or all 1.

    Args:
        style: "wave=0.3,scream=0.7", or "wave,scream" for weights of 1.
        names: known styles; one of them may itself contain "=" or ",".

    Raises:
        ValueError: a repeated name, a weight that is not a number, weights for some names only, or
            a share for a single name.
    """
    if style in names:
        return {style: 1.0}
    parts: dict[str, Number] = {}
    weighted = 0
    for part in style.split(","):
        name, given, weight = (text.strip() for text in part.partition("="))
        if name in parts:
            raise ValueError(f"style {style!r}: {name} is given twice")
        weighted += bool(given)
        try:
            parts[name] = float(weight) if given else 1.0
        except ValueError:
            problem = f"style {name}={weight}: the weight is not a number; write {name}=0.5"
            raise ValueError(problem) from None
    if 0 < weighted < len(parts):
        raise ValueError(
            f"style {style!r}: give a weight to every style, or to none, which mixes equal parts"
        )
    if len(parts) == 1 and any(0 < weight < math.inf and weight != 1 for weight in parts.values()):
        raise ValueError(
            f"style {style!r}: one style has no share; give its name, and --strength to paint it "
            "weakly"
        )
    return parts
