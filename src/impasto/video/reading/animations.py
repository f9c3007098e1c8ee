"""Read animated GIF, WebP and PNG files by Pillow."""

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import partial

import numpy as np
from PIL import Image

from impasto.images import from_pil
from impasto.images.reading import open_image
from impasto.video.reading.clip import FINEST, Clip, Timed, fraction
from impasto.video.reading.pictures import levels, shows_through

_SHORTEST = 10  # ms; browsers show frames of an animation that claim less for 100 ms


class Animation(Clip):
    """An animated GIF, WebP or PNG, read by Pillow."""

    animation = True

    def _open(self) -> None:
        times: list[float] = []  # ms
        for image in self._images():
            times.append(image.info.get("duration") or 0)
            self.transparent = self.transparent or shows_through(image)
        lengths = [fraction(time / 1000) for time in times]
        self.base = Fraction(1, 1000)
        if self._format == "GIF":
            self.base = Fraction(1, 100)
        elif self._format == "PNG":  # its durations are fractions
            self.base = Fraction(1, math.lcm(100, *(length.denominator for length in lengths)))
            if self.base.denominator > FINEST:
                self.base = Fraction(1, 90_000)
        self._durations = [round(length / self.base) for length in lengths]
        steps = [self._step(duration) for duration in self._durations]
        self.count, self.seconds = len(steps) or None, float(sum(steps) * self.base)
        self.rate = len(steps) / (sum(steps) * self.base) if steps else Fraction(10)

    def _step(self, duration: int) -> int:
        """Return how long a frame is shown, in units of `base`."""
        short = duration * self.base * 1000 < _SHORTEST
        return round(Fraction(1, 10) / self.base) if short else duration

    def _images(self) -> Iterator[Image.Image]:
        """Yield the image at each of its frames."""
        image = open_image(self.path)
        self._format = image.format
        self.plays = _plays(image)
        for number in range(getattr(image, "n_frames", 1)):
            try:
                image.seek(number)
                image.load()
            except Exception as error:  # damaged files make Pillow raise almost anything
                if not number:
                    raise self._refusal("damaged, get the file again") from error
                self.note(f"ends early after frame {number}: the rest is damaged", damage=True)
                return
            yield image

    def _decoded(self) -> Iterator[Timed]:
        pts = 0
        for image, duration in zip(self._images(), self._durations, strict=False):
            # The image changes with the next frame, so its pixels are taken now.
            pixels = levels(from_pil(image), self.transparent)
            yield pts, duration, partial(_same, pixels)
            pts += self._step(duration)


def _plays(image: Image.Image) -> int:
    """Return how often an animation is played; 0: for ever."""
    loop = image.info.get("loop")
    if image.format == "GIF":  # counts repetitions
        return 1 if loop is None else loop + 1 if loop else 0
    return loop or 0


def _same(pixels: np.ndarray) -> np.ndarray:
    return pixels
