"""Options that act only together with others: where they would be ignored, they are refused."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Need(NamedTuple):
    """What an option needs in order to act.

    Attributes:
        told: the need in words.
        met: whether it is met by the values of all options.
    """

    told: str
    met: Callable[[Any], bool]


Needs = dict[str, Need]  # by the name of the option; a dictionary's name stands for all its keys


def only_with(option: str, *values: str) -> Need:
    """Return the need that another option is set, or has one of the values.

    It is met too where the other option is an axis of a grid (`evaluate --axes`).
    """
    told = f"only with --{option} {' or '.join(values)}".strip()

    def met(given: Any) -> bool:
        value = _value(given, option)
        return option in _axes(given) or (value in values if values else bool(value))

    return Need(f"acts {told}; give that too, or leave it out", met)


def only_without(option: str) -> Need:
    """Return the need that another option is not set."""
    return Need(
        f"acts only without --{option}; give one of the two",
        lambda given: not _value(given, option),
    )


# Of the commands with the options of the reference.
REFERENCE_NEEDS: Needs = {
    "noise_ratio": only_with("start", "mix"),
    "seed": only_with("start", "noise", "mix"),
    "line_search": only_with("optimizer", "lbfgs"),
    "blend": only_with("loss.combined_weight"),
    "loss.secondary_layers": only_with("loss.secondary_weight"),
}


def refuse_idle(options: Iterable[str], given: Any, needs: Needs) -> None:
    """Refuse options of the command line that would be ignored.

    Options of configs are not refused, since a config may serve several command lines. Nor are
    options that are turned off.

    Args:
        options: names of the options on the command line, as `loss.balance`.
        given: the values of all options, nested.
        needs: of the options that have any.

    Raises:
        ValueError: an option acts only together with another.
    """
    for option in options:
        name = next((name for name in needs if f"{option}.".startswith(f"{name}.")), None)
        # All points of a grid are judged by the given loss, whatever its axes are.
        if option in _axes(given) and not option.startswith("loss."):
            raise ValueError(f"--{option}: is one of --axes, which give its values; leave it out")
        if name and _value(given, name) not in (None, False) and not needs[name].met(given):
            raise ValueError(f"--{option}: {needs[name].told}")


def _axes(given: Any) -> Any:
    return given.get("axes") or {}


def _value(given: Any, option: str) -> Any:
    """Return the value of an option such as loss.balance, from nested values."""
    for part in option.split("."):
        given = given[part]
    return given
