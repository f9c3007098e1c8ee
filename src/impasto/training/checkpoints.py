"""The folder of a run: its lock, its checkpoints, and the checkpoint to resume from."""

import io
import logging
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from impasto.training.schedule import stepped
from impasto.writing import FileError, FolderLocked, lock_folder, new_file, remove_locked

_LOG = logging.getLogger("impasto")
_BEST = "best.ckpt"
_MEGABYTE = 1e6


class CheckpointNotWritten(OSError):
    """A checkpoint could not be written; earlier checkpoints are unchanged."""


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all: under a temporary name beside it, then renamed.

    Lightning's own version writes to the folder for temporary files. That is often another file
    system, from which a move is a copy that can be interrupted.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; part of Lightning's interface, with `storage_options` unused.

        Raises:
            CheckpointNotWritten: the file cannot be written. The message gives the space that it
                needs and the space that is free.
        """
        path = Path(path)
        buffer = io.BytesIO()  # torch.save to a file would hide the disk's own error message
        torch.save(checkpoint, buffer)
        try:
            with new_file(path, overwrite=True, durable=True) as file:
                file.write(buffer.getbuffer())
        except (OSError, FileError) as error:
            raise CheckpointNotWritten(_why_not(path, buffer.tell(), error)) from error


def _why_not(path: Path, size: int, error: OSError | FileError) -> str:
    """Return the message of CheckpointNotWritten, for a checkpoint of `size` bytes."""
    free = shutil.disk_usage(path.parent).free / _MEGABYTE if path.parent.exists() else 0
    said = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{path}: ")
    return (
        f"{path}: not written ({said}): it takes {size / _MEGABYTE:.1f} MB, {free:.1f} MB are free "
        "there. Checkpoints before it are as they were: make room, then go on with --ckpt_path last"
    )


class Checkpoints(Checkpoint):
    """Writes `checkpoints/step-N.ckpt`, also at the end of a run or a stop, and `best.ckpt`.

    `best.ckpt` is the checkpoint of the lowest validation loss.

    Args:
        every_n_train_steps: steps between checkpoints.
        keep: how many of the newest checkpoints to keep, at least 2, in case one is damaged.
    """

    def __init__(self, every_n_train_steps: int = 500, keep: int = 3) -> None:
        if every_n_train_steps < 1 or keep < 2:
            raise ValueError(
                f"checkpoints every {every_n_train_steps} steps, keep {keep}: "
                "steps from 1, keep from 2"
            )
        self.every_n_train_steps, self.keep = every_n_train_steps, keep
        self.best = float("inf")

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write a checkpoint if one is due.

        Lightning calls `Checkpoint` callbacks last, so the other callbacks' states are current.
        """
        step = trainer.global_step
        due = (
            trainer.should_stop or step == trainer.max_steps or step % self.every_n_train_steps == 0
        )
        if due and stepped(trainer):
            trainer.save_checkpoint(checkpoints(trainer.default_root_dir) / f"step-{step:06d}.ckpt")
            if trainer.is_global_zero:
                self._remove_old(checkpoints(trainer.default_root_dir))

    def _remove_old(self, folder: Path) -> None:
        for path in _newest_first(folder)[self.keep :]:
            path.unlink(missing_ok=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        training = trainer.state.fn == "fit" and not trainer.sanity_checking and stepped(trainer)
        if loss is not None and training and loss < self.best:
            self.best = float(loss)
            trainer.save_checkpoint(checkpoints(trainer.default_root_dir) / _BEST)

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best = state_dict["best"]


def checkpoints(run: str | Path) -> Path:
    """Return the folder of a run's checkpoints."""
    return Path(run) / "checkpoints"


def _newest_first(folder: Path) -> list[Path]:
    """Return all checkpoints of a folder but `best.ckpt`, newest first.

    The time of the file counts, not the step: a run may have resumed from an earlier step.
    """
    found = [
        path
        for path in folder.glob("*.ckpt")
        if path.name != _BEST and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def holds_run(run: Path) -> bool:
    """Whether the folder holds a checkpoint, damaged or not."""
    return bool(_newest_first(checkpoints(run)))


def newest_checkpoint(run: Path) -> Path | None:
    """Return the newest undamaged checkpoint; newer, damaged ones are named in warnings.

    Returns:
        Its path; None if the run has no checkpoint at all.

    Raises:
        ValueError: all checkpoints are damaged.
    """
    damaged: list[str] = []
    for path in _newest_first(checkpoints(run)):
        if not (why := damage(path)):
            for text in damaged:
                _LOG.warning("%s; going on from %s, the one before", text, path.name)
            return path
        damaged.append(f"{path} is damaged ({why})")
    if damaged:
        raise ValueError(
            f"{'; '.join(damaged)}: nothing to go on from; begin anew with another --run"
        )
    return None


def damage(path: Path) -> str:
    """Return what is wrong with a checkpoint; empty if every part matches its checksum."""
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
    except Exception as error:  # the errors of zipfile have no common class
        return str(error) or type(error).__name__
    return f"{part} is not what was written" if part else ""


def claim(run: Path) -> bool:
    """Lock a run's folder for this process; see `lock_folder`.

    Returns:
        Whether the folder is new.

    Raises:
        ValueError: another process trains in the folder.
    """
    try:
        return lock_folder(run, checkpoints(run))
    except FolderLocked as locked:
        raise ValueError(
            f"{run}: {locked.holder} is training in it; choose another folder with --run"
        ) from None


def abandon(run: Path) -> None:
    """Remove the folder of a run that ended before its first step, and its lock."""
    with suppress(OSError):
        remove_locked(run)
