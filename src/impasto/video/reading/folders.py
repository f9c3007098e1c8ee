"""Read folders of pictures as clips."""

import re
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from impasto.choices import IMAGE_SUFFIXES
from impasto.images import read_image
from impasto.video.reading.clip import UNTOLD_RATE, Clip, Timed
from impasto.video.reading.pictures import levels, shows_through


class Folder(Clip):
    """A folder of pictures."""

    def _open(self) -> None:
        self._files = sorted(
            (
                file
                for file in self.path.iterdir()
                if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
            ),
            key=natural,
        )
        if not self._files:
            raise self._refusal(f"no pictures in it; they end in {', '.join(IMAGE_SUFFIXES)}")
        self.rate, self.fps = self.fps or Fraction(UNTOLD_RATE), None
        self.base = 1 / self.rate
        self.count = len(self._files)
        self.seconds = float(self.count * self.base)
        sides: dict[tuple[int, ...], str] = {}
        for file in self._files:
            # What cannot be opened here, such as HEIC or a damaged file, is refused later.
            with suppress(Exception), Image.open(file) as image:
                self.transparent = self.transparent or shows_through(image)
                sides.setdefault(
                    tuple(sorted(image.size)), file.name
                )  # a photo may lie on its side
        if len(sides) > 1:
            one, other = list(sides.values())[:2]
            raise self._refusal(
                f"{one} and {other} differ in size: all frames of a clip must have one"
            )

    def _decoded(self) -> Iterator[Timed]:
        for number, file in enumerate(self._files):
            yield number, 1, partial(self._pixels, file)

    def _pixels(self, file: Path) -> np.ndarray:
        pixels = levels(read_image(file), self.transparent)
        size = pixels.shape[1::-1]
        if size != getattr(self, "size", size):
            raise self._refusal(
                f"{file.name} has {size[0]}×{size[1]} pixels, the first picture "
                f"{self.size[0]}×{self.size[1]}: all frames must have one size"
            )
        return pixels


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts], path.name
