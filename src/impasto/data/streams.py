"""Datasets that are read in order, while they download, with exact resume.

A stream is split into parts, one for each worker of each rank. In every epoch, the files are
shuffled and assigned to parts. Each part is shuffled again in blocks of `BLOCK` photos. The order
depends only on the seed, the epoch, the part and the number of parts. So five numbers, a `Cursor`,
say how far a part was read. Resuming opens no earlier file.

torchdata's `StatefulDataLoader` does not resume `datasets` (5.2) exactly. Its state lacks the
content of the shuffle buffer, which is filled anew. On 600 rows with a buffer of 100, a resume lost
63 rows and repeated 13.
"""

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from PIL import Image

from impasto.data.sources import INSTEAD, PhotoCollection, Source, load_dataset, opened, shuffled

_LOG = logging.getLogger("impasto")

# Number of photos shuffled together. They stay encoded: some 30 MB for COCO, in every worker.
BLOCK = 200
# Seconds to wait before each new try of a lost connection.
PAUSES: Sequence[float] = (1, 2, 4, 8, 16, 32, 60, 60)
# Epochs in a row in which a part may get no photo, as can happen with files of a few rows.
_MAX_EMPTY_EPOCHS = 8
# Packages whose errors may be temporary network failures.
_NETWORK = ("aiohttp", "fsspec", "httpx", "huggingface_hub", "requests", "urllib3")


class Cursor(NamedTuple):
    """How far a part of a stream was read.

    Attributes:
        epoch: number of the epoch.
        block: number of the block in the epoch.
        given: photos of the block that were given out already.
        share: where the block begins: index among the files that the part reads in the epoch; see
            `StreamedPhotos._shares`.
        row: where the block begins: row in that file.
    """

    epoch: int = 0
    block: int = 0
    given: int = 0
    share: int = 0
    row: int = 0


BEGIN = Cursor()


