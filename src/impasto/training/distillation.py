"""Distillation of the compact loss network: factored convolutions learn the features of a VGG."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from torch import Tensor, nn

from impasto.choices import Teacher
from impasto.data.crops import crop
from impasto.data.files import find_images
from impasto.images import read_image
from impasto.networks import load_network
from impasto.perceptual.features import FeatureNetwork
from impasto.perceptual.loss import gram_matrix
from impasto.perceptual.vgg import (
    COMPACT_LAYERS,
    COMPACT_RANKS,
    FactoredConvolution,
    factored,
    save_compact,
)
from impasto.shipped import commit

# Sample i of the photos becomes a picture of kind i mod 4.
KINDS = ("photos", "changed", "paintings", "stylized")
JUDGED = ("photos", "paintings", "stylized")  # kinds that validation measures
LICENCE = "MIT; made to predict torchvision's ImageNet weights of its teacher (BSD-3-Clause)"


class Distillation(pl.LightningModule):
    """Trains the compact loss network on photos, changed photos, paintings and stylized photos.

    Each factored convolution begins as two factors of the teacher's (`factorize`). Then all are
    trained together on the relative errors of features and Gram matrices, as in collaborative
    distillation (Wang et al. 2020).

    Args:
        paintings: a folder of paintings; every fifth is kept for validation.
        painters: networks that stylize photos: published names or files.
        teacher: the network whose features are predicted.
        weights: file or folder of the teacher's weights; if not given, the variable
            IMPASTO_WEIGHTS, torch's cache, or a download.
        ranks: channels between the two factors of a convolution, for each of VGG's five blocks.
        start_from: file of a compact network, of these ranks or higher ones, to start from
            instead of the teacher.
        painting_size: longer side of the paintings in pixels.
        learning_rate: highest learning rate of Adam.
        warmup_steps: steps over which the learning rate rises linearly; it falls to 0 over the
            last 30 % of the run.
        gram_weight: weight of the error of the Gram matrices; that of the features has weight 1.
        first_photos: photos from which the factors are computed.
    """

    teacher: FeatureNetwork

    def __init__(
        self,
        paintings: str,
        painters: list[str],
        teacher: Teacher = "vgg19",
        weights: str | None = None,
        ranks: Sequence[int] = COMPACT_RANKS,
        start_from: str | None = None,
        painting_size: int = 512,
        learning_rate: float = 1e-3,
        warmup_steps: int = 100,
        gram_weight: float = 1.0,
        first_photos: int = 32,
    ) -> None:
        super().__init__()
        self.teacher_name, self.ranks, self.first_photos = teacher, list(ranks), first_photos
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.gram_weight = gram_weight
        self.compact = FeatureNetwork("compact", COMPACT_LAYERS, network=factored(teacher, ranks))
        self.compact.requires_grad_(True)
        found = [read_image(file).resized(painting_size).pixels for file in find_images(paintings)]
        self.paintings = {
            "fit": [p for i, p in enumerate(found) if i % 5] or found,
            "validate": found[::5],
        }
        # Stored in __dict__, these networks are not registered with nn.Module. So checkpoints
        # leave them out.
        vars(self)["teacher"] = FeatureNetwork(teacher, COMPACT_LAYERS, weights)
        vars(self)["painters"] = [load_network(name) for name in painters]
        if unfit := [
            n for n, p in zip(painters, vars(self)["painters"], strict=True) if p.any_picture
        ]:
            raise ValueError(f"painters {', '.join(unfit)}: must be networks of named styles")
        vars(self)["begun"] = (
            FeatureNetwork("compact", COMPACT_LAYERS, start_from) if start_from else self.teacher
        )
        self._resumed = False

    def on_fit_start(self) -> None:
        self._to_device()
        if not self._resumed:
            photos = self.trainer.datamodule.first_photos(self.first_photos)  # type: ignore[attr-defined]
            factorize(self.compact, vars(self)["begun"].to(self.device), photos.to(self.device))

    def on_validation_start(self) -> None:
        self._to_device()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed = True

    def _to_device(self) -> None:
        self.teacher.to(self.device)
        for network in vars(self)["painters"]:
            network.to(self.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch; sample i of the photos becomes a picture of kind i mod 4."""
        kinds = [KINDS[int(i) % len(KINDS)] for i in batch["index"]]
        generator = torch.Generator().manual_seed(int(batch["index"][0]))
        errors = self._errors(self._pictures(batch["content"], kinds, "fit", generator))
        features, grams = (torch.stack([e.mean() for e in part.values()]) for part in errors)
        self.log_dict(
            {"train/features": features.mean(), "train/grams": grams.mean()},
            prog_bar=True,
            sync_dist=True,
        )
        return features.sum() + self.gram_weight * grams.sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the mean errors of each layer on photos, paintings and stylized photos.

        Neither the photos nor the paintings are used in training.
        """
        generator = torch.Generator().manual_seed(batch_idx)
        for kind in JUDGED:
            pictures = self._pictures(
                batch["content"], [kind] * len(batch["content"]), "validate", generator
            )
            for what, errors in zip(("features", "gram"), self._errors(pictures), strict=True):
                for layer, error in errors.items():
                    self.log(
                        f"val/{kind}/{layer}/{what}",
                        error.mean(),
                        batch_size=len(pictures),
                        sync_dist=True,
                    )

    def _errors(self, pictures: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return relative squared errors by layer, B each: of features, and of Gram matrices."""
        with torch.no_grad():
            wanted = self.teacher(pictures)
        found = self.compact(pictures)
        features = {layer: _relative(found[layer], wanted[layer]) for layer in COMPACT_LAYERS}
        grams = {
            layer: _relative(gram_matrix(found[layer]), gram_matrix(wanted[layer]))
            for layer in COMPACT_LAYERS
        }
        return features, grams

    @torch.no_grad()
    def _pictures(
        self, photos: Tensor, kinds: Sequence[str], part: str, generator: torch.Generator
    ) -> Tensor:
        """Return a picture of the given kind for each photo, B×3×S×S.

        Args:
            photos: B×3×S×S in [0, 1].
            kinds: a kind for each photo; the method `_KIND` makes its picture.
            part: `fit` or `validate`: which paintings to use.
            generator: source of random numbers.
        """
        made = [
            getattr(self, f"_{kind}")(photo[None], part, generator)
            for photo, kind in zip(photos, kinds, strict=True)
        ]
        return torch.cat(made)

    def _photos(self, photo: Tensor, part: str, generator: torch.Generator) -> Tensor:
        """Return the photo as it is."""
        return photo

    def _changed(self, photo: Tensor, part: str, generator: torch.Generator) -> Tensor:
        """Return the photo with another contrast and brightness, and with noise.

        The loss sees such pictures in an optimization, or early in a training.
        """
        contrast, brightness, noise = torch.rand(3, generator=generator).tolist()
        changed = (photo - 0.5) * (0.3 + 1.4 * contrast) + 0.5 + 0.4 * (brightness - 0.5)
        grain = torch.randn(photo.shape, generator=generator).to(photo)
        return (changed + 0.2 * noise**2 * grain).clamp(0, 1)

    def _paintings(self, photo: Tensor, part: str, generator: torch.Generator) -> Tensor:
        """Return a random crop of a random painting, as large as the photo."""
        paintings = self.paintings[part]
        chosen = paintings[int(torch.randint(len(paintings), (), generator=generator))]
        return crop(chosen[0], photo.shape[-1], generator)[None].to(photo)

    def _stylized(self, photo: Tensor, part: str, generator: torch.Generator) -> Tensor:
        """Return the photo stylized by a random painter, in one style or halfway between two."""
        painters = vars(self)["painters"]
        painter = painters[int(torch.randint(len(painters), (), generator=generator))]
        first, second = torch.randint(painter.num_styles, (2,), generator=generator).tolist()
        # One style if both numbers are the same.
        mixture = {painter.styles[number]: 1 for number in (first, second)}
        return painter(photo, painter.encode_style(mixture))

    def configure_optimizers(self) -> torch.optim.Adam:
        """Return Adam, whose learning rate `Schedule` sets at every step."""
        return torch.optim.Adam(self.compact.parameters(), self.learning_rate)

    @property
    def highest_rates(self) -> list[float]:
        """The highest learning rate of the one group of parameters."""
        return [self.learning_rate]

    def errors(self) -> dict[str, float]:
        """Return the errors of the last validation, by kind/layer/features or kind/layer/gram."""
        found = self.trainer.callback_metrics
        return {
            name.removeprefix("val/"): float(value)
            for name, value in found.items()
            if name.startswith("val/")
        }

    def publish(self, path: Path) -> Path:
        """Write the loss network in half precision, with its licence, steps, errors and commit."""
        about = {
            "licence": LICENCE,
            "steps": self.global_step,
            "errors": self.errors(),
            "commit": commit(),
        }
        return save_compact(path, self.compact.network, self.teacher_name, self.ranks, **about)


