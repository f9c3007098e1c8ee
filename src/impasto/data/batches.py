"""Batches without end, made by each worker of each rank from collections or streams, and the loader that asks for them.

What they hold is said in `modules`; here each also has "skipped", a list of (name, reason) of what could not be
read, and from a stream "place": the number of the batch, and where its worker goes on after it.
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
from impasto.data.streams import BEGIN, Place


class Batches(IterableDataset[dict[str, Any]]):
    """Endless whole batches from number `start`; batch k of a rank: samples (k·world + rank)·batch_size + i.

    Two ranks with batches of B therefore see what one process with batches of 2B sees. Worker w of W makes
    batches w, w + W, …: the order in which `DataLoader(batch_size=None)` asks its workers. (Each worker is
    held to one thread by the loader itself.)
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
    """The same of a stream: one item, one sample. The same again only for as many ranks and workers.

    An unreadable item is replaced by another crop of the last good photo of its batch, or else of the first
    good photo its worker has: by nothing that depends on where an interrupted run went on. Each worker keeps
    its part of the stream, so the first batch is the multiple of their number at or below `start`; `Loader`
    drops what is too early. There a worker goes on from the place after its last batch, if `places` has it
    (by the numbers of batches), or else reads the stream again up to there.
    """

    places: dict[int, dict[str, int]] = {}  # noqa: RUF012 - replaced, not changed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = _worker()
        rounds = self.start // workers
        first = rounds * workers + worker
        place = self.places.get(first - workers)
        records = self._records(self.seed, place=Place(**place) if place else BEGIN)
        if not place:
            records = itertools.islice(records, rounds * self.batch_size, None)
        for k in itertools.count(first, workers):
            yield self._next(records, k)

    def _records(self, seed: int | None = None, **options: Any) -> Iterator[tuple[Any, Place]]:
        worker, workers = _worker()
        return self.photos.records(seed, self.rank * workers + worker, self.world * workers, **options)

    def _next(self, records: Iterator[tuple[Any, Place]], k: int) -> dict[str, Any]:
        samples: list[Tensor] = []
        skipped: Skipped = []
        good: list[Any] = []
        place = BEGIN
        for n, (record, after) in zip(self._numbers(k), records, strict=False):
            place = after
            failed: Skipped = []
            others = good or (other for other, _ in self._records())
            samples.append(self.first_crop(itertools.chain([record], others), n, failed))
            skipped += failed[:1]
            good = good if failed else [record]
        return _batch(samples, self._numbers(k), skipped) | {"place": (k, place._asdict())}

    def first_crop(self, records: Iterable[Any], n: int, skipped: Skipped) -> Float[Tensor, "3 s s"]:
        """The crop for sample n, of the first record that can be read. `ValueError` if dozens cannot."""
        for record in itertools.islice(records, sources.TRIES):
            with sources.noting(self.photos.title(record), skipped):
                return crops.crop(sources.opened(record), self.size, sources.seeded("crop", self.seed, n))
        raise sources.unreadable(self.photos.place, skipped)


def _batch(samples: list[Tensor], numbers: range, skipped: Skipped) -> dict[str, Any]:
    return {"content": torch.stack(samples), "index": torch.tensor(numbers), "skipped": skipped}


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C and `timeout` signal the whole process group; a dead worker would cost the checkpoint at the stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """A run that ends in an error may leave workers, and multiprocessing would send them SIGTERM and wait for ever."""
    for process in multiprocessing.active_children():
        process.kill()


class Places:
    """Where the workers of this rank were in a stream after the latest batches: what a checkpoint keeps of it."""

    def __init__(self, workers: int) -> None:
        self.workers = max(1, workers)
        self._after: dict[int, dict[str, int]] = {}

    def note(self, batch: int, place: dict[str, int]) -> None:
        self._after = {k: other for k, other in self._after.items() if k >= batch - 2 * self.workers}
        self._after[batch] = place

    def before(self, batch: int) -> dict[int, dict[str, int]]:
        """By the number of the batch, those to go on from at one: of its round so far, and of the round before."""
        first = (batch // self.workers - 1) * self.workers
        return {k: place for k, place in sorted(self._after.items()) if first <= k < batch}


class Loader(DataLoader):
    """Asks where to start whenever it is begun: `limit_train_batches` begins it once per Lightning epoch."""

    def __init__(self, batches: Batches, where: Callable[[], int], places: Places, workers: int, pinned: bool) -> None:
        # Not persistent: a worker learns where to start when it is started, and it lives for a whole epoch.
        super().__init__(
            batches, None, num_workers=workers, pin_memory=pinned, worker_init_fn=_leave_signals_to_the_trainer
        )
        self.where, self.places = where, places

    def __iter__(self) -> Any:
        batches, start = self.dataset, self.where()
        batches.start = start  # type: ignore[attr-defined]
        early = 0
        if isinstance(batches, StreamBatches):
            batches.places, early = self.places.before(start), start % self.places.workers
        return _plainly(itertools.islice(super().__iter__(), early, None))


def _plainly(batches: Iterator[Any]) -> Iterator[Any]:
    """The error of a worker without the traceback that torch puts into its message."""
    try:
        yield from batches
    except ValueError as error:
        raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error
