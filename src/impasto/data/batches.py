"""Endless batches, made by the workers of every rank, and their loader.

A batch has the entries that `modules` documents, and two more, which `modules` removes:

    "skipped"   (name, reason) of every photo that could not be read
    "cursor"    streams only: the number of the batch, and its worker's cursor after the batch
"""

import atexit
import itertools
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from impasto.data import crops, sources
from impasto.data.filmed import FilmedPairs
from impasto.data.moved import PAIRED_EVERY
from impasto.data.sources import Skipped
from impasto.data.streams import BEGIN, Cursor

# The signals that stop a run. Windows has no SIGHUP.
_STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Batches(IterableDataset[dict[str, Any]]):
    """Endless batches of full size.

    Batch k of a rank holds the samples (k·world + rank)·batch_size + i. Together, two ranks with
    batches of B therefore have the sample numbers of one process with batches of 2B.

    Worker w of W makes every W-th batch, because `DataLoader(batch_size=None)` asks its workers in
    turn.

    Args:
        photos: a `PhotoCollection`; a `StreamedPhotos` for `StreamBatches`.
        size: side of the square crops, in pixels.
        batch_size: samples per batch and rank.
        seed: decides the order of the photos and the crops.
        start: number of the first batch.
        rank: number of this rank.
        world: number of ranks.
        filmed: pairs of frames to add to the batches; None: no pairs.
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
        filmed: FilmedPairs | None = None,
    ) -> None:
        self.photos, self.size, self.batch_size, self.seed = photos, size, batch_size, seed
        self.start, self.rank, self.world, self.filmed = start, rank, world, filmed

    def _numbers(self, k: int) -> range:
        first = (k * self.world + self.rank) * self.batch_size
        return range(first, first + self.batch_size)

    def _batch(self, samples: list[Tensor], numbers: range, skipped: Skipped) -> dict[str, Any]:
        batch: dict[str, Any] = {
            "content": torch.stack(samples), "index": torch.tensor(numbers), "skipped": skipped
        }  # fmt: skip
        if self.filmed is not None:
            pairs = [self.filmed.draw(self.seed, n) for n in numbers[::PAIRED_EVERY]]
            batch["filmed"] = {
                name: torch.stack([pair[name] for pair in pairs]) for name in pairs[0]
            }
        return batch


class PhotoBatches(Batches):
    """Batches of a collection with random access. Sample n depends on the seed and n only."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = _worker()
        for k in itertools.count(self.start + worker, workers):
            skipped: Skipped = []
            drawn = [
                sources.draw(self.photos, self.size, self.seed, n, skipped)
                for n in self._numbers(k)
            ]
            yield self._batch(drawn, self._numbers(k), skipped)


class StreamBatches(Batches):
    """Batches of a stream. Each record of the stream gives one sample.

    The batches depend on the number of ranks and workers, because each worker reads a part of the
    stream.

    An unreadable record is replaced by another crop of the last good photo of its batch, or else of
    the first good photo of its worker's part. Both are the same whether or not a run was
    interrupted.

    A worker must make the same batches after a resume. So the first batch is a multiple of the
    number of workers, at or below `start`, and `Loader` drops the batches before `start`. On
    resume, a worker seeks to its cursor; without one, it rereads its part up to there.

    Attributes:
        cursors: for each batch number, the cursor of the batch's worker after that batch.
    """

    cursors: dict[int, dict[str, int]] = {}  # noqa: RUF012 - replaced, never changed in place

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
        return self.photos.records(
            seed, self.rank * workers + worker, self.world * workers, **options
        )

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
        return self._batch(samples, self._numbers(k), skipped) | {"cursor": (k, cursor._asdict())}

    def first_crop(
        self, records: Iterable[Any], n: int, skipped: Skipped
    ) -> Float[Tensor, "3 s s"]:
        """Return the crop for sample n, from the first readable record.

        Args:
            records: encoded photos, tried in order, at most `sources.TRIES` of them.
            n: number of the sample, which decides the crop.
            skipped: gets (name, reason) of every unreadable record.

        Raises:
            ValueError: none of these records can be read.
        """
        for record in itertools.islice(records, sources.TRIES):
            with sources.noting(self.photos.title(record), skipped):
                return crops.crop(
                    sources.opened(record), self.size, sources.seeded("crop", self.seed, n)
                )
        raise sources.unreadable(self.photos.origin, skipped)


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def _ignore_signals(worker: int) -> None:
    """Make a worker ignore the signals that stop a run.

    Ctrl-C, `timeout` and a closed terminal signal the whole process group. If workers ended too,
    the trainer could not finish its step and write a checkpoint.
    """
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold back the signals that stop a run, also in processes that start meanwhile.

    A worker would otherwise be killed by a signal that comes before `_ignore_signals` has run.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