class StreamedPhotos(PhotoCollection):
    """A dataset that is read in order, over the network or from local Parquet files.

    Every tenth of the first 10·`held_out` photos is for validation. As a collection, this object
    holds these photos only. `records` yields all others for training. It recognizes validation
    photos by their content, because it reads photos in another order.

    Args:
        source: id of a dataset of the hub, or a list of Parquet files.
        split: split of the hub dataset to use.
        image_column: column that holds the images; None: the only one that can.
        held_out: number of photos for validation.
    """

    def __init__(self, source: Source, split: str, image_column: str | None, held_out: int) -> None:
        self._dataset, self._column, self.origin = load_dataset(
            source, split, image_column, streaming=True
        )
        self._files: int = self._dataset.num_shards
        first = chain.from_iterable(self._file(number, 0) for number in range(self._files))
        super().__init__(self.origin, list(islice(first, 9, 10 * held_out, 10)))
        self._excluded = {_content(record) for record in self.keys}

    def name(self, i: int) -> str:
        return self.title(self.keys[i])

    def open(self, i: int) -> Image.Image:
        return opened(self.keys[i])

    def title(self, record: Any) -> str:
        """Return the name of a record in messages: its path, or a hash of its content."""
        return f"{self.origin} {(record or {}).get('path') or _content(record).hex()}"

    def records(
        self, seed: int | None = None, part: int = 0, parts: int = 1, cursor: Cursor = BEGIN
    ) -> Iterator[tuple[Any, Cursor]]:
        """Yield the encoded photos of one part, endlessly, each with the cursor after it.

        In one epoch, all parts together hold each photo once. Parts differ in length, and each
        begins its next epoch by itself. So after as many samples as there are photos, some photos
        may have come twice and some not at all. Every epoch assigns the files anew, which evens
        this out.

        Args:
            seed: decides the order; None: stored order.
            part: number of the part to read.
            parts: number of parts.
            cursor: where to begin.

        Raises:
            ValueError: the part holds no photo, or the stream breaks off.
        """
        empty = 0
        while empty < _MAX_EMPTY_EPOCHS:
            begun = cursor
            for record, cursor in self._epoch(seed, part, parts, begun):
                yield record, cursor
            empty = empty + 1 if cursor == begun else 0
            cursor = Cursor(cursor.epoch + 1)
        raise ValueError(f"{self.origin}: too few photos to share out; set --data.num_workers to 0")

    def _epoch(
        self, seed: int | None, part: int, parts: int, cursor: Cursor
    ) -> Iterator[tuple[Any, Cursor]]:
        """Yield the photos of one epoch of a part, each with the cursor after it."""
        rows = self._rows(self._shares(seed, cursor.epoch, part, parts), cursor)
        while block := list(islice(rows, BLOCK)):
            order: Sequence[int] = range(len(block))
            if seed is not None:
                order = shuffled(len(block), "block", seed, cursor.epoch, part, cursor.block)
            for given in range(cursor.given, len(block) - 1):
                yield block[order[given]][0], cursor._replace(given=given + 1)
            *_, end = block
            cursor = Cursor(cursor.epoch, cursor.block + 1, 0, *end[1:])
            yield block[order[-1]][0], cursor

    def _shares(
        self, seed: int | None, epoch: int, part: int, parts: int
    ) -> list[tuple[int, int, int]]:
        """Return what a part reads in an epoch, as a list of (file, k, n).

        (file, k, n) means every n-th row of that file, beginning with row k.

        Every part gets the same number of whole files. The files left over are shared row by row.
        So no part is idle if there are fewer files than parts. With files of equal length, parts
        differ by half a file at most.
        """
        files = (
            list(range(self._files))
            if seed is None
            else shuffled(self._files, "files", seed, epoch)
        )
        dealt = len(files) - len(files) % parts
        shares = [(file, 0, 1) for file in files[part:dealt:parts]]
        if left := files[dealt:]:
            which = part % len(left)
            shares.append((left[which], part // len(left), len(range(which, parts, len(left)))))
        return shares

    def _rows(
        self, shares: list[tuple[int, int, int]], cursor: Cursor
    ) -> Iterator[tuple[Any, int, int]]:
        """Yield the training photos of these shares, each with its share's index and next row."""
        for share in range(cursor.share, len(shares)):
            file, first, every = shares[share]
            start = cursor.row if share == cursor.share else 0
            for row, record in enumerate(self._file(file, start), start):
                if row % every == first and _content(record) not in self._excluded:
                    yield record, share, row + 1

    def _file(self, number: int, row: int) -> Iterator[Any]:
        """Yield the records of a file, beginning with `row`.

        After a network failure, it goes on with the row that failed.

        Raises:
            ValueError: the file cannot be read, or all tries of a lost connection fail.
        """
        failures = 0
        while True:
            try:
                for rows in self._dataset.shard(self._files, number).skip(row).iter(1):
                    row, failures = row + 1, 0
                    yield rows[self._column][0]
                return
            except Exception as error:
                # Network, hub, file system and Parquet all raise errors of their own kinds.
                why = " ".join(str(error).split()) or type(error).__name__
                if not _may_pass(error):
                    raise ValueError(
                        f"{self.origin}: the stream cannot be read on: {why}; {INSTEAD}"
                    ) from error
                if failures == len(PAUSES):
                    raise ValueError(_given_up(self.origin, why)) from error
            pause = PAUSES[failures]
            _LOG.warning(
                "%s: connection lost at row %d (%s); next try in %g s", self.origin, row, why, pause
            )
            time.sleep(pause)
            failures += 1


def _may_pass(error: Exception) -> bool:
    """Whether a new try may help: for network errors, unless the server refuses, as with 404."""
    status = getattr(error, "status", None) or getattr(
        getattr(error, "response", None), "status_code", None
    )
    if isinstance(status, int) and 400 <= status < 500:
        return status in (408, 429)
    of_network = type(error).__module__.partition(".")[0] in _NETWORK
    return of_network or isinstance(error, ConnectionError | TimeoutError)


def _given_up(origin: str, why: str) -> str:
    tries = f"tried {len(PAUSES)} times more in {sum(PAUSES):g} seconds"
    return (
        f"{origin}: connection lost, {tries}: {why}; "
        "later, the same command with --ckpt_path last goes on"
    )


def _content(record: Any) -> bytes:
    """Return a hash of a photo's bytes, or of its path if it has none."""
    record = record or {}
    return hashlib.blake2b(
        record.get("bytes") or str(record.get("path")).encode(), digest_size=8
    ).digest()
