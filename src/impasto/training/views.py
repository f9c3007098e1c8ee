"""Many paintings to learn: statistics and Gram matrices of views of each, measured once."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from rich.console import Console
from rich.progress import track
from torch import Tensor

from impasto.data.files import find_images, located
from impasto.images import ImageError, read_image, resize
from impasto.networks.reading import SIDE, StyleStatistics
from impasto.perceptual.target import ByKey

MIXED = 0.25  # share of the samples that learn a mixture of two paintings
CROPPED = (0.4, 1.0)  # sides of a view, as a share of the painting's
SIDES = (256, SIDE)  # longer side of a view, in pixels

_LOG = logging.getLogger("impasto")

# From a picture 1×3×H×W to its statistics and its Gram matrices.
Measure = Callable[[Tensor], tuple[StyleStatistics, ByKey]]


def found(paths: Sequence[str], without: Sequence[Path], limit: int | None) -> list[list[Path]]:
    """Return the paintings of each path: a folder's pictures, at any depth, or a file.

    Args:
        paths: folders and files.
        without: files to leave out.
        limit: most paintings of a path, drawn at random, the same at every call; None: all.

    Raises:
        ValueError: a path does not exist, or has no paintings.
    """
    left_out = {file.resolve() for file in without}
    paintings = []
    for path in map(located, paths):
        files = [path] if path.is_file() else find_images(path)
        files = [file for file in files if file.resolve() not in left_out]
        if limit is not None:
            order = np.random.default_rng(0).permutation(len(files))
            files = [files[i] for i in sorted(order[:limit])]
        if not files:
            raise ValueError(f"{path}: no paintings are left, all are held out")
        paintings.append(files)
    return paintings


@dataclass
class PaintingViews:
    """Views of paintings, and what a network learns of them.

    Args:
        statistics: input of the predictor, for V views.
        grams: Gram matrices V×C×C of the style loss. Both are in half precision, times the number
            of channels, so that they stay in its range.
        rows: numbers of the views, by folder and painting.
        names: names of the paintings.
    """

    statistics: StyleStatistics
    grams: ByKey
    rows: list[list[list[int]]]
    names: list[str]

    @classmethod
    def measured(
        cls, folders: Sequence[Sequence[Path]], views: int, side: int, measure: Measure
    ) -> "PaintingViews":
        """Read paintings and measure views of each, with a progress bar.

        The first view is the whole painting. Further views are random parts, some mirrored, the
        same at every call. A file that cannot be read is left out, with a warning.

        Args:
            folders: files by folder.
            views: number of views of a painting.
            side: longer side, in pixels, of the first view.
            measure: measures one view.

        Raises:
            ValueError: no painting of a folder can be read.
        """
        rows: list[list[list[int]]] = [[] for _ in folders]
        names: list[str] = []
        jobs = [(number, file) for number, files in enumerate(folders) for file in files]
        store = _Store(views * len(jobs))
        console = Console(stderr=True)
        for number, file in track(
            jobs, "measuring paintings", console=console, disable=not console.is_terminal
        ):
            try:
                picture = read_image(file).pixels
            except ImageError as error:
                _LOG.warning("skipped %s", error)
                continue
            names.append(file.stem)
            of_views = _views(picture, views, side, seed=len(names))
            rows[number].append([store.add(*measure(view)) for view in of_views])
        if empty := [number for number, paintings in enumerate(rows) if not paintings]:
            raise ValueError(f"{folders[empty[0]][0].parent}: none of its paintings can be read")
        return cls(StyleStatistics(store.grams, store.means), store.targets, rows, names)

    def draw(self, number: int, seed: int) -> tuple[list[int], list[float]]:
        """Return the views that a sample learns, one or two, and their weights in the mixture.

        Args:
            number: number of the sample.
            seed: of the run.
        """
        random = np.random.default_rng((seed, number))
        mixed = random.random() < MIXED
        share = random.uniform(0.2, 0.8) if mixed else 1.0
        views = []
        for _ in range(2 if mixed else 1):
            paintings = self.rows[random.integers(len(self.rows))]
            each = paintings[random.integers(len(paintings))]
            views.append(each[random.integers(len(each))])
        return views, [share, 1 - share][: len(views)]

    def at(self, views: Int[Tensor, " b"]) -> tuple[StyleStatistics, ByKey]:
        """Return statistics and Gram matrices of some views, in float32."""
        statistics = StyleStatistics(
            {k: g[views].float() / g.shape[1] for k, g in self.statistics.grams.items()},
            {k: m[views].float() for k, m in self.statistics.means.items()},
        )
        return statistics, {k: g[views].float() / g.shape[1] for k, g in self.grams.items()}


class _Store:
    """Rows of statistics and Gram matrices, in memory that is taken once.

    Gram matrices that are statistics too, as under the compact loss, are kept once.

    Args:
        rows: the most rows that will be added.
    """

    def __init__(self, rows: int) -> None:
        self.rows, self.count = rows, 0
        self.grams: dict[str, Tensor] = {}
        self.means: dict[str, Tensor] = {}
        self.targets: ByKey = {}

    def add(self, statistics: StyleStatistics, grams: ByKey) -> int:
        """Add a row, and return its number."""
        for layer, gram in statistics.grams.items():
            self._put(self.grams, layer, gram * gram.shape[1])
            self._put(self.means, layer, statistics.means[layer])
        for key, gram in grams.items():
            if gram is statistics.grams.get(key[1]):
                self.targets[key] = self.grams[key[1]]
            else:
                self._put(self.targets, key, gram * gram.shape[1])
        self.count += 1
        return self.count - 1

    def _put(self, store: dict[Any, Tensor], key: Any, value: Tensor) -> None:
        if key not in store:
            shape = (self.rows, *value.shape[1:])
            store[key] = torch.empty(shape, dtype=torch.float16, device=value.device)
        store[key][self.count] = value[0]


def _views(picture: Tensor, views: int, side: int, seed: int) -> Iterator[Tensor]:
    """Yield views of a painting 1×3×H×W in [0, 1]: the whole, then random parts."""
    yield resize(picture, min(side, max(picture.shape[-2:])))
    random = np.random.default_rng(seed)
    for _ in range(views - 1):
        height, width = (
            max(1, round(length * random.uniform(*CROPPED))) for length in picture.shape[-2:]
        )
        down = random.integers(picture.shape[-2] - height + 1)
        right = random.integers(picture.shape[-1] - width + 1)
        part = picture[..., down : down + height, right : right + width]
        part = part.flip(-1) if random.random() < 0.5 else part
        # A small painting is not enlarged: it would have no fine texture.
        yield resize(part, min(int(random.integers(*SIDES)), max(part.shape[-2:])))