def _relative(found: Tensor, wanted: Tensor) -> Float[Tensor, " b"]:
    """Return ‖found − wanted‖² / ‖wanted‖² for each picture."""
    found, wanted = found.float().flatten(1), wanted.float().flatten(1)
    return (found - wanted).square().sum(1) / wanted.square().sum(1)


Linear = tuple[Tensor, Tensor]  # (matrix, offset), or (weight, bias) of a convolution


@torch.no_grad()
def factorize(
    compact: FeatureNetwork, teacher: FeatureNetwork, photos: Float[Tensor, "b 3 h w"]
) -> None:
    """Compute the convolutions of the compact network from its teacher's.

    A response y is projected onto its r principal directions U around its mean (Zhang et al.
    2015, section 3.1): y ≈ U Uᵀ (y − mean) + mean. The narrow convolution is Uᵀ W, the 1×1
    convolution is U.

    A layer may have fewer channels than the teacher's. Then the channels that move the next
    convolution most are kept. The next convolution gets the others as linear functions of the
    kept ones, in the manner of channel pruning (He et al. 2017).

    Args:
        compact: the network whose weights are set.
        teacher: a VGG, or another compact network.
        photos: RGB in [0, 1], on which the teacher's responses are measured.
    """
    x = (photos - teacher.mean) / teacher.std
    convolutions: list[nn.Module] = [
        module for module in teacher.network if isinstance(module, nn.Conv2d | FactoredConvolution)
    ]
    rest: Linear | None = None  # gives all channels of the layer before from its kept ones
    for layer, module in zip(compact.network, teacher.network, strict=True):
        x = module(x)
        if isinstance(layer, FactoredConvolution):
            weight, bias = _seen_through(*_whole(module), rest)
            kept, rest = torch.arange(len(weight)), None
            if layer.wide.out_channels < len(weight):
                following, _ = _whole(convolutions[convolutions.index(module) + 1])
                kept, rest = _kept(_pixels(x.relu()), following, layer.wide.out_channels)
            _set_factors(layer, weight[kept], bias[kept], _pixels(x)[kept])
        elif isinstance(layer, nn.Conv2d):
            layer.load_state_dict(module.state_dict())


