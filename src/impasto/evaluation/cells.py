"""The cells of an evaluation: a picture with its numbers, kept on disk, so that nothing finished is run again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto.choices import LossOptions
from impasto.evaluation.metrics import Lpips, grain, gram_difference, psnr, ssim, tone
from impasto.images import Picture, read_image, write_image
from impasto.perceptual.loss import PerceptualLoss
from impasto.perceptual.target import PhotoStatistics, StyleTarget
from impasto.reference import Reference, optimize_image
from impasto.writing import write_text

LAST = -1
Rows = list[dict[str, int | float]]


@dataclass(frozen=True)
class Cell:
    """A picture 1×3×H×W, its numbers by name, and, where it was optimized, the terms of every step."""

    image: Tensor
    numbers: dict[str, float]
    curve: Rows = field(default_factory=list)


class Cells:
    """Cells by name below a folder: NAME.png with NAME.json; one made under other settings is made anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str, settings: Mapping[str, Any], make: Callable[[], Cell]) -> Cell:
        """The cell of that name: as it is on disk, or made now and stored."""
        picture, table = self.folder / f"{name}.png", self.folder / f"{name}.json"
        wanted = json.loads(json.dumps(settings, default=str))
        if (found := _stored(picture, table, wanted)) is not None:
            return found
        cell = make()
        table.unlink(missing_ok=True)  # the table comes last: where it is, the picture is complete
        write_image(picture, Picture(cell.image), overwrite=True)
        write_text(
            table, json.dumps({"settings": wanted, "numbers": cell.numbers, "curve": cell.curve}), overwrite=True
        )
        return cell


def _stored(picture: Path, table: Path, wanted: Any) -> Cell | None:
    """The cell on disk, if it is whole and was made under these settings."""
    try:
        stored = json.loads(table.read_text())
        if stored["settings"] == wanted:
            return Cell(read_image(picture).pixels, dict(stored["numbers"]), list(stored["curve"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


class Judge:
    """Measures every approach alike, under one loss, whatever it was made with.

    Args:
        loss: under which the fractions are given.
        photos: P×3×H×W, on which the balance is measured.
        paintings: by name, 1×3×H×W.
        lpips: the perceptual distance to the photo too; takes VGG16's weights.
    """

    def __init__(self, loss: LossOptions, photos: Tensor, paintings: dict[str, Tensor], lpips: bool) -> None:
        self.loss = PerceptualLoss(loss).to(photos.device)
        self.photos, self.paintings = photos, paintings
        self._statistics: dict[str, PhotoStatistics] = {}
        known = self._measured(self.loss)
        self.targets: dict[str, StyleTarget] = {
            name: self.loss.style_target([painting], known) for name, painting in paintings.items()
        }
        self.lpips = Lpips(loss.weights if loss.network == "vgg16" else None, photos.device) if lpips else None
        self.tell: Callable[[int], None] = lambda step: None  # told each step of an optimization
        self._weights = digest(torch.cat([value.flatten() for value in self.loss.features.parameters()]))
        # Not this loss: dynamic weights move while they optimize.
        self._losses: dict[str, tuple[PerceptualLoss, PhotoStatistics | None]] = {}

    @torch.no_grad()
    def numbers(self, image: Tensor, content: Tensor, painting: str) -> dict[str, float]:
        """SSIM, PSNR and LPIPS to the photo, GMD, tone and grain to the painting, the terms as fractions and the loss.

        Both pictures are 1×3×H×W in [0, 1], of one size.
        """
        weights = self.loss.weights
        terms = self.loss(image, content, self.targets[painting])
        style = self.paintings[painting]
        gmd = gram_difference(image, style, self._style_features)
        perceptual = {} if self.lpips is None else {"lpips": self.lpips(image, content)}
        return {
            "ssim": ssim(image, content), "psnr": psnr(image, content), **perceptual, "gmd": gmd,
            "tone": tone(image, style), "grain": grain(image, style),
            **{name: float(value) / weights[name] for name, value in terms.items() if weights[name]},
            "loss": float(torch.stack(list(terms.values())).sum()),
        }  # fmt: skip

    def _style_features(self, image: Tensor) -> dict[str, Tensor]:
        return self.loss.features(image, self.loss.options.style_layers)

    def settings(self, painting: str) -> dict[str, Any]:
        """What its numbers depend on: the weights, wherever they lie."""
        return {
            "loss": asdict(replace(self.loss.options, weights=self._weights)), "lpips": self.lpips is not None,
            "photos": digest(self.photos), "painting": digest(self.paintings[painting]),
        }  # fmt: skip

    def optimized(self, content: Tensor, painting: str, reference: Reference, marks: list[int]) -> dict[int, Cell]:
        """Cells of one run: after each of `marks` steps, and after its last (`LAST`), with the curve up to there.

        `content` is 1×3×H×W in [0, 1]. Raises as `optimize_image` does.
        """
        kept: dict[int, tuple[Tensor, int]] = {}
        curve: Rows = []

        def on_step(step: int, image: Tensor, terms: dict[str, float]) -> None:
            curve.append({"step": step, **terms})
            if step in marks:
                kept[step] = image, len(curve)
            self.tell(step)

        loss, known = self._loss_of(reference)
        last = optimize_image(
            content, [self.paintings[painting]], loss, reference.options, photos=known, on_step=on_step
        )
        kept[LAST] = last, len(curve)
        return {
            step: Cell(image, self.numbers(image, content, painting), curve[:rows])
            for step, (image, rows) in kept.items()
        }

    def _loss_of(self, reference: Reference) -> tuple[PerceptualLoss, PhotoStatistics | None]:
        """One loss network for each set of options, with the photos it has seen: both take longer than a step."""
        key = json.dumps(asdict(reference.loss))
        if key not in self._losses:
            loss = PerceptualLoss(reference.loss).to(self.photos.device)
            self._losses[key] = loss, self._measured(loss)
        return self._losses[key]

    def _measured(self, loss: PerceptualLoss) -> PhotoStatistics | None:
        """The photos' statistics, which most options of a loss do not change."""
        options = loss.options
        if options.balance == "fixed":
            return None
        layers = [sorted(loss.kept_layers), sorted(options.style_layers)]
        key = json.dumps([options.network, options.weights, layers, options.scales])
        if key not in self._statistics:
            self._statistics[key] = loss.photo_statistics(self.photos)
        return self._statistics[key]


def digest(image: Tensor) -> str:
    """Tells pictures apart."""
    return hashlib.sha256(image.cpu().numpy().tobytes()).hexdigest()
