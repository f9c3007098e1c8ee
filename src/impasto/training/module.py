"""Training of the transform network: FixedStyles learns 1…N paintings."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from impasto.choices import LossOptions
from impasto.images import read_image
from impasto.images.paintings import Painting, check_style_names, other_picture, thumbnail
from impasto.networks import TransformNet, describe, load_network, save_network
from impasto.networks.transform import TRAINING_MARGIN
from impasto.shipped import commit
from impasto.training.muon import ADAM_SHARE, Muon
from impasto.training.objective import Objective
from impasto.training.resume import balance_of, decided, thumbnails_of

Compiled = Literal["default", "reduce-overhead", "max-autotune"]  # modes of torch.compile
PREPROCESSING = ("canvas", "grain", "upsampling")  # arguments of the network that `start_from` takes over
LOOK = 50  # steps between looks at the loss, where nothing is logged


_LOG = logging.getLogger("impasto")


class NonFiniteLoss(ValueError):
    """The loss, or a weight of the network, is no longer a finite number."""


class FixedStyles(pl.LightningModule):
    """One network for 1…N paintings, which the pictures of a batch take in turns.

    Args:
        styles: the paintings by name: a picture file, or one with title, artist, year, licence, source.
        style_size: longer side of the paintings in pixels: the scale of the strokes; 0 keeps them as they are.
        width: channels of the network at full resolution (32: Johnson's; 16: the real-time one).
        residual_blocks: residual blocks of the network.
        start_from: a network of the same size, published or a file, to go on from instead of from nothing: its
            styles keep what they learned where names agree, new ones begin as their mean. Its grain and upsampling
            are taken over.
        canvas: standard deviation, in grey levels, of a faint pattern under every photo, which gives parts without any
            detail strokes; 0: none. By default as `start_from` has it, or else 3; 0 with `shift_weight`.
        loss: the perceptual loss.
        learning_rate: of the convolutions (Muon), at its highest; all else has a tenth of it (Adam).
        warmup_steps: steps over which the learning rate rises; then it falls to 0 along a cosine.
        gap_photos: photos on which the balance is measured, once.
        shift_weight: weight of the squared difference between a moved photo's painting and the moved painting;
            above 0 it keeps patterns from locking to the pixel grid, as dots in flat areas do. Crops are then seen 4
            pixels smaller, and every fourth a second time.
        compile: compile network and loss with torch.compile, for the training steps: true, or a mode of it, such as
            reduce-overhead, which replays CUDA graphs.
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
        if not styles:
            raise ValueError("styles: none given; --model.styles.NAME PICTURE adds one")
        check_style_names(styles)
        self.styles = {name: Painting(style) if isinstance(style, str) else style for name, style in styles.items()}
        if shift_weight < 0 or gap_photos < 2:
            raise ValueError(f"shift_weight {shift_weight}, gap_photos {gap_photos}: the first from 0, photos from 2")
        for name, painting in self.styles.items():
            if not Path(painting.image).is_file():
                what = f"painting {name}: {painting.image} does not exist"
                raise ValueError(f"{what}; give --model.styles.{name}.image PICTURE")
        other = load_network(start_from) if start_from else None
        before = {name: other.arguments[name] for name in PREPROCESSING} if other else {}
        if canvas is not None or (other is None and shift_weight):
            before["canvas"] = canvas or 0.0
        self._learned: dict[str, Any] = {}  # thumbnails of the paintings that are learned already
        network = TransformNet(len(styles), width, residual_blocks, **before)
        self.network = network.to(memory_format=torch.channels_last)
        if other:
            self.network.load_state_dict(self._state_of(other, str(start_from)))
        if shift_weight and self.network.canvas:
            what = f"shift_weight {shift_weight} with a canvas of {self.network.canvas}, which does not move"
            raise ValueError(f"{what}: give 0 for one of them (--model.shift_weight, --model.canvas)")
        self.style_size, self.loss_options = style_size, loss
        self.learning_rate, self.warmup_steps, self.gap_photos = learning_rate, warmup_steps, gap_photos
        self.shift_weight, self.start_from = shift_weight, start_from
        self.mode = "default" if compile is True else compile
        self._compiled: Callable[..., Any] | None = None
        self._gradients_seen = False
        self._unseen: list[tuple[int, dict[str, Tensor]]] = []  # steps and terms that nobody has looked at
        self.run_config: dict[str, Any] = {}  # what the command was given, for the record in the published file
        self._restored: dict[str, Any] | None = None

    def _state_of(self, other: TransformNet, start_from: str) -> dict[str, Tensor]:
        """The weights of another network, its γ and β arranged for our styles (Dumoulin et al. 2017 add a style to
        a trained network by learning these two alone; here all goes on learning)."""
        for name in ("width", "residual_blocks"):
            if (theirs := other.arguments[name]) != (ours := self.network.arguments[name]):
                what = f"start_from {start_from}: its {name} is {theirs}, not {ours}"
                raise ValueError(f"{what}; give --model.{name} {theirs}")
        self._learned = {style["name"]: style.get("thumbnail") for style in other.metadata.get("styles", [])}
        known = list(self._learned)
        state = other.state_dict()
        for key, value in state.items():
            if key.endswith((".gamma", ".beta")):
                rows = [value[known.index(name)] if name in known else value.mean(0) for name in self.styles]
                state[key] = torch.stack(rows)
        return state

    def forward(self, content: Tensor, code: Tensor) -> Tensor:
        """See TransformNet.forward; with the smaller margin, in validation too, so that its terms compare."""
        content = content.contiguous(memory_format=torch.channels_last)
        # Validation photos have another size, for which the network would be compiled again.
        network = self._compiled if self.training and self._compiled else self.network
        return network(content, code, TRAINING_MARGIN)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Sample i of the stream learns style i mod N."""
        index = batch["index"] % len(self.styles)
        fractions, total = self.objective(self, batch["content"], index, self.global_step)
        self._unseen.append((self.global_step, {**fractions, "loss": total.detach()}))
        if (self.global_step + 1) % (self.trainer.log_every_n_steps or LOOK) == 0:  # type: ignore[attr-defined]
            self._refuse_non_finite()
        self.log_dict({f"train/{name}": value for name, value in fractions.items()}, sync_dist=True, prog_bar=True)
        self.log("train/loss", total, sync_dist=True, prog_bar=True)
        self._agree_on_dynamic_weights()
        return total

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Every photo in every style: mean terms, and the terms of each style."""
        content = batch["content"]
        for number, name in enumerate(self.styles):
            index = torch.full((len(content),), number, device=self.device)
            fractions, total = self.objective(self, content, index, self.global_step)
            for term, value in {**fractions, "loss": total}.items():
                self.log(f"val/{term}", value, batch_size=len(content), sync_dist=True, reduce_fx="mean")
                if len(self.styles) > 1:
                    self.log(f"val/{name}/{term}", value, batch_size=len(content), sync_dist=True)

    def _refuse_non_finite(self) -> None:
        """Looks at the terms since the last look, all at once, since each look waits for what the GPU has to do: as
        often as they are logged, and before a checkpoint is written."""
        unseen, self._unseen = self._unseen, []
        if not unseen or torch.stack([terms["loss"] for _, terms in unseen]).isfinite().all():
            return
        step, terms = next((step, terms) for step, terms in unseen if not terms["loss"].isfinite())
        bad = next(name for name, value in terms.items() if not value.isfinite())
        raise NonFiniteLoss(
            f"step {step}: the {bad} term is {float(terms[bad])}; training stopped, the last checkpoint is from "
            f"before. Go on from it with a lower --model.learning_rate, or with --trainer.precision 32-true"
        )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuses a run that would train in vain, as one whose compiled network had lost its gradient (torch 2.11)."""
        if self._gradients_seen:
            return
        self._gradients_seen = True
        weights = {name: p.grad for name, p in self.network.named_parameters() if p.ndim > 1 and "beta" not in name}
        if without := [name for name, gradient in weights.items() if gradient is None or not gradient.any()]:
            raise ValueError(
                f"no gradient reaches {len(without)} of {len(weights)} weights, such as {without[0]} (torch "
                f"{torch.__version__}, --model.compile {self.mode}): train with --model.compile false"
            )

    def _agree_on_dynamic_weights(self) -> None:
        if self.loss_options.balance == "dynamic" and self.trainer.world_size > 1:
            dynamic = self.objective.loss.dynamic
            dynamic.copy_(torch.as_tensor(self.all_gather(dynamic)).mean(0))

    def on_fit_start(self) -> None:
        if self.device.type == "cuda" and "mixed" in str(self.trainer.precision):
            # Of what is left in float32 Gram matrices are most; TF32 holds the half-precision features in them exactly.
            torch.set_float32_matmul_precision("high")
        self._prepare_objective()
        if self.mode:  # of functions: no names of compiled modules in the checkpoints
            self._compiled = torch.compile(self.network.forward, mode=self.mode)
            self.objective.compile(self.mode)

    def on_validation_start(self) -> None:
        self._prepare_objective()

    def _prepare_objective(self) -> None:
        """The loss network and the targets, made once, when the device is known."""
        if hasattr(self, "objective"):
            return
        pictures = [read_image(painting.image) for painting in self.styles.values()]
        self.thumbnails = {name: thumbnail(picture.pixels) for name, picture in zip(self.styles, pictures, strict=True)}
        self._compare_with_those_learned()
        if self.style_size:
            pictures = [picture.resized(self.style_size) for picture in pictures]
        paintings = [picture.pixels.to(self.device) for picture in pictures]
        photos = None
        if self._restored is None and self.loss_options.balance != "fixed":
            first = self.trainer.datamodule.first_photos(self.gap_photos)  # type: ignore[attr-defined]
            photos = first.to(self.device)
        self.objective = Objective(self.loss_options, paintings, photos, self._restored, self.shift_weight)
        if self.trainer.precision == "bf16-mixed":
            # Autocast would cast these weights, which have no gradient, anew in every forward pass.
            self.objective.loss.features.network.to(torch.bfloat16)

    def _compare_with_those_learned(self) -> None:
        """Refuses to go on with another picture under the name of a painting; says so where a run begins from one."""
        for name, painting in self.styles.items():
            if not other_picture(self._learned.get(name), self.thumbnails[name]):
                continue
            if self._restored is not None:
                raise ValueError(
                    f"painting {name}: {painting.image} is another picture than the checkpoint was trained on: give "
                    f"that one (--model.styles.{name}.image), or begin a new run with --model.start_from its network"
                )
            _LOG.warning(
                "painting %s: %s is another picture than %s learned under that name, and takes its place", name,
                painting.image, self.start_from,
            )  # fmt: skip

    def configure_optimizers(self) -> Muon:
        """See `Muon`; the rate of each step is `Schedule`'s. Johnson et al. 2016: Adam, 1e-3, constant."""
        return Muon(self.network, self.learning_rate)

    @property
    def highest_rates(self) -> list[float]:
        """The learning rate of each group of parameters, at its highest."""
        return [self.learning_rate, ADAM_SHARE * self.learning_rate]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what `load_network` and a resumed run need; refuses to write weights that are not finite."""
        self._refuse_non_finite()
        for name, value in self.network.named_parameters():
            if not torch.isfinite(value).all():
                what = f"step {self.global_step}: {name} is no longer finite; the last checkpoint was left as it is"
                raise NonFiniteLoss(f"{what}. Go on from it with a lower --model.learning_rate")
        description = describe(self.network, **self.metadata())
        checkpoint["impasto"] = {"network": description, "balance": self.objective.balance()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes back the balance measured when the run began, so that the loss goes on the same.

        ValueError where this run has other styles, or what else that balance and the weights do not fit.
        """
        ours = decided(self.network, self.loss_options, self.style_size)
        try:
            self._restored = balance_of(checkpoint, list(self.styles), ours)
            self._learned = thumbnails_of(checkpoint)
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise ValueError("--ckpt_path: not a checkpoint of impasto's training, or a damaged one") from error

    def metadata(self) -> dict[str, Any]:
        """What the published file says of its making: styles, loss and balance, training, commit."""
        options = asdict(self.loss_options)
        options.pop("weights")  # a path of the machine it was trained on
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
        """Writes the network with its metadata to a `.safetensors`, in half precision."""
        return save_network(path, self.network, overwrite=True, half=True, **self.metadata())
