"""The Lightning module that trains the transform network on one or several paintings."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from impasto.choices import LossOptions
from impasto.images import read_image
from impasto.images.paintings import Painting, checked, thumbnail
from impasto.networks import TransformNet, describe, load_network, save_network
from impasto.networks.preprocess import Origin
from impasto.networks.transform import TRAINING_MARGIN
from impasto.shipped import commit
from impasto.training.guards import FiniteLosses, check_gradients, check_weights
from impasto.training.muon import ADAM_SHARE, Muon
from impasto.training.objective import Objective
from impasto.training.resume import (
    balance_of,
    check_paintings,
    fixed_options,
    thumbnails_of,
    weights_from,
)

Compiled = Literal["default", "reduce-overhead", "max-autotune"]  # modes of torch.compile
PREPROCESSING = ("canvas", "grain", "upsampling")  # network arguments copied from `start_from`
LOOK = 50  # steps between checks for a non-finite loss, if logging is turned off


class FixedStyles(pl.LightningModule):
    """Trains one network on 1…N paintings: sample i of the photos learns style i mod N.

    Args:
        styles: the paintings by name: a picture file, or its image, title, artist, year, licence
            and source.
        style_size: longer side of the paintings in pixels, the scale of the strokes; 0 keeps
            their size.
        width: channels of the network at full resolution (32: Johnson et al. 2016; 16: the
            real-time network, four times cheaper).
        residual_blocks: residual blocks of the network.
        start_from: a trained network to start from, a published name or a file, of the same width
            and residual blocks. Styles that it knows by name go on from what they learned; new
            styles begin as the mean of its styles. Its grain and upsampling are copied.
        canvas: standard deviation, in grey levels, of a faint pattern added to every photo, so
            that flat areas get strokes; 0: none. If not given, that of `start_from`, or else 3.
        loss: the perceptual loss.
        learning_rate: highest learning rate of Muon, for all convolutions but the last; Adam, for
            all other parameters, has a tenth of it.
        warmup_steps: steps over which the learning rate rises linearly; a cosine lowers it to 0
            at the end of the run.
        gap_photos: photos on which the balance of the loss is measured, once; at least 2.
        shift_weight: weight of the squared difference between the painting of a shifted photo and
            the shifted painting. It keeps patterns, such as dots in flat areas, from locking to
            the pixel grid. Crops are then 4 pixels smaller, and every fourth is painted twice.
        compile: compile network and loss of the training steps: true, or a mode of torch.compile
            such as reduce-overhead, which replays CUDA graphs.
    """

    objective: Objective

    def __init__(
        self,
        styles: dict[str, str | Painting],
        style_size: int = 512,
        width: int = 32,
        residual_blocks: int = 5,
        start_from: str | None = None,
        canvas: float | None = None,
        loss: LossOptions = LossOptions(),  # noqa: B008  only read
        learning_rate: float = 0.02,
        warmup_steps: int = 100,
        gap_photos: int = 32,
        shift_weight: float = 0.0,
        compile: bool | Compiled = False,
    ) -> None:
        super().__init__()
        self.styles = checked(styles)
        if shift_weight < 0 or gap_photos < 2:
            raise ValueError(
                f"shift_weight {shift_weight}, gap_photos {gap_photos}: the first from 0, "
                "photos from 2"
            )
        other = load_network(start_from) if start_from else None
        before = {name: other.arguments[name] for name in PREPROCESSING} if other else {}
        if canvas is not None:
            before["canvas"] = canvas
        # Thumbnails of the paintings that `start_from`, or the checkpoint, learned, by style.
        self._known_thumbnails = thumbnails_of(other.metadata if other else {})
        network = TransformNet(len(styles), width, residual_blocks, **before)
        self.network = network.to(memory_format=torch.channels_last)
        if other:
            state = weights_from(other, str(start_from), self.network, list(styles))
            self.network.load_state_dict(state)
        self.style_size, self.loss_options = style_size, loss
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.gap_photos = gap_photos
        self.shift_weight, self.start_from = shift_weight, start_from
        self.mode = "default" if compile is True else compile
        self._compiled: Callable[..., Any] | None = None
        self._gradients_seen = False
        self._losses = FiniteLosses()
        self.run_config: dict[str, Any] = {}  # set by the command, recorded in the published file
        self._restored: dict[str, Any] | None = None  # the balance of a resumed run

    def forward(self, content: Tensor, code: Tensor, origin: Origin = (0, 0)) -> Tensor:
        """Return the stylized pictures (see TransformNet.forward).

        Validation uses the small margin of training too, so that their loss terms compare.
        """
        content = content.contiguous(memory_format=torch.channels_last)
        # In validation, which has no gradients, torch.compile would compile the network again.
        network = self._compiled if self.training and self._compiled else self.network
        return network(content, code, TRAINING_MARGIN, origin)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch, in which sample i of the stream learns style i mod N."""
        index = batch["index"] % len(self.styles)
        fractions, total = self.objective(self, batch["content"], index, self.global_step)
        self._losses.add(self.global_step, {**fractions, "loss": total.detach()})
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
        for number, name in enumerate(self.styles):
            index = torch.full((len(content),), number, device=self.device)
            fractions, total = self.objective(self, content, index, self.global_step)
            for term, value in {**fractions, "loss": total}.items():
                self.log(
                    f"val/{term}", value, batch_size=len(content), sync_dist=True, reduce_fx="mean"
                )
                if len(self.styles) > 1:
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
            self._compiled = torch.compile(self.network.forward, mode=self.mode)
            self.objective.compile(self.mode)

    def on_validation_start(self) -> None:
        self._prepare_objective()

    def _prepare_objective(self) -> None:
        """Build the loss network and the targets, once, when the device is known."""
        if hasattr(self, "objective"):
            return
        pictures = [read_image(painting.image) for painting in self.styles.values()]
        self.thumbnails = {
            name: thumbnail(picture.pixels)
            for name, picture in zip(self.styles, pictures, strict=True)
        }
        start_from = str(self.start_from) if self._restored is None else None
        check_paintings(self.styles, self.thumbnails, self._known_thumbnails, start_from)
        if self.style_size:
            pictures = [picture.resized(self.style_size) for picture in pictures]
        pixels = [picture.pixels.to(self.device) for picture in pictures]
        photos = None
        if self._restored is None and self.loss_options.balance != "fixed":
            first = self.trainer.datamodule.first_photos(self.gap_photos)  # type: ignore[attr-defined]
            photos = first.to(self.device)
        self.objective = Objective(
            self.loss_options, pixels, photos, self._restored, self.shift_weight
        )
        if self.trainer.precision == "bf16-mixed":
            # Autocast keeps a cast weight only if it has a gradient. It would cast the frozen
            # weights again in every forward pass.
            self.objective.loss.features.network.to(torch.bfloat16)

    def configure_optimizers(self) -> Muon:
        """Return the optimizer, whose learning rate `Schedule` sets at every step.

        Departure: Johnson et al. 2016 use Adam at a constant 1e-3.
        """
        return Muon(self.network, self.learning_rate)

    @property
    def highest_rates(self) -> list[float]:
        """The highest learning rate of each group of parameters: Muon's, Adam's."""
        return [self.learning_rate, ADAM_SHARE * self.learning_rate]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the network's description, for `load_network`, and the balance, for a resumed run.

        Raises:
            NonFiniteLoss: a loss or a weight is not finite; no checkpoint is written.
        """
        self._losses.check()
        check_weights(self.network, self.global_step)
        description = describe(self.network, **self.metadata())
        checkpoint["impasto"] = {"network": description, "balance": self.objective.balance()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the balance measured when the run began, so that the loss stays the same.

        Raises:
            ValueError: the checkpoint is of other styles or options (`balance_of`), or damaged.
        """
        ours = fixed_options(self.network, self.loss_options, self.style_size)
        try:
            self._restored = balance_of(checkpoint, list(self.styles), ours)
            self._known_thumbnails = thumbnails_of(checkpoint.get("impasto", {}).get("network", {}))
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError(
                "--ckpt_path: not a checkpoint of impasto's training, or a damaged one"
            ) from error

    def metadata(self) -> dict[str, Any]:
        """Return what the published file records: styles, loss and balance, training, commit."""
        options = asdict(self.loss_options)
        options.pop("weights")  # a path on this machine
        return {
            "styles": [
                {"name": name, **painting.credits(), "thumbnail": self.thumbnails[name]}
                for name, painting in self.styles.items()
            ],
            "loss": {**options, "gaps": self.objective.target.gaps()},
            "training": {
                "steps": self.global_step,
                "style_size": self.style_size,
                "shift_weight": self.shift_weight,
                "start_from": self.start_from and Path(self.start_from).stem,
                **self.run_config,
            },
            "commit": commit(),
        }

    def publish(self, path: str | Path) -> Path:
        """Write the network with its metadata to a `.safetensors` file, in half precision."""
        return save_network(path, self.network, overwrite=True, half=True, **self.metadata())
