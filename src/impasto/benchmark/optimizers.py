"""How many photos Muon needs to reach the loss that Adam reaches."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.progress import Progress

from impasto.choices import LossOptions
from impasto.data.modules import Photos
from impasto.training.fixed import FixedStyles
from impasto.training.schedule import Schedule

ADAM_RATE = 2e-3  # Adam's learning rate in the trials of checkpoints/notebook.md
# Muon trains on these shares of Adam's photos. Each share is a run of its own, since the learning
# rate falls to 0 at the end of a run.
SHARES = (0.25, 0.35, 0.5)


@dataclass(frozen=True)
class Training:
    """A short training of one style with the compact loss network, which comes with the package.

    Args:
        photos: a folder of photos. For validation 16 of them, at most a tenth, are kept from
            training.
        painting: picture file of the style.
        size: side of the crops in pixels.
        batch: photos a step.
        width: of the network.
        device: cpu or cuda.
    """

    photos: str
    painting: str
    size: int
    batch: int
    width: int
    device: str


class _ByAdam(FixedStyles):
    """`FixedStyles`, with Adam instead of Muon for every weight, as in Johnson et al. 2016."""

    def configure_optimizers(self) -> torch.optim.Adam:
        return torch.optim.Adam(self.network.parameters(), ADAM_RATE)

    @property
    def highest_rates(self) -> list[float]:
        return [ADAM_RATE]


class _Steps(pl.Callback):
    """Calls `advance` after every step."""

    def __init__(self, advance: Callable[[], None]) -> None:
        self.advance = advance

    def on_train_batch_end(self, *_: Any) -> None:
        self.advance()


def loss_after(
    steps: int, optimizer: type[FixedStyles], training: Training, advance: Callable[[], None]
) -> float:
    """Return the validation loss after a whole run: content + 4 × style + 0.1 × total variation.

    Args:
        steps: length of the run.
        optimizer: the training module, which decides the optimizer.
        training: what is trained.
        advance: called after every step.

    Raises:
        ValueError: fewer than ten photos, of which none is left for validation.
    """
    pl.seed_everything(0, verbose=False)
    loss = LossOptions("compact", style_strength=4.0)  # the strength of configs/cpu.yaml
    module = optimizer({"style": training.painting}, width=training.width, loss=loss)
    photos = Photos(training.photos, crop=training.size, batch_size=training.batch, num_workers=1)
    trainer = pl.Trainer(
        accelerator=training.device, devices=1, max_steps=steps, max_epochs=-1,
        limit_val_batches=0, logger=False, callbacks=[Schedule(), _Steps(advance)],
        enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
    )  # fmt: skip
    trainer.fit(module, photos)
    judged = pl.Trainer(
        accelerator=training.device,
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    terms = judged.validate(module, photos, verbose=False)[0]
    if "val/loss" not in terms:
        raise ValueError(f"{training.photos}: a tenth of the photos judge; give 10 photos at least")
    return float(terms["val/loss"])


def photos_needed_table(training: Training, steps: int) -> Iterator[str]:
    """Yield the lines of a Markdown table: validation losses of Adam and of Muon.

    Adam trains for `steps`, Muon for each of SHARES of them. The last line says which share of the
    photos Muon needs to reach Adam's loss.
    """
    # Not at import time: Lightning sets its own level when it is imported.
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    runs = {share: max(1, round(share * steps)) for share in SHARES}
    yield (
        f"{training.device}, width {training.width}, crops of {training.size}, "
        f"{training.batch} photos a step\n"
    )
    yield "| optimizer | photos (share) | loss |"
    yield "|---|---|---|"
    muon: dict[float, float] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("optimizers", total=steps + sum(runs.values()))
        jobs = (training, lambda: progress.advance(task))
        adam = loss_after(steps, _ByAdam, *jobs)
        yield f"| Adam | {steps * training.batch} (1.00) | {adam:.3f} |"
        for share, count in runs.items():
            muon[share] = loss_after(count, FixedStyles, *jobs)
            yield f"| Muon | {count * training.batch} ({share:.2f}) | {muon[share]:.3f} |"
    yield f"\nMuon comes to Adam's loss with {share_for(adam, muon)} of the photos.\n"


def share_for(loss: float, found: dict[float, float]) -> str:
    """Return the share of the photos at which Muon's loss equals `loss`, as text.

    It is interpolated between two runs, linearly in the logarithm of the share.

    Args:
        loss: Adam's loss.
        found: Muon's losses by share, the least share first.
    """
    least = next(iter(found))
    if found[least] <= loss:
        return f"{least:.2f} or less"
    for low, high in pairwise(found):
        if found[high] <= loss:
            part = (found[low] - loss) / (found[low] - found[high])
            return f"{low * (high / low) ** part:.2f}"
    return f"more than {max(found):.2f}"
