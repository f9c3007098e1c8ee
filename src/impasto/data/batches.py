"""Endless batches, made by the workers of every rank, and the loader that asks for them.

`modules` says what a batch holds. Here each also has "skipped": (name, reason) of every photo that could not be read.
Batches of a stream have "cursor" too: the number of the batch, and its worker's cursor after it.
"""

import atexit
import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from impasto.data import crops, sources
from impasto.data.sources import Skipped
from impasto.data.streams import BEGIN, Cursor


class Batches(IterableDataset[dict[str, Any]]):
    """Endless whole batches from number `start`. Batch k of a rank holds samples (k·world + rank)·batch_size + i.

    So two ranks with batches of B see what one process with batches of 2B sees. Worker w of W makes batches w,
    w + W, …: the order in which `DataLoader(batch_size=None)` asks its workers.
    """

    def __init__(
        self,
        photos: Any,
        size: int,
        batch_size: int,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.photos, self.size, self.batch_size, self.seed = photos, size, batch_size, seed
        self.start, self.rank, self.world = start, rank, world

    def _numbers(self, k: int) -> range:
        first = (k * self.world + self.rank) * self.batch_size
        return range(first, first + self.batch_size)


class PhotoBatches(Batches):
    """Batches of a collection."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = _worker()
        for k in itertools.count(self.start + worker, workers):
            skipped: Skipped = []
            drawn = [sources.draw(self.photos, self.size, self.seed, n, skipped) for n in self._numbers(k)]
            yield _batch(drawn, self._numbers(k), skipped)


class StreamBatches(Batches):
    """Batches of a stream: one item, one sample. They depend on the number of ranks and workers.

    An unreadable item is replaced by another crop of the last good photo of its batch, or else of the first good photo
    of its worker. Neither depends on where a run was interrupted.

    Each worker keeps its part of the stream. So on resume the first batch is a multiple of the number of workers, at or
    below `start`, and `Loader` drops the batches before `start`. A worker seeks to its cursor in `cursors`, which are
    stored by batch. Without one it rereads the stream up to there.
    """

    cursors: dict[int, dict[str, int]] = {}  # noqa: RUF012 - replaced, not changed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = _worker()
        rounds = self.start // workers
        first = rounds * workers + worker
        cursor = self.cursors.get(first - workers)
        records = self._records(self.seed, cursor=Cursor(**cursor) if cursor else BEGIN)
        if not cursor:
            records = itertools.islice(records, rounds * self.batch_size, None)
        for k in itertools.count(first, workers):
            yield self._next(records, k)

    def _records(self, seed: int | None = None, **options: Any) -> Iterator[tuple[Any, Cursor]]:
        worker, workers = _worker()
        return self.photos.records(seed, self.rank * workers + worker, self.world * workers, **options)

    def _next(self, records: Iterator[tuple[Any, Cursor]], k: int) -> dict[str, Any]:
        samples: list[Tensor] = []
        skipped: Skipped = []
        good: list[Any] = []
        cursor = BEGIN
        for n, (record, after) in zip(self._numbers(k), records, strict=False):
            cursor = after
            failed: Skipped = []
            others = good or (other for other, _ in self._records())
            samples.append(self.first_crop(itertools.chain([record], others), n, failed))
            skipped += failed[:1]
            good = good if failed else [record]
        return _batch(samples, self._numbers(k), skipped) | {"cursor": (k, cursor._asdict())}

    def first_crop(self, records: Iterable[Any], n: int, skipped: Skipped) -> Float[Tensor, "3 s s"]:
        """The crop for sample n, of the first record that can be read. `ValueError` if dozens cannot."""
        for record in itertools.islice(records, sources.TRIES):
            with sources.noting(self.photos.title(record), skipped):
                return crops.crop(sources.opened(record), self.size, sources.seeded("crop", self.seed, n))
        raise sources.unreadable(self.photos.origin, skipped)


def _batch(samples: list[Tensor], numbers: range, skipped: Skipped) -> dict[str, Any]:
    return {"content": torch.stack(samples), "index": torch.tensor(numbers), "skipped": skipped}


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C, `timeout` and a closed terminal signal the whole process group.

    Without its workers a run could write no checkpoint.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows lacks the last
            signal.signal(getattr(signal, name), signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Kills workers that an error left behind. Multiprocessing would send SIGTERM, which they ignore, and wait."""
    for process in multiprocessing.active_children():
        process.kill()


class Cursors:
    """The cursors of this rank's workers after the latest batches, for checkpoints."""

    def __init__(self, workers: int) -> None:
        self.workers = max(1, workers)
        self._after: dict[int, dict[str, int]] = {}

    def note(self, batch: int, cursor: dict[str, int]) -> None:
        self._after = {k: other for k, other in self._after.items() if k >= batch - 2 * self.workers}
        self._after[batch] = cursor

    def before(self, batch: int) -> dict[int, dict[str, int]]:
        """The cursors, by batch, that resuming at `batch` needs: of its round so far, and of the round before."""
        first = (batch // self.workers - 1) * self.workers
        return {k: cursor for k, cursor in sorted(self._after.items()) if first <= k < batch}


class Loader(DataLoader):
    """Asks where to start at every `iter`, which `limit_train_batches` calls once per Lightning epoch."""

    def __init__(
        self, batches: Batches, where: Callable[[], int], cursors: Cursors, workers: int, pinned: bool
    ) -> None:
        # Not persistent: a worker learns where to start when it is started, and it lives for a whole epoch.
        super().__init__(
            batches, None, num_workers=workers, pin_memory=pinned, worker_init_fn=_leave_signals_to_the_trainer
        )
        self.where, self.cursors = where, cursors

    def __iter__(self) -> Any:
        batches, start = self.dataset, self.where()
        batches.start = start  # type: ignore[attr-defined]
        early = 0
        if isinstance(batches, StreamBatches):
            batches.cursors, early = self.cursors.before(start), start % self.cursors.workers
        return _plainly(itertools.islice(super().__iter__(), early, None))


def _plainly(batches: Iterator[Any]) -> Iterator[Any]:
    """The error of a worker without the traceback that torch puts into its message."""
    try:
        yield from batches
    except ValueError as error:
        raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error
