"""Where photos come from, and which crop of which photo is sample number n.

Of a collection (a folder, or a dataset through `datasets`), sample n is a pure function of (seed, n): ranks,
workers, batch sizes and interruptions change nothing. (A stream can only be read in order: `streams`.) What
cannot be read is named and replaced.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from impasto.data.crops import UNNAMED, crop
from impasto.data.files import find_images, located
from impasto.images import ImageError, open_image

# COCO 2017, some 117 000 photos for training, as bytes inside its Parquet files. Other copies on the hub hold
# links to the photos, or a loading script, which `datasets` has not run since version 4.
COCO = "detection-datasets/coco"

TRIES = 64  # unreadable photos in a row before a collection is given up
INSTEAD = "to train on a folder of your own photos, pass --data.photos FOLDER"

Skipped = list[tuple[str, str]]  # (name, reason)
Source = str | list[str]  # a dataset of the hub, or Parquet files


@dataclass
class PhotoCollection(ABC):
    """Photos by number. `open` raises `ImageError` for one that cannot be read; `origin` names them in messages."""

    origin: str
    keys: Sequence[Any]

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, i: int) -> str:
        return str(self.keys[i])

    @abstractmethod
    def open(self, i: int) -> Image.Image: ...

    def only(self, indices: Iterable[int]) -> "PhotoCollection":
        """These photos alone, renumbered from 0; each keeps its name."""
        chosen = copy(self)
        chosen.keys = [self.keys[i] for i in indices]
        return chosen


class FolderPhotos(PhotoCollection):
    """The photos below a folder, at any depth; or those of a list of folders and files (`located`)."""

    def __init__(self, paths: str | Path | list[str]) -> None:
        names = paths if isinstance(paths, list) else [paths]
        found = [(path, path.is_file()) for path in map(located, names)]
        super().__init__(
            str(names[0]), [photo for path, single in found for photo in ([path] if single else find_images(path))]
        )

    def open(self, i: int) -> Image.Image:
        return open_image(self.keys[i])


def load_dataset(source: Source, split: str, column: str | None, streaming: bool) -> tuple[Any, str, str]:
    """A `datasets` dataset of nothing but encoded images; the name of their column, and of where it is from.

    `ValueError` where it cannot be loaded, or which column holds the images is not to be told."""
    import datasets  # here, because a folder of photos has no use for it

    files = {} if isinstance(source, str) else {"data_files": source}
    origin, split = (source[0], "train") if files else (str(source), split)  # files have one split
    try:
        kind = "parquet" if files else origin
        dataset: Any = datasets.load_dataset(kind, split=split, streaming=streaming, **files)
    except Exception as error:  # network, hub, file system, Parquet: each raises its own kind
        why = " ".join(str(error).split()) or type(error).__name__
        what = (
            "cannot be read"
            if files
            else f"no such folder, and no dataset of the hub with a split {split} within reach"
        )
        raise ValueError(f"{origin}: {what}: {why}; {INSTEAD}") from error
    column = _image_column(dataset.features or {}, column, origin)
    # Decoding is ours: one damaged photo would otherwise raise from inside `datasets`.
    return dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False)), column, origin


def _image_column(features: Any, wanted: str | None, origin: str) -> str:
    import datasets

    if wanted and (wanted in features or not features):  # a stream need not know its columns beforehand
        return wanted
    kinds = {name: kind for name, kind in features.items() if not isinstance(kind, dict) or "bytes" in kind}
    found = [name for name, kind in kinds.items() if isinstance(kind, datasets.Image | dict)]
    if wanted or len(found) != 1:
        what = f"no column {wanted}" if wanted else "several image columns" if found else "no image column"
        names = ", ".join(found or features) or "its own"
        raise ValueError(f"{origin}: {what}; set --data.image_column to one of: {names}")
    return str(found[0])


def opened(record: Any) -> Image.Image:
    """What `Image(decode=False)` gives, {"bytes", "path"}, ready for a crop; `ImageError` for no image."""
    if not record or not (record.get("bytes") or record.get("path")):
        raise ImageError("holds no image")
    if not record.get("bytes"):
        return open_image(record["path"])
    return open_image(UNNAMED, record["bytes"])


class DatasetPhotos(PhotoCollection):
    """A dataset of the hub (its id), or local Parquet files (a list), with random access."""

    def __init__(self, source: Source, split: str = "train", image_column: str | None = None) -> None:
        self._rows, self._column, origin = load_dataset(source, split, image_column, streaming=False)
        super().__init__(origin, range(len(self._rows)))
        if not self.keys:
            raise ValueError(f"{origin}: the dataset is empty; {INSTEAD}")

    def name(self, i: int) -> str:
        return f"{self.origin} row {self.keys[i]}"

    def open(self, i: int) -> Image.Image:
        return opened(self._rows[self.keys[i]][self._column])


def _number(*key: object) -> int:
    """A 63-bit number that depends on nothing but the key, in every process."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest()) >> 1


def seeded(*key: object) -> torch.Generator:
    """A random generator for one purpose: the key says which, as in ("crop", seed, n)."""
    return torch.Generator().manual_seed(_number(*key))


@lru_cache(maxsize=2)  # a batch can span two epochs
def shuffled(length: int, *key: object) -> list[int]:
    """The permutation of 0 … length − 1 that belongs to a key."""
    return torch.randperm(length, generator=seeded(*key)).tolist()


@contextmanager
def noting(name: str, skipped: Skipped) -> Iterator[None]:
    """Ends quietly at an `ImageError`, adding (name, reason) to `skipped`."""
    try:
        yield
    except ImageError as error:
        # images.py begins with the file's name.
        skipped.append((name, str(error).removeprefix(f"{name}: ").removeprefix(f"{UNNAMED}: ")))


def draw(photos: PhotoCollection, size: int, seed: int, n: int, skipped: Skipped) -> Float[Tensor, "3 s s"]:
    """Sample n: a crop of photo n of the endlessly shuffled collection, or of another if that is unreadable.

    What could not be read is added to `skipped`. `ValueError` if dozens in a row, or all there are, cannot.
    """
    failed: Skipped = []
    for i in _candidates(len(photos), seed, n):
        with noting(photos.name(i), failed):
            sample = crop(photos.open(i), size, seeded("crop", seed, n))
            skipped += failed
            return sample
    raise unreadable(photos.origin, failed)


def _candidates(length: int, seed: int, n: int) -> Iterator[int]:
    first = shuffled(length, "order", seed, n // length)[n % length]
    yield first
    others = torch.randperm(length, generator=seeded("instead", seed, n)).tolist()
    yield from (i for i in others[:TRIES] if i != first)


def unreadable(origin: str, skipped: Skipped) -> ValueError:
    """What to raise when nothing could be read."""
    name, why = skipped[0]
    return ValueError(f"{origin}: no readable photo, {len(skipped)} tried, such as {name}: {why}; {INSTEAD}")
