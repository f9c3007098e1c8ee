"""A mistyped name, and the one that was meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`did you mean gallery? `, to go before the names there are; empty where none is near."""
    close = get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}? " if close else ""
