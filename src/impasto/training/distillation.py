"""How the compact loss network is made: the convolutions of a VGG in two factors, trained to give its features."""

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
from impasto.perceptual.vgg import COMPACT_LAYERS, COMPACT_RANKS, FactoredConvolution, factored, save_compact
from impasto.shipped import commit

KINDS = ("photos", "changed", "paintings", "stylized")  # a batch holds them in turns
JUDGED = ("photos", "paintings", "stylized")
LICENCE = "MIT; made to predict torchvision's ImageNet weights of its teacher (BSD-3-Clause)"


class Distillation(pl.LightningModule):
    """Trains the compact loss network on photos (as they are, and changed), paintings and stylized photos.

    The convolutions begin as factors of the teacher's (`factorize`); then all are trained together on the relative
    errors of features and Gram matrices, as in collaborative distillation (Wang et al. 2020).

    Args:
        paintings: a folder of paintings; every fifth is kept for validation.
        painters: networks to stylize photos with: published names or files.
        teacher: the network whose features are predicted.
        weights: file or folder of the teacher's weights; None: the variable IMPASTO_WEIGHTS, torch's cache, a download.
        ranks: channels between the factors of a convolution, in each of VGG's five blocks.
        start_from: file of a compact network to go on from, of these ranks or higher ones, instead of the teacher.
        painting_size: longer side of the paintings in pixels.
        learning_rate: of Adam, at its highest.
        warmup_steps: steps over which the learning rate rises; then it falls to 0 along a cosine.
        gram_weight: weight of the error of the Gram matrices beside that of the features.
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
        self.learning_rate, self.warmup_steps, self.gram_weight = learning_rate, warmup_steps, gram_weight
        self.compact = FeatureNetwork("compact", COMPACT_LAYERS, network=factored(teacher, ranks))
        self.compact.requires_grad_(True)
        found = [read_image(file).resized(painting_size).pixels for file in find_images(paintings)]
        self.paintings = {"fit": [p for i, p in enumerate(found) if i % 5] or found, "validate": found[::5]}
        # Into __dict__, past nn.Module's registry: in no checkpoint.
        vars(self)["teacher"] = FeatureNetwork(teacher, COMPACT_LAYERS, weights)
        vars(self)["painters"] = [load_network(name) for name in painters]
        vars(self)["begun"] = FeatureNetwork("compact", COMPACT_LAYERS, start_from) if start_from else self.teacher
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
        """The errors on a batch that holds every kind of picture in turns, by their numbers in the stream."""
        kinds = [KINDS[int(i) % len(KINDS)] for i in batch["index"]]
        generator = torch.Generator().manual_seed(int(batch["index"][0]))
        errors = self._errors(self._pictures(batch["content"], kinds, "fit", generator))
        features, grams = (torch.stack([e.mean() for e in part.values()]) for part in errors)
        self.log_dict({"train/features": features.mean(), "train/grams": grams.mean()}, prog_bar=True, sync_dist=True)
        return features.sum() + self.gram_weight * grams.sum()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The mean errors of each layer on photos never trained on, paintings never trained on, stylized photos."""
        generator = torch.Generator().manual_seed(batch_idx)
        for kind in JUDGED:
            pictures = self._pictures(batch["content"], [kind] * len(batch["content"]), "validate", generator)
            for what, errors in zip(("features", "gram"), self._errors(pictures), strict=True):
                for layer, error in errors.items():
                    self.log(f"val/{kind}/{layer}/{what}", error.mean(), batch_size=len(pictures), sync_dist=True)

    def _errors(self, pictures: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Relative squared errors of features and of Gram matrices, by layer, for each picture."""
        with torch.no_grad():
            wanted = self.teacher(pictures)
        found = self.compact(pictures)
        features = {layer: _relative(found[layer], wanted[layer]) for layer in COMPACT_LAYERS}
        grams = {layer: _relative(gram_matrix(found[layer]), gram_matrix(wanted[layer])) for layer in COMPACT_LAYERS}
        return features, grams

    @torch.no_grad()
    def _pictures(self, photos: Tensor, kinds: Sequence[str], part: str, generator: torch.Generator) -> Tensor:
        """The photos, or what their kind makes of them."""
        made = [
            getattr(self, f"_{kind}")(photo[None], part, generator) for photo, kind in zip(photos, kinds, strict=True)
        ]
        return torch.cat(made)

    def _photos(self, photo: Tensor, part: str, generator: torch.Generator) -> Tensor:
        return photo

    def _changed(self, photo: Tensor, part: str, generator: torch.Generator) -> Tensor:
        """Other contrast and brightness, and noise: what an optimization or a young network shows the loss."""
        contrast, brightness, noise = torch.rand(3, generator=generator).tolist()
        changed = (photo - 0.5) * (0.3 + 1.4 * contrast) + 0.5 + 0.4 * (brightness - 0.5)
        grain = torch.randn(photo.shape, generator=generator).to(photo)
        return (changed + 0.2 * noise**2 * grain).clamp(0, 1)

    def _paintings(self, photo: Tensor, part: str, generator: torch.Generator) -> Tensor:
        paintings = self.paintings[part]
        chosen = paintings[int(torch.randint(len(paintings), (), generator=generator))]
        return crop(chosen[0], photo.shape[-1], generator)[None].to(photo)

    def _stylized(self, photo: Tensor, part: str, generator: torch.Generator) -> Tensor:
        """By one of the painters, in one of its styles or halfway between two."""
        painters = vars(self)["painters"]
        painter = painters[int(torch.randint(len(painters), (), generator=generator))]
        first, second = torch.randint(painter.num_styles, (2,), generator=generator).tolist()
        mixture = {painter.styles[number]: 1 for number in (first, second)}  # one style, where both are the same
        return painter(photo, painter.encode_style(mixture))

    def configure_optimizers(self) -> torch.optim.Adam:
        """Adam; the rate of each step is `Schedule`'s."""
        return torch.optim.Adam(self.compact.parameters(), self.learning_rate)

    @property
    def highest_rates(self) -> list[float]:
        """The learning rate of each group of parameters, at its highest."""
        return [self.learning_rate]

    def errors(self) -> dict[str, float]:
        """What the last validation found: by kind/layer/features or kind/layer/gram."""
        found = self.trainer.callback_metrics
        return {name.removeprefix("val/"): float(value) for name, value in found.items() if name.startswith("val/")}

    def publish(self, path: Path) -> Path:
        """Writes the loss network, in half precision, with what it was made from."""
        about = {"licence": LICENCE, "steps": self.global_step, "errors": self.errors(), "commit": commit()}
        return save_compact(path, self.compact.network, self.teacher_name, self.ranks, **about)


def _relative(found: Tensor, wanted: Tensor) -> Float[Tensor, " b"]:
    """‖found − wanted‖² / ‖wanted‖² of each picture."""
    found, wanted = found.float().flatten(1), wanted.float().flatten(1)
    return (found - wanted).square().sum(1) / wanted.square().sum(1)


Linear = tuple[Tensor, Tensor]  # matrix and offset, or weight and bias


@torch.no_grad()
def factorize(compact: FeatureNetwork, teacher: FeatureNetwork, photos: Float[Tensor, "b 3 h w"]) -> None:
    """Computes the convolutions of the compact network from its teacher's, and the teacher's responses to photos.

    The teacher may be another compact network.

    A response y is kept to its r principal directions U around its mean, y ≈ U Uᵀ (y − mean) + mean (Zhang et al.
    2015, section 3.1): the narrow convolution is Uᵀ W, the 1×1 one U. Where a layer has fewer channels than the
    teacher's, those that move the next convolution most are kept, and it sees the rest as linear functions of
    them (in the manner of He et al. 2017, channel pruning).
    """
    x = (photos - teacher.mean) / teacher.std
    convolutions: list[nn.Module] = [
        module for module in teacher.network if isinstance(module, nn.Conv2d | FactoredConvolution)
    ]
    rest: Linear | None = None
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
    return x.transpose(0, 1).flatten(1).double()


def _whole(convolution: nn.Module) -> Linear:
    """Weight and bias of a convolution, in one or two factors."""
    if isinstance(convolution, FactoredConvolution):
        weight = torch.einsum("or,rikl->oikl", convolution.wide.weight[..., 0, 0], convolution.narrow.weight)
        bias = convolution.wide.bias
    else:
        assert isinstance(convolution, nn.Conv2d)
        weight, bias = convolution.weight, convolution.bias
    assert bias is not None
    return weight.double(), bias.double()


def _seen_through(weight: Tensor, bias: Tensor, rest: Linear | None) -> Linear:
    """Weight and bias of a convolution whose inputs are linear functions of fewer."""
    if rest is None:
        return weight, bias
    matrix, offset = rest
    return torch.einsum("ockl,cs->oskl", weight, matrix), bias + weight.sum((2, 3)) @ offset


def _kept(activations: Float[Tensor, "c n"], following: Tensor, channels: int) -> tuple[Tensor, Linear]:
    """The channels to keep, and all channels as linear functions of them."""
    mean, covariance = activations.mean(1), torch.cov(activations)
    moves = covariance.diagonal() * following.square().sum((0, 2, 3))
    kept = moves.topk(channels).indices.sort().values
    inner = covariance[kept][:, kept]
    ridge = 1e-6 * inner.diagonal().mean() * torch.eye(channels).to(inner)
    matrix = torch.linalg.solve(inner + ridge, covariance[kept]).T
    return kept, (matrix, mean - matrix @ mean[kept])


def _set_factors(layer: FactoredConvolution, weight: Tensor, bias: Tensor, responses: Float[Tensor, "c n"]) -> None:
    mean = responses.mean(1)
    u = torch.linalg.eigh(torch.cov(responses)).eigenvectors[:, -layer.narrow.out_channels :]
    layer.narrow.weight.copy_(torch.einsum("or,oikl->rikl", u, weight))
    layer.wide.weight.copy_(u[..., None, None])
    assert layer.wide.bias is not None
    layer.wide.bias.copy_(u @ u.T @ (bias - mean) + mean)


def faithfulness(errors: dict[str, float]) -> str:
    """The errors of `Distillation.errors` as a Markdown table: a row a layer, a column a kind of picture."""
    columns = [f"{kind}, {what}" for kind in JUDGED for what in ("features", "gram")]
    lines = ["| layer | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for layer in sorted(COMPACT_LAYERS):
        cells = [f"{errors[f'{kind}/{layer}/{what}']:.3f}" for kind in JUDGED for what in ("features", "gram")]
        lines.append(f"| {layer} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
