"""A style as people name it, and as a network takes it: a row of weights over the styles it has learned."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from impasto.spelling import did_you_mean

Number = float | int  # both, because beartype takes an annotation at its word
Style = str | Mapping[str, Number]


class UnknownStyle(ValueError):
    """A style that a network has not learned, by `name`."""

    def __init__(self, name: str, names: Sequence[str]) -> None:
        super().__init__(
            f"style {name!r} is unknown: {did_you_mean(name, names)}this network knows {', '.join(names)}"
        )
        self.name = name


def style_weights(style: Style | None, names: Sequence[str]) -> Float[Tensor, "1 n"]:
    """Weights 1×N of a style or a mixture, in the order of `names`, with the sum 1.

    Args:
        style: "wave", "wave=0.3,scream=0.7" (numbers for all, or for none), the same as a mapping, or None if N = 1.
        names: the styles there are.

    Raises:
        UnknownStyle: a name that is none of `names`.
        ValueError: a repeated name, a weight that is no finite number from 0 up, or all zero.
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
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"style {name}={weight}: a weight must be a number from 0 up")
    if not any(parts.values()):
        raise ValueError(f"style {style!r}: at least one weight must be above 0")
    # Divided by the largest first, in float64: the sum of huge weights would overflow.
    weights = torch.tensor([[float(parts.get(name, 0)) for name in names]], dtype=torch.float64)
    weights = weights / weights.max()
    return (weights / weights.sum()).float()


def style_parts(style: str, names: Sequence[str] = ()) -> dict[str, Number]:
    """{"wave": 0.3, "scream": 0.7} of "wave=0.3,scream=0.7"; each 1 of "wave,scream".

    Raises:
        ValueError: a name given twice, a weight that is no number, or weights for some of the names only.
    """
    if style in names:  # also a name that holds "=" or ","
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
    return parts
