"""Names: the one that was meant by a mistyped one, and how one from a file is shown."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`did you mean gallery? `, to go before the names there are; empty where none is near."""
    close = get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}? " if close else ""


def printable(text: object) -> str:
    """The text with what a terminal would obey, or could not show, written out (`\\x1b`): names come from files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
