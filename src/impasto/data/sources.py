"""Collections of photos, and which crop of which photo is sample number n.

A collection is a folder of photos, or a dataset of the package `datasets`. Sample n of a collection
depends only on (seed, n). Ranks, workers, batch sizes and interruptions do not change it. An
unreadable photo is reported and replaced by another. Streams, which can only be read in order, are
in `streams`.
"""

import hashlib
import logging
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

# COCO 2017 has some 117 000 training photos. This copy holds their bytes in Parquet files. Other
# copies on the hub hold links to the photos, or a loading script, which `datasets` has not run
# since version 4.
COCO = "detection-datasets/coco"

TRIES = 64  # unreadable photos in a row before a collection is given up
INSTEAD = "to train on a folder of your own photos, pass --data.photos FOLDER"

Skipped = list[tuple[str, str]]  # (name, reason) of each unreadable photo
Source = str | list[str]  # a dataset of the hub, or Parquet files


@dataclass
class PhotoCollection(ABC):
    """Photos with random access by number.

    Attributes:
        origin: name of the collection in messages.
        keys: for each photo, what a subclass needs to open it, such as its path.
    """

    origin: str
    keys: Sequence[Any]

    def __len__(self) -> int:
        return len(self.keys)

    def name(self, i: int) -> str:
        """Return the name of photo i in messages."""
        return str(self.keys[i])

    @abstractmethod
    def open(self, i: int) -> Image.Image:
        """Return photo i, opened but not decoded. Raises ImageError if it cannot be read."""
        ...

    def only(self, indices: Iterable[int]) -> "PhotoCollection":
        """Return a collection of these photos alone, renumbered from 0; each keeps its name."""
        chosen = copy(self)
        chosen.keys = [self.keys[i] for i in indices]
        return chosen


class FolderPhotos(PhotoCollection):
    """The photos below a folder, at any depth, or those of a list of folders and files.

    Args:
        paths: what `located` accepts.
    """

    def __init__(self, paths: str | Path | list[str]) -> None:
        names = paths if isinstance(paths, list) else [paths]
        found = [(path, path.is_file()) for path in map(located, names)]
        super().__init__(
            str(names[0]),
            [
                photo
                for path, single in found
                for photo in ([path] if single else find_images(path))
            ],
        )

    def open(self, i: int) -> Image.Image:
        return open_image(self.keys[i])


def load_dataset(
    source: Source, split: str, column: str | None, streaming: bool
) -> tuple[Any, str, str]:
    """Load a dataset of images, which stay encoded.

    Args:
        source: id of a dataset of the hub, or a list of Parquet files.
        split: split of the hub dataset to use.
        column: column that holds the images; None: the only one that can.
        streaming: read the dataset while it downloads.

    Returns:
        The dataset with only its image column, the name of that column, and the name of the dataset
        in messages.

    Raises:
        ValueError: it cannot be loaded, or its image column cannot be determined.
    """
    import datasets  # imported here, because a folder of photos does not need it

    for library in ("datasets", "huggingface_hub"):
        # They print their messages, such as a retry, themselves. Ours must not print them again.
        logging.getLogger(library).propagate = False
    files = {} if isinstance(source, str) else {"data_files": source}
    # `datasets` puts local files into one split, "train".
    origin, split = (source[0], "train") if files else (str(source), split)
    try:
        kind = "parquet" if files else origin
        dataset: Any = datasets.load_dataset(kind, split=split, streaming=streaming, **files)
    except Exception as error:
        # Network, hub, file system and Parquet all raise errors of their own kinds.
        why = " ".join(str(error).split()) or type(error).__name__
        what = (
            "cannot be read"
            if files
            else f"no such folder, and no dataset of the hub with a split {split} within reach"
        )
        raise ValueError(f"{origin}: {what}: {why}; {INSTEAD}") from error
    column = _image_column(dataset.features or {}, column, origin)
    # Images stay encoded here. Otherwise a damaged photo would raise inside `datasets`.
    return (
        dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False)),
        column,
        origin,
    )