def _pixels(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "c n"]:
    """Return features as a matrix in float64, with a column for each pixel of the batch."""
    return x.transpose(0, 1).flatten(1).double()


def _whole(convolution: nn.Module) -> Linear:
    """Return weight and bias of a convolution in float64; two factors are multiplied out."""
    if isinstance(convolution, FactoredConvolution):
        weight = torch.einsum(
            "or,rikl->oikl", convolution.wide.weight[..., 0, 0], convolution.narrow.weight
        )
        bias = convolution.wide.bias
    else:
        assert isinstance(convolution, nn.Conv2d)
        weight, bias = convolution.weight, convolution.bias
    assert bias is not None
    return weight.double(), bias.double()


def _seen_through(weight: Tensor, bias: Tensor, rest: Linear | None) -> Linear:
    """Return weight and bias of a convolution that is given fewer input channels.

    Args:
        weight: for all input channels.
        bias: of the same convolution.
        rest: all input channels as linear functions of the given ones; None: all are given.
    """
    if rest is None:
        return weight, bias
    matrix, offset = rest
    return torch.einsum("ockl,cs->oskl", weight, matrix), bias + weight.sum((2, 3)) @ offset


def _kept(
    activations: Float[Tensor, "c n"], following: Tensor, channels: int
) -> tuple[Tensor, Linear]:
    """Choose channels to keep, and fit all channels as linear functions of them.

    Args:
        activations: of all channels, after the ReLU.
        following: weight of the next convolution, O×C×k×k.
        channels: how many to keep.

    Returns:
        Indices of the kept channels; (matrix, offset) with all ≈ matrix @ kept + offset.
    """
    mean, covariance = activations.mean(1), torch.cov(activations)
    moves = covariance.diagonal() * following.square().sum((0, 2, 3))
    kept = moves.topk(channels).indices.sort().values
    inner = covariance[kept][:, kept]
    ridge = 1e-6 * inner.diagonal().mean() * torch.eye(channels).to(inner)
    matrix = torch.linalg.solve(inner + ridge, covariance[kept]).T
    return kept, (matrix, mean - matrix @ mean[kept])


def _set_factors(
    layer: FactoredConvolution, weight: Tensor, bias: Tensor, responses: Float[Tensor, "c n"]
) -> None:
    """Set both factors of a convolution from the responses to it (see `factorize`)."""
    mean = responses.mean(1)
    u = torch.linalg.eigh(torch.cov(responses)).eigenvectors[:, -layer.narrow.out_channels :]
    layer.narrow.weight.copy_(torch.einsum("or,oikl->rikl", u, weight))
    layer.wide.weight.copy_(u[..., None, None])
    assert layer.wide.bias is not None
    layer.wide.bias.copy_(u @ u.T @ (bias - mean) + mean)


def faithfulness(errors: dict[str, float]) -> str:
    """Return `Distillation.errors` as a Markdown table: a row for each layer, columns by kind."""
    columns = [f"{kind}, {what}" for kind in JUDGED for what in ("features", "gram")]
    lines = ["| layer | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for layer in sorted(COMPACT_LAYERS):
        cells = [
            f"{errors[f'{kind}/{layer}/{what}']:.3f}"
            for kind in JUDGED
            for what in ("features", "gram")
        ]
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
