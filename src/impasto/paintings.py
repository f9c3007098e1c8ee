"""A painting as a style to learn, and what is said of it in the network's file."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Painting:
    """A style to learn.

    Args:
        image: the picture file.
        title: what the painting is called.
        artist: who painted it.
        year: when.
        licence: under which the picture may be used.
        source: where the picture can be had.
    """

    image: str
    title: str = ""
    artist: str = ""
    year: int | None = None
    licence: str = ""
    source: str = ""

    def credits(self) -> dict[str, Any]:
        """What is known of it, without the path of its picture, which is of one machine."""
        return {key: value for key, value in asdict(self).items() if key != "image" and value}


def check_style_names(names: Iterable[str]) -> None:
    """Refuses, by ValueError, what cannot be part of a file's name: files are named after styles."""
    for name in names:
        if not name.strip(" .") or not name.isprintable() or {"/", "\\"} & {*name}:
            raise ValueError(f"style name {name!r}: must be text without / or \\, since files are named after it")
