"""What a resumed run takes back from its checkpoint, and what it may not change."""

from dataclasses import asdict
from typing import Any

from impasto.choices import LossOptions
from impasto.networks import TransformNet

# Options of the loss under which the balance of a run was measured.
MEASURED_UNDER = ("network", "content_layers", "style_layers", "secondary_layers", "scales", "balance")


def decided(network: TransformNet, loss: LossOptions, style_size: int) -> dict[str, Any]:
    """The options that a run cannot change once it has begun, by name."""
    options = asdict(loss)
    return {**network.arguments, "style_size": style_size, **{f"loss.{name}": options[name] for name in MEASURED_UNDER}}


def balance_of(checkpoint: dict[str, Any], styles: list[str], ours: dict[str, Any]) -> dict[str, Any] | None:
    """The balance stored in a checkpoint (`Objective.balance`), after a look whether this run may go on from it.

    Args:
        checkpoint: Lightning's.
        styles: names of the styles of this run.
        ours: what this run has `decided`.

    Raises:
        ValueError: a checkpoint of an earlier version, of other styles, or of other options.
    """
    groups = [group for state in checkpoint.get("optimizer_states", []) for group in state["param_groups"]]
    if groups and "method" not in groups[0]:
        raise ValueError(
            "the checkpoint is of an earlier version, which trained with Adam alone: begin a new run from its "
            "network with --model.start_from FILE.ckpt"
        )
    stored = checkpoint.get("impasto", {})
    described = stored.get("network", {})
    names = [style["name"] for style in described.get("styles", [])]
    if names and names != styles:
        raise ValueError(f"the checkpoint was trained on {', '.join(names)}; this run has {', '.join(styles)}")
    loss = {f"loss.{name}": value for name, value in described.get("loss", {}).items()}
    trained = {**described.get("arguments", {}), **described.get("training", {}), **loss}
    for name, value in ours.items():
        if (theirs := trained.get(name, value)) != value:
            raise ValueError(
                f"the checkpoint was trained with {name} {theirs}; this run has {value}: give --model.{name} as it "
                f"was, or begin a new run from its network with --model.start_from"
            )
    balance: dict[str, Any] | None = stored.get("balance")
    return balance


def thumbnails_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """The thumbnails of the paintings that a checkpoint learned, by style; None for those of earlier versions."""
    styles = checkpoint.get("impasto", {}).get("network", {}).get("styles", [])
    return {style["name"]: style.get("thumbnail") for style in styles}
