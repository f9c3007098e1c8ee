"""Callbacks of a training run: progress, table of losses, previews, and a safe stop by a signal."""

import csv
import io
import os
import signal
import time
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from impasto.images import channels
from impasto.images.sheets import contact_sheet
from impasto.training.schedule import Schedule, finished, stepped
from impasto.writing import new_file, write_text

BAR_WIDTH = 10
BETWEEN_DRAWINGS = 0.2  # seconds between updates of the bar: reading the terms waits for the GPU
_HANGUP = getattr(signal, "SIGHUP", None)  # sent when a terminal is closed; Windows lacks it


class ShowProgress(pl.callbacks.ProgressBar):
    """A progress bar with time left, step, loss terms and photos per second.

    Without a terminal, as in a log file, a line is printed now and then instead.

    Args:
        schedule: tells how much of the run is done.
        seconds_between_lines: time between two lines without a terminal.
    """

    def __init__(self, schedule: Schedule, seconds_between_lines: float = 30.0) -> None:
        super().__init__()
        self.schedule, self.seconds_between_lines = schedule, seconds_between_lines
        self.console = Console(stderr=True)
        self.bar: Progress | None = None

    def disable(self) -> None:
        """Print nothing; Lightning calls this on ranks above 0."""
        self.console.quiet = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # -inf: the first step is shown at once.
        self.photos, self.began, self.said = 0, time.monotonic(), float("-inf")
        columns = (BarColumn(BAR_WIDTH), TextColumn("{task.description}"))
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=1, completed=0)
        self.share_at_start = self.schedule.share
        self.bar.start()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.photos += len(batch["content"]) * trainer.world_size
        quiet = time.monotonic() - self.said
        if quiet < (BETWEEN_DRAWINGS if self.console.is_terminal else self.seconds_between_lines):
            return
        self.said = time.monotonic()
        seconds, share = self.said - self.began, self.schedule.share
        left = seconds * max(0.0, 1 - share) / max(1e-9, share - self.share_at_start)
        terms = {
            name.removeprefix("train/"): float(value)
            for name, value in trainer.progress_bar_metrics.items()
        }
        parts = [  # the most important first: a narrow terminal shows only those
            f"{timedelta(seconds=round(left))} left",
            f"step {trainer.global_step}"
            + ("" if self.schedule.minutes else f"/{trainer.max_steps}"),
            *(
                f"{name} {terms[name]:.3f}"
                for name in sorted(terms, key=lambda name: name != "loss")
            ),
            f"{self.photos / max(1e-9, seconds):.1f} photos/s",
        ]
        assert self.bar is not None
        self.bar.update(
            self.task,
            completed=share,
            description=_fitting(parts, self.console.width - BAR_WIDTH - 1),
        )
        if not self.console.is_terminal:
            self.console.print("  ".join(parts), soft_wrap=True)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=self.schedule.share)
            self.bar.stop()

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line of Lightning's above the bar."""
        self.console.print(*args)


def _fitting(parts: list[str], width: int) -> str:
    """Join the first parts, as many as fit into `width` characters and at least one."""
    lines = list(accumulate(parts, "{}  {}".format))
    return max((line for line in lines if len(line) <= width), key=len, default=parts[0])


