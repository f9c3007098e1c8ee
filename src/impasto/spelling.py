"""Parts of messages about names: suggestions for mistyped ones, missing files, safe printing."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return "did you mean gallery? ", to put before a list of all names; "" if none is close."""
    known = list(names)
    plain = {re.sub(r"\W+", "_", other.lower()).strip("_"): other for other in known}
    asked = re.sub(r"\W+", "_", name.lower()).strip("_").removeprefix("the_")
    close = get_close_matches(asked, list(plain), n=1)
    if not close and len(asked) > 2:  # a part of a name: wave for great_wave
        close = [other for other in plain if asked in other or other.removeprefix("the_") in asked]
    return f"did you mean {plain[close[0]]}? " if close else ""


def not_there(path: str | Path, kind: str = "file") -> str:
    """Return "photo.jpg: no such file"; for an address, that it must be downloaded first."""
    # pathlib turns two slashes into one.
    address = re.match(r"(https?|ftp|s3|gs|hf|file):/+(.*)", str(path), re.DOTALL)
    if address:
        return f"{address[1]}://{address[2]}: an address; download it, and give the {kind}"
    return f"{path}: no such {kind}"


def printable(text: object) -> str:
    """Return the text with control and unprintable characters escaped, such as `\\x1b`.

    Names come from files, and a terminal would obey control characters in them.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
