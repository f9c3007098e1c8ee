"""LightningDataModules: photos in batches.

The batch, for training and validation alike, is a dictionary:

    "content"   B×3×S×S float32 in [0, 1]: random crops for training, centre crops for validation
    "index"     B int64: the numbers of the samples, counted over all ranks from the beginning of the run
                (for validation: the place among the validation photos)
"""

import atexit
import itertools
import logging
import multiprocessing
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from impasto.data import crops, sources
from impasto.data.files import find_parquet
from impasto.data.sources import Skipped

_LOG = logging.getLogger("impasto")


class _Batches(IterableDataset[dict[str, Any]]):
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


class PhotoBatches(_Batches):
    """Batches of a collection; "skipped" is a list of (name, reason), besides "content" and "index"."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = _worker()
        for k in itertools.count(self.start + worker, workers):
            skipped: Skipped = []
            drawn = [sources.draw(self.photos, self.size, self.seed, n, skipped) for n in self._numbers(k)]
            yield _batch(drawn, self._numbers(k), skipped)


class StreamBatches(_Batches):
    """The same of a stream: one item, one sample. The same again only for as many ranks and workers.

    An unreadable item is replaced by another crop of the last good photo of its batch, or else of the first
    good photo its worker has: by nothing that depends on where an interrupted run went on. To go on, the
    stream is read again up to there. Each worker keeps its part of the stream, so the first batch is the
    multiple of their number at or below `start`; `_Loader` drops what is too early.
    """

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker, workers = _worker()
        rounds = self.start // workers
        records = itertools.islice(self._records(self.seed), rounds * self.batch_size, None)
        for k in itertools.count(rounds * workers + worker, workers):
            yield self._next(records, self._numbers(k))

    def _records(self, seed: int | None = None) -> Iterator[Any]:
        return self.photos.records(seed, self.rank, self.world)

    def _next(self, records: Iterator[Any], numbers: range) -> dict[str, Any]:
        samples: list[Tensor] = []
        skipped: Skipped = []
        good: list[Any] = []
        for n, record in zip(numbers, records, strict=False):
            failed: Skipped = []
            samples.append(self.first_crop(itertools.chain([record], good or self._records()), n, failed))
            skipped += failed[:1]
            good = good if failed else [record]
        return _batch(samples, numbers, skipped)

    def first_crop(self, records: Iterable[Any], n: int, skipped: Skipped) -> Float[Tensor, "3 s s"]:
        """The crop for sample n, of the first record that can be read. `ValueError` if dozens cannot."""
        for record in itertools.islice(records, sources.TRIES):
            with sources.noting(self.photos.title(record), skipped):
                return crops.crop(sources.opened(record), self.size, sources.seeded("crop", self.seed, n))
        raise sources.unreadable(self.photos.place, skipped)


def _batch(samples: list[Tensor], numbers: range, skipped: Skipped) -> dict[str, Any]:
    return {"content": torch.stack(samples), "index": torch.tensor(numbers), "skipped": skipped}


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C and `timeout` signal the whole process group; a dead worker would cost the checkpoint at the stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """A run that ends in an error may leave workers, and multiprocessing would send them SIGTERM and wait for ever."""
    for process in multiprocessing.active_children():
        process.kill()


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


class _Loader(DataLoader):
    """Asks where to start whenever it is begun: `limit_train_batches` begins it once per Lightning epoch."""

    where: Callable[[], int]

    def __iter__(self) -> Any:
        start = self.where()
        self.dataset.start = start  # type: ignore[attr-defined]
        batches = super().__iter__()
        if isinstance(self.dataset, StreamBatches):
            for _ in range(start % max(1, self.num_workers)):
                next(batches)
        return batches


class Photos(pl.LightningDataModule):
    """Random crops of photos, without end: in `fit`, one Lightning epoch is the whole run.

    Args:
        photos: a folder of photos, a list of folders and files, or Parquet: a file, a folder, a pattern; goes
            before `dataset`
        dataset: a dataset of the Hugging Face hub, by its id
        split: the part of that dataset to use
        image_column: the column that holds the images, where a dataset has several
        streaming: read a dataset while it downloads, instead of first; no effect on a folder of photos
        crop: side of the square crops in pixels, at least 16
        batch_size: photos per batch and device
        val_photos: photos kept from training for validation, a tenth of all at most; the same for every seed
        num_workers: processes that read photos, per device; 0 reads them between the steps
        seed: decides the order of the photos and the crops
    """

    def __init__(
        self,
        photos: str | list[str] | None = None,
        dataset: str = sources.COCO,
        split: str = "train",
        image_column: str | None = None,
        streaming: bool = False,
        crop: int = 256,
        batch_size: int = 4,
        val_photos: int = 16,
        num_workers: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("crop", crop, 16),
            ("batch_size", batch_size, 1),
            ("val_photos", val_photos, 0),
            ("num_workers", num_workers, 0),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}: must be at least {least}")
        self.photos, self.dataset, self.split, self.image_column = photos, dataset, split, image_column
        self.streaming, self.crop, self.batch_size = streaming, crop, batch_size
        self.val_photos, self.num_workers, self.seed = val_photos, num_workers, seed
        self._source: sources.PhotoCollection | None = None
        self._resumed = 0
        self._reported: set[str] = set()

    def setup(self, stage: str | None = None) -> None:
        """Find the photos and read those for validation. `ValueError` if there is none that can be read."""
        self._resumed = 0  # of this run: Lightning loads a checkpoint after this
        if self._source is not None:
            return
        found = self._find()
        if isinstance(found, sources.StreamedPhotos):
            held, self._source = list(range(len(found))), found
        else:
            order = sources.shuffled(len(found), "validation")  # not the seed's: runs are compared on these
            kept = min(self.val_photos, len(found) // 10)
            held, self._source = order[:kept], found.only(sorted(order[kept:]))
        self._val = self._read(found, held)
        self._give_back_what_training_needs(found)
        if self.val_photos and not len(self._val):
            _LOG.warning("no validation: it takes a tenth of the photos at most, and readable ones")

    def _give_back_what_training_needs(self, found: sources.PhotoCollection) -> None:
        """Among many damaged files, validation may have taken every readable one."""
        try:
            self.first_photos(1)
        except ValueError:
            if not len(self._val):
                raise
            self._source, self._val = found, self._val[:0]

    def _find(self) -> sources.PhotoCollection:
        files = find_parquet(self.photos) if isinstance(self.photos, str) else []
        if self.photos and not files:
            return sources.FolderPhotos(self.photos)
        source = files or self.dataset
        if self.streaming:
            return sources.StreamedPhotos(source, self.split, self.image_column, self.val_photos)
        return sources.DatasetPhotos(source, self.split, self.image_column)

    def _read(self, photos: Any, indices: Iterable[int]) -> Float[Tensor, "n 3 s s"]:
        skipped: Skipped = []
        good = []
        for i in indices:
            with sources.noting(photos.name(i), skipped):
                good.append(crops.center_crop(photos.open(i), self.crop))
        self._report(skipped)
        return torch.stack(good) if good else torch.empty(0, 3, self.crop, self.crop)

    def _report(self, skipped: Iterable[Iterable[str]]) -> None:
        for name, why in skipped:
            if name not in self._reported:
                self._reported.add(name)
                _LOG.warning("skipped %s: %s", name, why)

    def _batches(self, rank: int, world: int) -> _Batches:
        kind = StreamBatches if isinstance(self._source, sources.StreamedPhotos) else PhotoBatches
        return kind(self._source, self.crop, self.batch_size, self.seed, rank=rank, world=world)

    def first_photos(self, n: int) -> Float[Tensor, "n 3 s s"]:
        """The first n samples of training (of a stream, as stored), the same for every rank and batch size."""
        skipped: Skipped = []
        batches = self._batches(0, 1)
        if isinstance(batches, StreamBatches):
            records = batches.photos.records()
            crops = [batches.first_crop(records, i, skipped) for i in range(n)]
        else:
            crops = [sources.draw(batches.photos, self.crop, self.seed, i, skipped) for i in range(n)]
        self._report(skipped)
        return torch.stack(crops)

    def preview_photos(self, n: int) -> Float[Tensor, "m 3 s s"]:
        """At most n photos of validation; without validation, the first n of training."""
        return self._val[:n] if len(self._val) else self.first_photos(n)

    def train_dataloader(self) -> DataLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        workers = self.num_workers
        if isinstance(self._source, sources.StreamedPhotos):
            workers = min(workers, self._source.shards(world))  # one more would have nothing to read
        # Not persistent: a worker learns where to start when it is started, and it lives for a whole epoch.
        loader = _Loader(
            self._batches(rank, world),
            None,
            num_workers=workers,
            pin_memory=self._on_gpu(),
            worker_init_fn=_leave_signals_to_the_trainer,
        )
        loader.where = self._done
        return loader

    def val_dataloader(self) -> DataLoader | list[Any]:
        # They are in memory, cropped: workers would only copy them.
        warnings.filterwarnings("ignore", "The 'val_dataloader' does not have many workers")
        samples: Any = [{"content": pixels, "index": i} for i, pixels in enumerate(self._val)]
        return DataLoader(samples, self.batch_size, pin_memory=self._on_gpu()) if samples else []

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def on_before_batch_transfer(self, batch: dict[str, Any], dataloader_idx: int) -> dict[str, Any]:
        self._report(batch.pop("skipped", ()))
        return batch

    def _done(self) -> int:
        # `processed`, because `completed` is counted only after on_train_batch_end, where checkpoints are
        # written; `total`, because `current` begins again with every Lightning epoch. And the number in our
        # own state, because the loops are restored too late where configure_optimizers asks for the length
        # of the run, which starts the loader.
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress if self.trainer else None
        return max(self._resumed, progress.total.processed if progress else 0)

    def state_dict(self) -> dict[str, int]:
        return {"batches": self._done()}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._resumed = state_dict["batches"]
