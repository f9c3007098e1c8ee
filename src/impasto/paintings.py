"""A painting as a style to learn, and what is said of it in the network's file."""

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