class LossTable(pl.Callback):
    """Writes `losses.csv` in the run's folder: a row for each logged step and each validation.

    The row of a step holds the learning rate and the `train/` terms, that of a validation the
    `val/` terms. With gradient accumulation, the terms of a step are means over its batches.

    Lightning's CSVLogger deletes its table when a run is resumed. This one continues it. Rows
    after the checkpoint are removed first, since the resumed run writes them again.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Not in on_fit_start: Lightning restores the step of a resumed run after that hook.
        self.path = Path(trainer.default_root_dir) / "losses.csv"
        self.rows: list[dict[str, str]] = []
        self.columns: list[str] = []
        self.batches: list[dict[str, float]] = []  # terms of the current step's batches
        if trainer.is_global_zero and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [
                    row for row in csv.DictReader(file) if int(row["step"]) <= trainer.global_step
                ]
            self.rows = rows
            self._write_anew()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        done = stepped(trainer)
        step = trainer.global_step if done else trainer.global_step + 1  # the step of this batch
        if not trainer.is_global_zero or not every or step % every:
            return
        self.batches.append(_metrics(trainer, "train/"))
        if done:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            terms = {name: fmean(batch[name] for batch in self.batches) for name in self.batches[0]}
            self._add(step, {"learning_rate": rate, **terms})
            self.batches = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking and trainer.state.fn == "fit":
            self._add(trainer.global_step, _metrics(trainer, "val/"))

    def _add(self, step: int, values: dict[str, float]) -> None:
        # repr keeps every bit of a float, so that a resumed run can be compared exactly.
        self._write(
            {"step": str(step), **{name: repr(float(value)) for name, value in values.items()}}
        )

    def _write(self, row: dict[str, str]) -> None:
        """Append a row, or rewrite the table if the row brings new columns, as validation does."""
        self.rows.append(row)
        if any(name not in self.columns for name in row):
            self._write_anew()
            return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    def _write_anew(self) -> None:
        """Rewrite the table whole or not at all: a run killed meanwhile keeps the old table."""
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, self.columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, table.getvalue(), overwrite=True)


def _metrics(trainer: pl.Trainer, prefix: str) -> dict[str, float]:
    """Return the logged values whose names start with `prefix`."""
    found = {
        name: value for name, value in trainer.callback_metrics.items() if name.startswith(prefix)
    }
    return {name: float(value) for name, value in found.items()}


class Previews(pl.Callback):
    """Contact sheets of the same photos in every style, in the run's folder and TensorBoard.

    Args:
        every_n_steps: steps between sheets (`previews/step-N.jpg`); the end of the run has one
            too; 0: never.
        photos: photos on a sheet, at least 1: those kept for validation, or else the first of
            training.
    """

    def __init__(self, every_n_steps: int = 500, photos: int = 4) -> None:
        if photos < 1 or every_n_steps < 0:
            raise ValueError(
                f"previews of {photos} photos every {every_n_steps} steps: "
                "photos from 1, steps from 0"
            )
        self.every_n_steps, self.photos = every_n_steps, photos

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        due = finished(trainer) or (
            self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        )
        if due and self.every_n_steps and stepped(trainer) and trainer.is_global_zero:
            self._paint(trainer, pl_module)

    @torch.no_grad()
    def _paint(self, trainer: pl.Trainer, pl_module: Any) -> None:
        photos = trainer.datamodule.preview_photos(self.photos).to(pl_module.device)  # type: ignore[attr-defined]
        codes = {name: code for name, (code, _) in pl_module.shown().items()}
        rows = [
            [photo, *(pl_module.network(photo, code) for code in codes.values())]
            for photo in photos.split(1)
        ]
        rows = [[picture.float().cpu() for picture in row] for row in rows]
        sheet = contact_sheet(rows, column_labels=["photo", *codes])
        folder = Path(trainer.default_root_dir) / "previews"
        with new_file(folder / f"step-{trainer.global_step:06d}.jpg", overwrite=True) as file:
            sheet.save(file, "JPEG", quality=90)
        if isinstance(trainer.logger, TensorBoardLogger):
            step = trainer.global_step
            trainer.logger.experiment.add_image("previews", channels(sheet), step)


class StopSafely(pl.Callback):
    """Ends the run after the current step on Ctrl-C, SIGTERM or SIGHUP.

    `Checkpoints` then writes a checkpoint of that step. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.number = 0  # the signal that this process received
        self.status = 0  # exit status of the run: 128 + the signal, if one stopped it
        self._former: dict[int, Any] = {}
        self._screens: list[int] = []  # those of stdin, stdout and stderr that are a terminal

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Found now, since isatty no longer knows a terminal that was closed.
        self._screens = [number for number in (0, 1, 2) if os.isatty(number)]
        # Not in setup: Lightning installs its own SIGTERM handler between setup and this hook.
        numbers = [signal.SIGINT, signal.SIGTERM]
        if _HANGUP and signal.getsignal(_HANGUP) is not signal.SIG_IGN:  # nohup ignores it
            numbers.append(_HANGUP)
        self._former = {number: signal.signal(number, self._ask) for number in numbers}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        """Note a signal, for the end of the step; end the process if it is the second."""
        if self.number:
            os.write(2, b"stopped at once; the checkpoints before this step are whole\n")
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.number = number
        if number == _HANGUP:
            # A session's first process may be signalled twice, by itself and with its group.
            signal.signal(number, signal.SIG_IGN)
            # Writing to the closed terminal would fail before the checkpoint is written.
            nowhere = os.open(os.devnull, os.O_RDWR)
            for screen in self._screens:
                os.dup2(nowhere, screen)
            os.close(nowhere)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if not stepped(trainer):  # a checkpoint does not hold accumulated gradients
            return
        asked = bool(self.number)
        if trainer.world_size > 1:  # every rank must stop at the same step
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            # The signal may have reached another machine only. Every process exits as if it had.
            self.status = 128 + (self.number or signal.SIGTERM)
            trainer.limit_val_batches = 0  # Lightning would validate first, which takes minutes
            trainer.should_stop = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}
