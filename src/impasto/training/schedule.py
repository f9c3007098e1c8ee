"""How much of a run is done, by steps or by the clock, and the learning rate that follows it."""

import time
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist

# Share of a run over which the learning rate falls. After 2,800 photos the loss was 3 % lower than
# with a cosine over the whole run (checkpoints/notebook.md).
COOLDOWN = 0.3


def rate_factor(step: int, warmup_steps: int, share: float) -> float:
    """Return the factor of the learning rate, from 0 to 1: it rises, stays at 1, and falls.

    Both are linear. Hägele et al. 2024 call the fall a cooldown.

    Args:
        step: number of the step, from 0.
        warmup_steps: steps over which the factor rises.
        share: share of the run that is done; the factor reaches 0 at 1.
    """
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return warm * min(1.0, max(0.0, 1 - share) / COOLDOWN)


class Schedule(pl.Callback):
    """Sets the learning rate of every step, and ends a run by the clock.

    The rate follows the share of the run that is done: step / max_steps. With `minutes`, the
    share is the time spent training over `minutes`, or step / max_steps if that is larger. Time
    before a resume counts. So a run ends at a learning rate of 0 on a machine of any speed.

    The rate is computed from the module's `highest_rates`, not restored with the optimizer. A
    learning rate given on resume therefore takes effect.

    `stepped` tells whether the last batch completed a step. With gradient accumulation a step
    takes several batches, and no checkpoint is written between them, since checkpoints do not
    hold accumulated gradients.

    Args:
        minutes: length of the run; `trainer.max_steps` may end it earlier. None: steps alone.
    """

    def __init__(self, minutes: float | None = None) -> None:
        if minutes is not None and not minutes > 0:
            raise ValueError(f"--minutes {minutes}: must be above 0")
        self.minutes = minutes
        # Seconds spent before the run was resumed, and the time at which this part began.
        self._before, self._began = 0.0, time.monotonic()
        self.share = 0.0
        self.stepped, self._steps = True, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began, self._steps = time.monotonic(), trainer.global_step
        self._measure(trainer)
        if self.finished:  # the run was resumed at its end
            trainer.should_stop = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        optimizer = trainer.optimizers[0]
        factor = rate_factor(trainer.global_step, int(pl_module.warmup_steps), self.share)  # type: ignore[arg-type]
        for group, highest in zip(optimizer.param_groups, pl_module.highest_rates, strict=True):  # type: ignore[arg-type]
            group["lr"] = factor * highest

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self.stepped, self._steps = trainer.global_step > self._steps, trainer.global_step
        self._measure(trainer)
        if self.minutes is not None and self.finished and self.stepped:
            trainer.should_stop = True

    @property
    def finished(self) -> bool:
        """Whether the run reached its full length; a stopped run did not."""
        return self.share >= 1

    @property
    def spent(self) -> float:
        """Seconds of training so far, including the time before a resume."""
        return self._before + time.monotonic() - self._began

    def _measure(self, trainer: pl.Trainer) -> None:
        self.share = trainer.global_step / max(1, trainer.max_steps)
        if self.minutes is None:
            return
        share = self.spent / (60 * self.minutes)
        if dist.is_available() and dist.is_initialized():
            # All ranks take rank 0's clock: with different rates their weights would diverge.
            clock = torch.tensor(share, device=trainer.strategy.root_device)
            dist.broadcast(clock, 0)
            share = float(clock)
        self.share = max(self.share, share)

    def state_dict(self) -> dict[str, float]:
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._before = state_dict["spent"]


def finished(trainer: pl.Trainer) -> bool:
    """Whether the run reached its full length, as its `Schedule` callback knows."""
    return any(
        callback.finished
        for callback in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(callback, Schedule)
    )


def stepped(trainer: pl.Trainer) -> bool:
    """Whether the last batch completed an optimizer step, as the `Schedule` callback knows."""
    return all(callback.stepped for callback in trainer.callbacks if isinstance(callback, Schedule))  # type: ignore[attr-defined]
