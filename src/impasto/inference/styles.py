"""Names of styles, and weights for them."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from impasto.choices import IMAGE_SUFFIXES
from impasto.networks import TransformNet, published_styles
from impasto.spelling import did_you_mean

Number = float | int  # both, because beartype takes an annotation at its word


def style_names(network: TransformNet) -> list[str]:
    """The names of a network's styles, in order; style1, style2, … where its metadata has none."""
    names = [str(style["name"]) for style in network.metadata.get("styles", [])]
    complete = len(names) == network.num_styles
    return names if complete else [f"style{number + 1}" for number in range(network.num_styles)]


def style_weights(style: str | Mapping[str, Number] | None, names: Sequence[str]) -> Float[Tensor, "1 n"]:
    """Weights 1×N of a style or a mixture, in the order of `names`, with the sum 1.

    Args:
        style: "wave", "wave=0.3,scream=0.7" (numbers for all, or for none), the same as a mapping, or None if N = 1.
        names: the styles there are.

    Raises:
        ValueError: an unknown or repeated name, a weight that is no finite number from 0 up, or all zero.
    """
    if style is None and len(names) > 1:
        raise ValueError(f"this network has {len(names)} styles, choose one or a mixture: {', '.join(names)}")
    parts = {names[0]: 1.0} if style is None else style_parts(style, names) if isinstance(style, str) else style
    for name, weight in parts.items():
        _check_part(name, weight, names)
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
        raise ValueError(f"style {style!r}: give a weight to every style, or to none, which mixes equal parts")
    return parts


def network_of(style: str) -> str:
    """The published network that knows a style, or all of a mixture; of several, that of the fewest styles.

    Raises:
        ValueError: none of them does.
    """
    known = published_styles()
    every = sorted({name for names in known.values() for name in names})
    wanted = style_parts(style, every)
    if unknown := [name for name in wanted if name not in every]:
        meant = did_you_mean(unknown[0], every)
        raise ValueError(
            f"style {unknown[0]!r} is unknown: {meant}published are {', '.join(every)}{_if_picture(unknown[0])}"
        )
    fitting = [name for name, names in known.items() if wanted.keys() <= {*names}]
    if not fitting:
        knowing = "; ".join(f"{network} knows {', '.join(names)}" for network, names in known.items())
        raise ValueError(f"style {style!r}: no published network knows all of these: {knowing}")
    return min(fitting, key=lambda name: (len(known[name]), name))


def _if_picture(name: str) -> str:
    """What to do with a painting of one's own, where a style is named like a picture's file."""
    if not name.lower().endswith(IMAGE_SUFFIXES):
        return ""
    return f"; a painting of your own is painted with `impasto optimize PHOTO {name}`, or learned with `impasto train`"


def _check_part(name: str, weight: Number, names: Sequence[str]) -> None:
    if name not in names:
        others = [network for network, styles in published_styles().items() if name in styles]
        elsewhere = f"; {' and '.join(others)} would know it" if others else _if_picture(name)
        ours = f"{did_you_mean(name, names)}this network knows {', '.join(names)}"
        raise ValueError(f"style {name!r} is unknown: {ours}{elsewhere}")
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"style {name}={weight}: a weight must be a number from 0 up")