def _image_column(features: Any, wanted: str | None, origin: str) -> str:
    import datasets

    # A stream may not know its columns before it is read: `features` is then empty.
    if wanted and (wanted in features or not features):
        return wanted
    kinds = {
        name: kind
        for name, kind in features.items()
        if not isinstance(kind, dict) or "bytes" in kind
    }
    found = [name for name, kind in kinds.items() if isinstance(kind, datasets.Image | dict)]
    if wanted or len(found) != 1:
        what = (
            f"no column {wanted}"
            if wanted
            else "several image columns"
            if found
            else "no image column"
        )
        names = ", ".join(found or features) or "its own"
        raise ValueError(f"{origin}: {what}; set --data.image_column to one of: {names}")
    return str(found[0])


def opened(record: Any) -> Image.Image:
    """Open the photo in a record of a dataset; its pixels are not decoded yet.

    Args:
        record: {"bytes", "path"}, as `datasets.Image(decode=False)` returns it.

    Raises:
        ImageError: the record holds no readable image.
    """
    if not record or not (record.get("bytes") or record.get("path")):
        raise ImageError("holds no image")
    if not record.get("bytes"):
        return open_image(record["path"])
    return open_image(UNNAMED, record["bytes"])


class DatasetPhotos(PhotoCollection):
    """A dataset of the hub, given by its id, or a list of local Parquet files."""

    def __init__(
        self, source: Source, split: str = "train", image_column: str | None = None
    ) -> None:
        self._rows, self._column, origin = load_dataset(
            source, split, image_column, streaming=False
        )
        super().__init__(origin, range(len(self._rows)))
        if not self.keys:
            raise ValueError(f"{origin}: the dataset is empty; {INSTEAD}")

    def name(self, i: int) -> str:
        return f"{self.origin} row {self.keys[i]}"

    def open(self, i: int) -> Image.Image:
        return opened(self._rows[self.keys[i]][self._column])


def _number(*key: object) -> int:
    """Return a 63-bit number that depends only on the key, in every process."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest()) >> 1


def seeded(*key: object) -> torch.Generator:
    """Return a random generator for one purpose, which the key names, as in ("crop", seed, n)."""
    return torch.Generator().manual_seed(_number(*key))


@lru_cache(maxsize=2)  # a batch can span two epochs
def shuffled(length: int, *key: object) -> list[int]:
    """Return the permutation of 0 … length − 1 that belongs to a key."""
    return torch.randperm(length, generator=seeded(*key)).tolist()


@contextmanager
def noting(name: str, skipped: Skipped) -> Iterator[None]:
    """Catch an ImageError in the block, and add (name, reason) to `skipped`."""
    try:
        yield
    except ImageError as error:
        # The message begins with the file's name already.
        skipped.append((name, str(error).removeprefix(f"{name}: ").removeprefix(f"{UNNAMED}: ")))


def draw(
    photos: PhotoCollection, size: int, seed: int, n: int, skipped: Skipped
) -> Float[Tensor, "3 s s"]:
    """Return sample n: a random crop of photo n of the endlessly shuffled collection.

    An unreadable photo is replaced by another, chosen at random.

    Args:
        photos: the collection.
        size: side of the crop, in pixels.
        seed: decides the order of the photos and the crops.
        n: number of the sample, counted from the beginning of the run.
        skipped: gets (name, reason) of every unreadable photo.

    Returns:
        RGB in [0, 1].

    Raises:
        ValueError: dozens of photos in a row, or all there are, cannot be read.
    """
    failed: Skipped = []
    for i in _candidates(len(photos), seed, n):
        with noting(photos.name(i), failed):
            sample = crop(photos.open(i), size, seeded("crop", seed, n))
            skipped += failed
            return sample
    raise unreadable(photos.origin, failed)


def _candidates(length: int, seed: int, n: int) -> Iterator[int]:
    """Yield the number of the photo for sample n, then those of photos to replace it."""
    first = shuffled(length, "order", seed, n // length)[n % length]
    yield first
    others = torch.randperm(length, generator=seeded("instead", seed, n)).tolist()
    yield from (i for i in others[:TRIES] if i != first)


def unreadable(origin: str, skipped: Skipped) -> ValueError:
    """Return the error to raise when no photo could be read."""
    name, why = skipped[0]
    return ValueError(
        f"{origin}: no readable photo, {len(skipped)} tried, such as {name}: {why}; {INSTEAD}"
    )