@atexit.register
def _end_workers() -> None:
    """Kill the workers that an error left behind.

    Multiprocessing itself would send SIGTERM, which they ignore, and then wait for them.
    """
    for process in multiprocessing.active_children():
        process.kill()


class Cursors:
    """The cursors of this rank's workers after the latest batches, for checkpoints.

    Args:
        workers: `num_workers` of the loader; 0, reading in the main process, counts as one worker.
    """

    def __init__(self, workers: int) -> None:
        self.workers = max(1, workers)
        self._after: dict[int, dict[str, int]] = {}

    def note(self, batch: int, cursor: dict[str, int]) -> None:
        """Store the cursor of a batch's worker after that batch, and drop the old ones."""
        self._after = {
            k: other for k, other in self._after.items() if k >= batch - 2 * self.workers
        }
        self._after[batch] = cursor

    def before(self, batch: int) -> dict[int, dict[str, int]]:
        """Return the cursors, by batch number, that a resume at `batch` needs.

        In a round, every worker makes one batch. The resume needs the cursors of the round before,
        and of the round of `batch` up to `batch`.
        """
        first = (batch // self.workers - 1) * self.workers
        return {k: cursor for k, cursor in sorted(self._after.items()) if first <= k < batch}


class Loader(DataLoader):
    """Loader that begins with batch number `where()`.

    `where` is called at every `iter`. Lightning calls `iter` once per Lightning epoch, which
    `limit_train_batches` can make shorter than the run.

    Args:
        batches: makes the batches; its `start` is set here.
        where: returns the number of the next batch.
        cursors: positions in a stream, to resume from.
        workers: number of worker processes; 0: the main process reads.
        pinned: whether to copy batches to pinned memory, for a GPU.
    """

    def __init__(
        self,
        batches: Batches,
        where: Callable[[], int],
        cursors: Cursors,
        workers: int,
        pinned: bool,
    ) -> None:
        # Workers are not persistent: a worker gets `start` only when it is started. Workers live
        # for a whole Lightning epoch, so starting them anew costs little.
        super().__init__(
            batches,
            None,
            num_workers=workers,
            pin_memory=pinned,
            worker_init_fn=_ignore_signals,
        )
        self.where, self.cursors = where, cursors

    def __iter__(self) -> Any:
        batches, start = self.dataset, self.where()
        batches.start = start  # type: ignore[attr-defined]
        early = 0
        if isinstance(batches, StreamBatches):
            batches.cursors, early = self.cursors.before(start), start % self.cursors.workers
        with _signals_held():
            loaded = super().__iter__()  # starts the workers
        return _without_traceback(itertools.islice(loaded, early, None))


def _without_traceback(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the batches, and reduce the message of a worker's ValueError to its last line.

    Torch puts the worker's whole traceback into the message.
    """
    try:
        yield from batches
    except ValueError as error:
        raise ValueError(
            str(error).strip().splitlines()[-1].removeprefix("ValueError: ")
        ) from error
