"""The Lightning module that trains a transform network: a step, its guards, its checkpoints."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor

from impasto.choices import LossOptions
from impasto.networks import TransformNet, describe, save_network
from impasto.networks.preprocess import Origin
from impasto.networks.transform import TRAINING_MARGIN
from impasto.perceptual.loss import PerceptualLoss
from impasto.perceptual.target import StyleTarget
from impasto.shipped import commit
from impasto.training.guards import FiniteLosses, check_gradients, check_weights
from impasto.training.muon import ADAM_SHARE, Muon
from impasto.training.objective import Objective
from impasto.training.resume import balance_of, fixed_options
from impasto.training.teacher import Teacher

Compiled = Literal["default", "reduce-overhead", "max-autotune"]  # modes of torch.compile
LOOK = 50  # steps between checks for a non-finite loss, if logging is turned off


class StyleTraining(pl.LightningModule):
    """Trains a network on photos, each of which learns the style of a painting.

    A subclass says which: `FixedStyles` and `AnyStyles`. They document the arguments.
    """

    objective: Objective
    teacher: Teacher | None = None  # a network to imitate
    style_names: list[str] = []  # noqa: RUF012  names that a resumed run must have, in order

    def __init__(
        self, network: TransformNet, style_size: int, start_from: str | None, loss: LossOptions,
        learning_rate: float, warmup_steps: int, gap_photos: int, shift_weight: float,
        temporal_weight: float, feature_weight: float, compile: bool | Compiled,
    ) -> None:  # fmt: skip
        super().__init__()
        if shift_weight < 0 or gap_photos < 2:
            raise ValueError(
                f"shift_weight {shift_weight}, gap_photos {gap_photos}: the first from 0, "
                "photos from 2"
            )
        if temporal_weight < 0 or feature_weight < 0:
            raise ValueError(
                f"temporal_weight {temporal_weight}, feature_weight {feature_weight}: must be at "
                "least 0"
            )
        if shift_weight and (temporal_weight or feature_weight):
            raise ValueError(
                f"shift_weight {shift_weight} beside temporal_weight or feature_weight: set it to "
                "0; the motion of these includes shifts"
            )
        if network.grain and (temporal_weight or feature_weight):
            # The canvas that moves with the photo would be removed with the grain.
            raise ValueError(
                f"temporal_weight, feature_weight: need a network that removes no grain; this one "
                f"removes {network.grain:g} grey levels"
            )
        self.network = network.to(memory_format=torch.channels_last)
        self.style_size, self.start_from = style_size, start_from
        self.loss_options, self.learning_rate, self.warmup_steps = loss, learning_rate, warmup_steps
        self.gap_photos, self.shift_weight = gap_photos, shift_weight
        self.temporal_weight, self.feature_weight = temporal_weight, feature_weight
        self.mode = "default" if compile is True else compile
        self._compiled: Callable[..., Any] | None = None
        self._gradients_seen = False
        self._losses = FiniteLosses()
        self.run_config: dict[str, Any] = {}  # set by the command, recorded in the published file
        self.restored: dict[str, Any] | None = None  # the balance of a resumed run

    @abstractmethod
    def prepare_targets(self, loss: PerceptualLoss) -> None:
        """Compute what the samples are compared with, once, when the device is known."""

    @abstractmethod
    def samples(self, batch: dict[str, Any]) -> tuple[Float[Tensor, "b n"], StyleTarget]:
        """Return the code and the target of each sample of a batch."""

    def further_terms(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return terms of the loss besides those of `Objective`, by name."""
        return {}

    @abstractmethod
    def shown(self) -> dict[str, tuple[Float[Tensor, "1 n"], StyleTarget]]:
        """Return the styles of validation and previews: code and target of each, by name."""

    @abstractmethod
    def balance(self) -> dict[str, Any]:
        """Return what a resumed run needs to measure the balance no second time."""

    def forward(
        self, content: Tensor, code: Tensor, origin: Origin = (0, 0),
        kept: list[Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Return the stylized pictures (see TransformNet.forward).

        Validation uses the small margin of training too, so that their loss terms compare.
        """
        content = content.contiguous(memory_format=torch.channels_last)
        # In validation, which has no gradients, torch.compile would compile the network again.
        network = self._compiled if self.training and self._compiled else self.network
        return network(content, code, TRAINING_MARGIN, origin, None, kept)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch, whose samples learn the styles of `samples`."""
        step = self.global_step
        fractions, total = self.objective(
            self, batch["content"], *self.samples(batch), step, batch.get("filmed")
        )
        for name, term in self.further_terms(batch).items():
            fractions[name], total = term.detach(), total + term
        self._losses.add(step, {**fractions, "loss": total.detach()})
        if (self.global_step + 1) % (self.trainer.log_every_n_steps or LOOK) == 0:  # type: ignore[attr-defined]
            self._losses.check()
        self.log_dict(
            {f"train/{name}": value for name, value in fractions.items()},
            sync_dist=True,
            prog_bar=True,
        )
        self.log("train/loss", total, sync_dist=True, prog_bar=True)
        self._agree_on_dynamic_weights()
        return total

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the loss terms of every photo in every style: their mean, and those of each style."""
        content = batch["content"]
        shown = self.shown()
        for name, (code, target) in shown.items():
            each = target.select(torch.zeros(len(content), dtype=torch.int64, device=self.device))
            # Always the motions of step 0, so that validations compare.
            fractions, total = self.objective(self, content, code, each, 0)
            for term, value in {**fractions, "loss": total}.items():
                self.log(
                    f"val/{term}", value, batch_size=len(content), sync_dist=True, reduce_fx="mean"
                )
                if len(shown) > 1:
                    self.log(f"val/{name}/{term}", value, batch_size=len(content), sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Check at the first step that every weight learns."""
        if not self._gradients_seen:
            check_gradients(self.network, f"--model.compile {self.mode}")
        self._gradients_seen = True

    def _agree_on_dynamic_weights(self) -> None:
        """Average the weights of `balance: dynamic` over all ranks."""
        if self.loss_options.balance == "dynamic" and self.trainer.world_size > 1:
            dynamic = self.objective.loss.dynamic
            dynamic.copy_(torch.as_tensor(self.all_gather(dynamic)).mean(0))

    def on_fit_start(self) -> None:
        if self.device.type == "cuda" and "mixed" in str(self.trainer.precision):
            # Under autocast, Gram matrices are most of the products left in float32. TF32
            # represents the half-precision features in them exactly.
            torch.set_float32_matmul_precision("high")
        self._prepare_objective()
        if self.mode:
            # Functions are compiled, not modules, which would change the names in checkpoints.
            # The pairs of a temporal term and single photos have sizes of their own, each compiled
            # by itself: torch 2.11 cannot compile the network for sizes that it does not know.
            self._compiled = torch.compile(self.network.forward, mode=self.mode, dynamic=False)
            self.objective.compile(self.mode)

    def on_validation_start(self) -> None:
        self._prepare_objective()

    def _prepare_objective(self) -> None:
        """Build the loss network and the targets, once, when the device is known."""
        if hasattr(self, "objective"):
            return
        self.objective = Objective(
            self.loss_options, self.device, self.shift_weight, self.temporal_weight,
            self.feature_weight, self.network.canvas, self.teacher,
        )  # fmt: skip
        loss = self.objective.loss
        if self.restored is not None:
            loss.dynamic.copy_(torch.tensor(self.restored["dynamic"]))
        # Paintings have a size each. To look for the fastest convolutions for it takes longer than
        # to measure a painting.
        searched, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
        self.prepare_targets(loss)
        torch.backends.cudnn.benchmark = searched
        if self.trainer.precision == "bf16-mixed":
            # Autocast keeps a cast weight only if it has a gradient. It would cast the frozen
            # weights again in every forward pass.
            loss.features.network.to(torch.bfloat16)

    def balance_photos(self) -> Float[Tensor, "p 3 s s"] | None:
        """Return the photos to measure the balance on; None if it is fixed, or restored."""
        if self.restored is not None or self.loss_options.balance == "fixed":
            return None
        return self.trainer.datamodule.first_photos(self.gap_photos).to(self.device)  # type: ignore[attr-defined]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer, whose learning rate `Schedule` sets at every step.

        Departure: Johnson et al. 2016 use Adam at a constant 1e-3.
        """
        return Muon(self.network, self.learning_rate)

    @property
    def highest_rates(self) -> list[float]:
        """The highest learning rate of each group of parameters: Muon's, Adam's."""
        return [self.learning_rate, ADAM_SHARE * self.learning_rate]

    def metadata(self) -> dict[str, Any]:
        """Return what the published file records besides the weights: loss, training, commit."""
        loss = asdict(self.loss_options)
        loss.pop("weights")  # a path on this machine
        training = {
            "steps": self.global_step,
            "style_size": self.style_size,
            "shift_weight": self.shift_weight,
            "temporal_weight": self.temporal_weight,
            "feature_weight": self.feature_weight,
            "start_from": self.start_from and Path(self.start_from).stem,
            **self.run_config,
        }
        if self.teacher:
            training |= {"teacher": self.teacher.name, "teacher_weight": self.teacher.weight}
        return {"loss": loss, "training": training, "commit": commit()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the balance measured when the run began, so that the loss stays the same.

        Raises:
            ValueError: the checkpoint is of other styles or options (`balance_of`), or damaged.
        """
        ours = fixed_options(self.network, self.loss_options, self.style_size)
        try:
            self.restored = balance_of(checkpoint, self.style_names, ours)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(
                "--ckpt_path: not a checkpoint of impasto's training, or a damaged one"
            ) from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the network's description, for `load_network`, and the balance, for a resumed run.

        Raises:
            NonFiniteLoss: a loss or a weight is not finite; no checkpoint is written.
        """
        self._losses.check()
        check_weights(self.network, self.global_step)
        description = describe(self.network, **self.metadata())
        balance = {**self.balance(), "dynamic": self.objective.loss.dynamic.tolist()}
        checkpoint["impasto"] = {"network": description, "balance": balance}

    def publish(self, path: str | Path) -> Path:
        """Write the network with its metadata to a `.safetensors` file, in half precision."""
        return save_network(path, self.network, overwrite=True, half=True, **self.metadata())
