"""The folder of a run: who may train in it, its checkpoints, and the one to go on from."""

import io
import logging
import os
import shutil
import socket
import zipfile
from pathlib import Path
from typing import IO, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from impasto.training.schedule import stepped
from impasto.writing import FileError, new_file, sweep

_LOG = logging.getLogger("impasto")
_BEST = "best.ckpt"
_MEGABYTE = 1e6
_claimed: dict[Path, IO[str]] = {}  # open for as long as this process lives


class CheckpointNotWritten(OSError):
    """A checkpoint that could not be written; those before it are as they were."""


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, whatever happens on the way: beside its place, then moved there.

    Lightning's own goes through the folder for temporary files, often another file system, where moving is copying.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """`CheckpointNotWritten`, saying how much space it takes, where the disk is full."""
        path = Path(path)
        buffer = io.BytesIO()  # first, since torch hides what the disk says
        torch.save(checkpoint, buffer)
        try:
            with new_file(path, overwrite=True, durable=True) as file:
                file.write(buffer.getbuffer())
        except (OSError, FileError) as error:
            raise CheckpointNotWritten(_why_not(path, buffer.tell(), error)) from error


def _why_not(path: Path, size: int, error: OSError | FileError) -> str:
    free = shutil.disk_usage(path.parent).free / _MEGABYTE if path.parent.exists() else 0
    said = error.strerror if isinstance(error, OSError) else str(error).removeprefix(f"{path}: ")
    return (
        f"{path}: not written ({said}): it takes {size / _MEGABYTE:.1f} MB, {free:.1f} MB are free there. "
        f"Checkpoints before it are as they were: make room, then go on with --ckpt_path last"
    )


class Checkpoints(Checkpoint):
    """`checkpoints/step-N.ckpt` in the folder of a run, the newest few of them, also when the run ends or is stopped;
    and `best.ckpt`, of the lowest validation loss.

    Args:
        every_n_train_steps: how often.
        keep: how many of the newest stay, at least 2: should one be damaged, the one before it is there.
    """

    def __init__(self, every_n_train_steps: int = 500, keep: int = 3) -> None:
        if every_n_train_steps < 1 or keep < 2:
            raise ValueError(f"checkpoints every {every_n_train_steps} steps, keep {keep}: steps from 1, keep from 2")
        self.every_n_train_steps, self.keep = every_n_train_steps, keep
        self.best = float("inf")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning calls it after those of all other callbacks, whose states are saved."""
        step = trainer.global_step
        due = trainer.should_stop or step == trainer.max_steps or step % self.every_n_train_steps == 0
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
    """Where a run keeps them."""
    return Path(run) / "checkpoints"


def _newest_first(folder: Path) -> list[Path]:
    """By time, not by step: a run may have gone on from an earlier one."""
    found = [path for path in folder.glob("*.ckpt") if path.name != _BEST and not path.name.startswith(".")]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)


def holds_run(run: Path) -> bool:
    """Whether there is something to go on from, damaged or not."""
    return bool(_newest_first(checkpoints(run)))


def newest_checkpoint(run: Path) -> Path | None:
    """The newest whole checkpoint, saying which were passed over; None where there is none, damaged or not.

    Raises:
        ValueError: all are damaged.
    """
    damaged: list[str] = []
    for path in _newest_first(checkpoints(run)):
        if not (why := damage(path)):
            for text in damaged:
                _LOG.warning("%s; going on from %s, the one before", text, path.name)
            return path
        damaged.append(f"{path} is damaged ({why})")
    if damaged:
        raise ValueError(f"{'; '.join(damaged)}: nothing to go on from; begin anew with another --run")
    return None


def damage(path: Path) -> str:
    """What is wrong with a checkpoint; empty where every part of it has the checksum it was written with."""
    try:
        with zipfile.ZipFile(path) as file:
            part = file.testzip()
    except Exception as error:  # what zipfile raises for all that can be wrong has no common class
        return str(error) or type(error).__name__
    return f"{part} is not what was written" if part else ""


def claim(run: Path) -> None:
    """Keeps the folder for this process until it ends, however it ends.

    Raises:
        ValueError: another process trains in it.
    """
    run.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        return
    if run.resolve() in _claimed:  # to open it again, and close that, would give the lock up
        return
    file = (run / ".lock").open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not flock, which the workers would inherit, and outlive us
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read().strip()
        raise ValueError(f"{run}: process {holder} is training in it; choose another folder with --run") from None
    except OSError:  # a file system without locks
        return
    _claimed[run.resolve()] = file
    for folder in (run, checkpoints(run)):  # ours alone from here on
        sweep(folder)
    file.truncate(0)
    file.write(f"{os.getpid()} on {socket.gethostname()}")
    file.flush()
