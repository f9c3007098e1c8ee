"""Names: the one that was meant by a mistyped one, the picture behind an address, and how one from a file is shown."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`did you mean gallery? `, to go before the names there are; empty where none is near."""
    close = get_close_matches(name, list(names), n=1)
    return f"did you mean {close[0]}? " if close else ""


def not_there(path: str | Path, kind: str = "file") -> str:
    """`photo.jpg: no such file`; of an address, that it has to be downloaded first."""
    address = re.match(
        r"(https?|ftp|s3|gs|hf|file):/+(.*)", str(path), re.DOTALL
    )  # pathlib makes one slash of two
    if address:
        return f"{address[1]}://{address[2]}: an address; download it, and give the {kind}"
    return f"{path}: no such {kind}"


def printable(text: object) -> str:
    """The text with what a terminal would obey, or could not show, written out (`\\x1b`): names come from files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
