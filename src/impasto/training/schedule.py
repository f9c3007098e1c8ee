"""How far a run is, by steps or by the clock, and the learning rate that goes with it."""

import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist


def warmup_cosine(step: int, warmup_steps: int, share: float) -> float:
    """The factor of the learning rate: rises linearly over `warmup_steps`, falls along a cosine to 0 at share 1."""
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


class Schedule(pl.Callback):
    """Sets the learning rate of every step by the share of the run that is done, and ends a run by the clock.

    The share is step / max_steps. With `minutes` it is the time spent training, in earlier parts of the run too, over
    `minutes`, unless steps are ahead: a run ends properly, at a learning rate of 0, on a machine of any speed.

    The rate is set from the module's own values, not restored with the optimizer: what is asked for on resume acts.

    It also knows whether the last batch completed a step (`stepped`), which takes several batches where gradients are
    accumulated: what they come to is in no checkpoint.

    Args:
        minutes: length of the run, which `trainer.max_steps` may end before; None: steps alone decide.
    """

    def __init__(self, minutes: float | None = None) -> None:
        if minutes is not None and not minutes > 0:
            raise ValueError(f"--minutes {minutes}: must be above 0")
        self.minutes = minutes
        self._before, self._began = 0.0, time.monotonic()  # seconds in earlier parts; when this part began
        self.share = 0.0
        self.stepped, self._steps = True, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began, self._steps = time.monotonic(), trainer.global_step
        self._measure(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        optimizer = trainer.optimizers[0]
        factor = warmup_cosine(trainer.global_step, int(pl_module.warmup_steps), self.share)  # type: ignore[arg-type]
        for group, highest in zip(optimizer.param_groups, pl_module.highest_rates, strict=True):  # type: ignore[arg-type]
            group["lr"] = factor * highest

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.stepped, self._steps = trainer.global_step > self._steps, trainer.global_step
        self._measure(trainer)
        if self.minutes is not None and self.finished and self.stepped:
            trainer.should_stop = True

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end, and was not stopped before."""
        return self.share >= 1

    @property
    def spent(self) -> float:
        """Seconds of training, in this part of the run and those before it."""
        return self._before + time.monotonic() - self._began

    def _measure(self, trainer: pl.Trainer) -> None:
        self.share = trainer.global_step / max(1, trainer.max_steps)
        if self.minutes is None:
            return
        share = torch.tensor(self.spent / (60 * self.minutes), device=trainer.strategy.root_device)
        if dist.is_available() and dist.is_initialized():  # one clock, or the ranks' weights would part
            dist.broadcast(share, 0)
        self.share = max(self.share, float(share))

    def state_dict(self) -> dict[str, float]:
        return {"spent": self.spent}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self._before = state_dict["spent"]


def finished(trainer: pl.Trainer) -> bool:
    """Whether a run, with a `Schedule` among its callbacks, has come to its end."""
    return any(callback.finished for callback in trainer.callbacks if isinstance(callback, Schedule))  # type: ignore[attr-defined]


def stepped(trainer: pl.Trainer) -> bool:
    """Whether the last batch completed a step of the optimizer, in a run with a `Schedule` among its callbacks."""
    return all(callback.stepped for callback in trainer.callbacks if isinstance(callback, Schedule))  # type: ignore[attr-defined]
