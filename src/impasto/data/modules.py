"""The LightningDataModule that hands photos to the trainer in batches.

A batch is a dictionary, in training and in validation:

    "content"   B×3×S×S float32 in [0, 1]: random crops in training, centre crops in validation
    "index"     B int64: the number of each sample. Training counts over all ranks, from the
                beginning of the run. Validation counts its photos.
    "filmed"    training with clips only: a pair of frames for every fourth photo, as the entries
                of `moved.Pair`
"""

import logging
import warnings
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader

from impasto.data import crops, sources
from impasto.data.batches import Batches, Cursors, Loader, PhotoBatches, StreamBatches
from impasto.data.files import find_parquet, is_hub_id
from impasto.data.filmed import FilmedPairs
from impasto.data.moved import frame_side
from impasto.data.sources import Skipped
from impasto.data.streams import StreamedPhotos

_LOG = logging.getLogger("impasto")


class Photos(pl.LightningDataModule):
    """Endless random crops of photos: in `fit`, one Lightning epoch is the whole run.

    Args:
        photos: a folder of photos; a list of folders and files; a Parquet file, a folder or a
            pattern of them; or the id, owner/name, of a dataset of the Hugging Face hub
        split: the split of a hub dataset to use
        image_column: the column that holds the images, if a dataset has several
        streaming: read a dataset while it downloads; no effect on a folder of photos
        crop: side of the square crops in pixels, at least 16
        batch_size: photos per batch and device
        val_photos: photos kept for validation, at most a tenth of all; the same for every seed
        num_workers: processes per device that read photos; 0: photos are read between the steps
        seed: decides the order of the photos and the crops
        clips: a video or a folder of frames, or a list of them, whose motion temporal training
            learns from too
    """

    def __init__(
        self,
        photos: str | list[str] = sources.COCO,
        split: str = "train",
        image_column: str | None = None,
        streaming: bool = False,
        crop: int = 256,
        batch_size: int = 4,
        val_photos: int = 16,
        num_workers: int = 2,
        seed: int = 0,
        clips: str | list[str] | None = None,
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
        self.photos, self.split, self.image_column = photos, split, image_column
        self.streaming, self.crop, self.batch_size = streaming, crop, batch_size
        self.val_photos, self.num_workers, self.seed = val_photos, num_workers, seed
        self.clips = [clips] if isinstance(clips, str) else clips
        self._filmed: FilmedPairs | None = None
        self._source: sources.PhotoCollection | None = None
        self._resumed = 0
        self._cursors = Cursors(num_workers)
        self._skipped: Counter[str] = Counter()

    def setup(self, stage: str | None = None) -> None:
        """Find the photos, and read those for validation.

        Raises:
            ValueError: no photo can be read, or a clip cannot.
        """
        # A new run starts at 0. Lightning loads a checkpoint only after `setup`.
        self._resumed, self._cursors = 0, Cursors(self.num_workers)
        if self._source is not None:
            return
        found = self._find()
        if isinstance(found, StreamedPhotos):
            held, self._source = list(range(len(found))), found
        else:
            # Independent of the seed: runs are compared on these photos.
            order = sources.shuffled(len(found), "validation")
            kept = min(self.val_photos, len(found) // 10)
            held, self._source = order[:kept], found.only(sorted(order[kept:]))
        self._val = self._read(found, held)
        self._release_validation_photos(found)
        if self.clips and stage == "fit":
            self._filmed = FilmedPairs(self.clips, frame_side(self.crop)[0])
        if self.val_photos and not len(self._val):
            why = (
                "none of its photos can be read"
                if held
                else f"it takes one photo of ten, and there are {len(found)}"
            )
            if self._source is found and not isinstance(found, StreamedPhotos):
                why = "training needs the few photos that can be read"
            _LOG.warning("no validation: %s", why)

    def _release_validation_photos(self, found: sources.PhotoCollection) -> None:
        """Give all photos to training if validation has taken the only readable ones.

        This can happen among many damaged files.
        """
        try:
            self.first_photos(1)
        except ValueError:
            if not len(self._val):
                raise
            self._source, self._val = found, self._val[:0]

    def _find(self) -> sources.PhotoCollection:
        if not self.photos:
            raise ValueError(
                "photos is empty: give a folder of photos, Parquet files, or a dataset of the hub"
            )
        source: sources.Source = []
        if isinstance(self.photos, str):
            source = self.photos if is_hub_id(self.photos) else find_parquet(self.photos)
        self._say_idle(source)
        if not source:
            return sources.FolderPhotos(self.photos)
        if self.streaming:
            return StreamedPhotos(source, self.split, self.image_column, self.val_photos)
        return sources.DatasetPhotos(source, self.split, self.image_column)

    def _say_idle(self, source: sources.Source) -> None:
        """Name the options that act on datasets only, if they were given for other photos."""
        idle = ["split"] if self.split != "train" and not isinstance(source, str) else []
        if not source:
            idle += ["image_column"] if self.image_column else []
            idle += ["streaming"] if self.streaming else []
        if idle:
            names = " and ".join(f"--data.{name}" for name in idle)
            kind = "Parquet files" if source else "photos in files"
            _LOG.warning("%s: no effect on %s", names, kind)

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
            if name not in self._skipped:
                _LOG.warning("skipped %s: %s", name, why)
            self._skipped[name] += 1

    def _batches(self, rank: int, world: int) -> Batches:
        kind = StreamBatches if isinstance(self._source, StreamedPhotos) else PhotoBatches
        return kind(
            self._source, self.crop, self.batch_size, self.seed,
            rank=rank, world=world, filmed=self._filmed,
        )  # fmt: skip

    def first_photos(self, n: int) -> Float[Tensor, "n 3 s s"]:
        """Return the first n samples of training, n×3×S×S in [0, 1].

        They are the same for every rank and batch size. For a stream, they are crops of its first
        readable photos in stored order.

        Raises:
            ValueError: no readable photo is found.
        """
        skipped: Skipped = []
        batches = self._batches(0, 1)
        if isinstance(batches, StreamBatches):
            records = (record for record, _ in batches.photos.records())
            samples = [batches.first_crop(records, i, skipped) for i in range(n)]
        else:
            samples = [
                sources.draw(batches.photos, self.crop, self.seed, i, skipped) for i in range(n)
            ]
        self._report(skipped)
        return torch.stack(samples)

    def preview_photos(self, n: int) -> Float[Tensor, "m 3 s s"]:
        """Return the first photos of validation, at most n; without validation, `first_photos`."""
        return self._val[:n] if len(self._val) else self.first_photos(n)

    def train_dataloader(self) -> DataLoader:
        batches = self._batches(*self._rank_of_world())
        return Loader(batches, self._done, self._cursors, self.num_workers, pinned=self._on_gpu())

    def val_dataloader(self) -> DataLoader | list[Any]:
        # The crops are in memory already. Workers would only copy them.
        warnings.filterwarnings("ignore", "The 'val_dataloader' does not have many workers")
        samples: Any = [{"content": pixels, "index": i} for i, pixels in enumerate(self._val)]
        return DataLoader(samples, self.batch_size, pin_memory=self._on_gpu()) if samples else []

    def _on_gpu(self) -> bool:
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def _rank_of_world(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def on_before_batch_transfer(
        self, batch: dict[str, Any], dataloader_idx: int
    ) -> dict[str, Any]:
        """Take the unreadable photos and the cursor out of a batch, report and store them."""
        self._report(batch.pop("skipped", ()))
        if "cursor" in batch:
            self._cursors.note(*batch.pop("cursor"))
        return batch

    def teardown(self, stage: str) -> None:
        if stage == "fit" and self._skipped:
            times = self._skipped.total()
            _LOG.warning(
                "photos that could not be read: %d, met and replaced %d times",
                len(self._skipped),
                times,
            )

    def _done(self) -> int:
        """Return the number of batches that the run has trained on."""
        # Checkpoints are written in on_train_batch_end. `completed` is counted only after that, so
        # read `processed`. `current` restarts with every Lightning epoch, so read `total`.
        # `_resumed` is needed where configure_optimizers asks for the length of the run. That
        # starts the loader before Lightning has restored its loops.
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress if self.trainer else None
        return max(self._resumed, progress.total.processed if progress else 0)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches done and, for a stream, the cursors of all ranks' workers.

        For a stream, all ranks must call this together: they exchange their cursors, because only
        the first rank's state is written.
        """
        done = self._done()
        if not isinstance(self._source, StreamedPhotos):
            return {"batches": done}
        ranks = [self._cursors.before(done)]
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            (mine,), ranks = ranks, [{}] * dist.get_world_size()
            dist.all_gather_object(ranks, mine)
        return {"batches": done, "stream": {"workers": self._cursors.workers, "ranks": ranks}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume at the batch, and for a stream at the cursors, that `state_dict` stored.

        Raises:
            ValueError: the stream was read by another number of ranks or workers.
        """
        self._resumed = state_dict["batches"]
        stream = state_dict.get("stream")
        if not stream or not isinstance(self._source, StreamedPhotos):
            return  # without stored cursors, the workers reread a stream up to the batch
        rank, world = self._rank_of_world()
        was, now = (len(stream["ranks"]), stream["workers"]), (world, self._cursors.workers)
        if was != now:
            shared = "{} devices with {} workers each"
            raise ValueError(
                f"the stream of photos was shared by {shared.format(*was)}, and cannot go on with "
                f"{shared.format(*now)}: set --trainer.devices and --data.num_workers as before, "
                "or begin a new run"
            )
        for batch, cursor in stream["ranks"][rank].items():
            self._cursors.note(batch, cursor)
