"""What a run takes over from an earlier one: from its checkpoint, or from its network.

A resumed run reads a checkpoint, and most of its options must stay the same. A new run may begin
with the weights of a trained network (`start_from`).
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from impasto.choices import LossOptions
from impasto.images.paintings import Painting, other_picture
from impasto.networks import TransformNet

_LOG = logging.getLogger("impasto")

# Options of the loss that the measured balance depends on.
BALANCE_OPTIONS = (
    "network",
    "content_layers",
    "style_layers",
    "secondary_layers",
    "scales",
    "balance",
)


def fixed_options(network: TransformNet, loss: LossOptions, style_size: int) -> dict[str, Any]:
    """Return the options, by name, that a run cannot change on resume."""
    options = asdict(loss)
    return {
        **network.arguments,
        "style_size": style_size,
        **{f"loss.{name}": options[name] for name in BALANCE_OPTIONS},
    }


def balance_of(
    checkpoint: dict[str, Any], styles: list[str], ours: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the balance stored in a checkpoint, if this run may resume from the checkpoint.

    Args:
        checkpoint: the checkpoint as Lightning loads it.
        styles: names of the styles of this run, in order.
        ours: the `fixed_options` options of this run.

    Returns:
        What the module's `balance` gave, and the weights that `balance: dynamic` moves; None if
        the checkpoint holds none.

    Raises:
        ValueError: the checkpoint is of an earlier version, of other styles or other options.
    """
    groups = [
        group for state in checkpoint.get("optimizer_states", []) for group in state["param_groups"]
    ]
    if groups and "method" not in groups[0]:
        raise ValueError(
            "the checkpoint is of an earlier version, which trained with Adam alone: begin a new "
            "run from its network with --model.start_from FILE.ckpt"
        )
    stored = checkpoint.get("impasto", {})
    described = stored.get("network", {})
    names = [style["name"] for style in described.get("styles", [])]
    if names and names != styles:
        raise ValueError(
            f"the checkpoint was trained on {', '.join(names)}; this run has {', '.join(styles)}"
        )
    loss = {f"loss.{name}": value for name, value in described.get("loss", {}).items()}
    trained = {**described.get("arguments", {}), **described.get("training", {}), **loss}
    for name, value in ours.items():
        if (theirs := trained.get(name, value)) != value:
            raise ValueError(
                f"the checkpoint was trained with {name} {theirs}; this run has {value}: give "
                f"--model.{name} as it was, or begin a new run from its network with "
                "--model.start_from"
            )
    balance: dict[str, Any] | None = stored.get("balance")
    return balance


def check_size(other: TransformNet, start_from: str, network: TransformNet) -> None:
    """Raise ValueError if another network's weights have other shapes."""
    for name in ("width", "residual_blocks", "patch", "kernel", "separable"):
        if (theirs := other.arguments.get(name)) != (ours := network.arguments.get(name)):
            what = f"start_from {start_from}: its {name} is {theirs}, not {ours}"
            raise ValueError(f"{what}; give --model.{name} {theirs}")


def weights_from(
    other: TransformNet, start_from: str, network: TransformNet, styles: Sequence[str]
) -> dict[str, Tensor]:
    """Return the weights of a trained network, with a row of γ and β for each of our styles.

    A style that `other` knows by name keeps its row. A new style gets the mean of the rows.

    Dumoulin et al. 2017 add a style to a trained network by learning its γ and β alone.
    Departure: here all weights keep learning.

    Args:
        other: the trained network.
        start_from: its name, for the message.
        network: the network of this run.
        styles: names of the styles of this run.

    Raises:
        ValueError: the weights of `other` have other shapes.
    """
    check_size(other, start_from, network)
    known = [style["name"] for style in other.metadata.get("styles", [])]
    state = other.state_dict()
    for key, value in state.items():
        if key.endswith((".gamma", ".beta")):
            rows = [value[known.index(name)] if name in known else value.mean(0) for name in styles]
            state[key] = torch.stack(rows)
    return state


def thumbnails_of(description: dict[str, Any]) -> dict[str, Any]:
    """Return the thumbnails of a network's paintings, by style.

    Args:
        description: metadata of a network, or what a checkpoint says of its network. A thumbnail
            is None if an earlier version wrote it.
    """
    return {style["name"]: style.get("thumbnail") for style in description.get("styles", [])}


def check_paintings(
    styles: Mapping[str, Painting],
    thumbnails: Mapping[str, Any],
    known: Mapping[str, Any],
    start_from: str | None,
) -> None:
    """Compare each painting, by its thumbnail, with the one learned before under its name.

    If they differ, a run that begins with `start_from` logs a warning.

    Args:
        styles: the paintings of this run.
        thumbnails: their thumbnails.
        known: thumbnails of those learned before.
        start_from: the network that this run begins with; None: it was resumed.

    Raises:
        ValueError: they differ, and the run was resumed from a checkpoint.
    """
    for name, painting in styles.items():
        if not other_picture(known.get(name), thumbnails[name]):
            continue
        if start_from is None:
            raise ValueError(
                f"painting {name}: {painting.image} is another picture than the checkpoint was "
                f"trained on: give that one (--model.styles.{name}.image), or begin a new run "
                "with --model.start_from its network"
            )
        _LOG.warning(
            "painting %s: %s is another picture than %s learned under that name, "
            "and takes its place",
            name,
            painting.image,
            start_from,
        )
