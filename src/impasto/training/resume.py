"""What a resumed run reads from its checkpoint, and which options must stay the same."""

from dataclasses import asdict
from typing import Any

from impasto.choices import LossOptions
from impasto.networks import TransformNet

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
        What `Objective.balance` gave; None if the checkpoint holds none.

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


def thumbnails_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the thumbnails of a checkpoint's paintings, by style.

    A thumbnail is None if an earlier version wrote the checkpoint.
    """
    styles = checkpoint.get("impasto", {}).get("network", {}).get("styles", [])
    return {style["name"]: style.get("thumbnail") for style in styles}
