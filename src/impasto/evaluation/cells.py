"""The cells of an evaluation, each a stylized picture with its measurements.

Cells are stored on disk. An evaluation that is started again reuses those that are finished.
"""

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
from impasto.perceptual.gaps import PhotoStatistics
from impasto.perceptual.loss import PerceptualLoss
from impasto.perceptual.target import StyleTarget
from impasto.reference import Reference, optimize_image
from impasto.writing import write_text

LAST = -1  # key of the cell after the last step, in `Judge.optimized`
Rows = list[dict[str, int | float]]  # one for each step: `step`, the terms as fractions, `loss`


@dataclass(frozen=True)
class Cell:
    """A stylized picture and what was measured on it.

    Args:
        image: 1×3×H×W in [0, 1].
        numbers: measurements by name (`Judge.numbers`).
        curve: the terms of the loss at each step of an optimization; empty for other approaches.
    """

    image: Tensor
    numbers: dict[str, float]
    curve: Rows = field(default_factory=list)


class Cells:
    """The cells stored in a folder: NAME.png with NAME.json each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, name: str, settings: Mapping[str, Any], make: Callable[[], Cell]) -> Cell:
        """Return the stored cell of that name, or make and store it.

        Args:
            name: path of the cell's files in the folder, without suffix.
            settings: all that the cell depends on. A stored cell of other settings is replaced.
            make: makes the cell.
        """
        picture, table = self.folder / f"{name}.png", self.folder / f"{name}.json"
        wanted = json.loads(json.dumps(settings, default=str))
        if (found := _stored(picture, table, wanted)) is not None:
            return found
        cell = make()
        # The table is removed first and written last: where it exists, it belongs to the picture.
        table.unlink(missing_ok=True)
        write_image(picture, Picture(cell.image), overwrite=True)
        write_text(
            table,
            json.dumps({"settings": wanted, "numbers": cell.numbers, "curve": cell.curve}),
            overwrite=True,
        )
        return cell


def _stored(picture: Path, table: Path, wanted: Any) -> Cell | None:
    """Return the cell on disk; None if it is missing, damaged or of other settings."""
    try:
        stored = json.loads(table.read_text())
        if stored["settings"] == wanted:
            return Cell(read_image(picture).pixels, dict(stored["numbers"]), list(stored["curve"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


class Judge:
    """Measures every approach under one and the same loss, whatever loss it was made with.

    Args:
        loss: options of that loss.
        photos: P×3×H×W in [0, 1], on which the balance of the loss is measured.
        paintings: by name, 1×3×H×W in [0, 1].
        lpips: measure LPIPS too, which needs VGG16's weights.
    """

    def __init__(
        self, loss: LossOptions, photos: Tensor, paintings: dict[str, Tensor], lpips: bool
    ) -> None:
        self.loss = PerceptualLoss(loss).to(photos.device)
        self.photos, self.paintings = photos, paintings
        self._statistics: dict[str, PhotoStatistics] = {}
        known = self._measured(self.loss)
        self.targets: dict[str, StyleTarget] = {
            name: self.loss.style_target([painting], known) for name, painting in paintings.items()
        }
        self.lpips: Lpips | None = None
        if lpips:
            try:
                weights = loss.weights if loss.network == "vgg16" else None
                self.lpips = Lpips(weights, photos.device)
            except ValueError as error:
                raise ValueError(
                    "--lpips needs VGG16's weights: set IMPASTO_WEIGHTS to a file or folder with "
                    f"them, or leave --lpips out ({error})"
                ) from error
        # Called with the number of each step of an optimization; the command shows it.
        self.tell: Callable[[int], None] = lambda step: None
        self._weights = digest(
            torch.cat([value.flatten() for value in self.loss.features.parameters()])
        )
        # Optimizations never use `self.loss`: with `balance: dynamic` they move a loss's weights.
        self._losses: dict[str, tuple[PerceptualLoss, PhotoStatistics | None]] = {}

    @torch.no_grad()
    def numbers(self, image: Tensor, content: Tensor, painting: str) -> dict[str, float]:
        """Return the measurements of a stylized picture.

        Args:
            image: the stylized picture, 1×3×H×W in [0, 1].
            content: the photo, of the same shape and range.
            painting: name of the painting.

        Returns:
            `ssim`, `psnr` and, if asked for, `lpips`, which compare with the photo; `gmd`, `tone`
            and `grain`, which compare with the painting; each term of the loss, divided by its
            weight; `loss`, the sum of the weighted terms.
        """
        weights = self.loss.weights
        terms = self.loss(image, content, self.targets[painting])
        style = self.paintings[painting]
        gmd = gram_difference(image, style, self._style_features)
        perceptual = {} if self.lpips is None else {"lpips": self.lpips(image, content)}
        return {
            "ssim": ssim(image, content), "psnr": psnr(image, content), **perceptual, "gmd": gmd,
            "tone": tone(image, style), "grain": grain(image, style),
            **{name: float(value) / weights[name]
               for name, value in terms.items() if weights[name]},
            "loss": float(torch.stack(list(terms.values())).sum()),
        }  # fmt: skip

    def _style_features(self, image: Tensor) -> dict[str, Tensor]:
        return self.loss.features(image, self.loss.options.style_layers)

    def settings(self, painting: str) -> dict[str, Any]:
        """Return all that the numbers for a painting depend on.

        The loss network's weights are given by their digest: where their file lies does not matter.
        """
        return {
            "loss": asdict(replace(self.loss.options, weights=self._weights)),
            "lpips": self.lpips is not None,
            "photos": digest(self.photos), "painting": digest(self.paintings[painting]),
        }  # fmt: skip

    def optimized(
        self, content: Tensor, painting: str, reference: Reference, marks: list[int]
    ) -> dict[int, Cell]:
        """Run the optimization once and return its cells.

        Args:
            content: the photo, 1×3×H×W in [0, 1].
            painting: name of the painting.
            reference: settings of the optimization.
            marks: numbers of steps after which a cell is kept.

        Returns:
            Cells by number of steps, each with the curve up to there. The final picture has the
            key `LAST`. Marks that the run did not reach, as it ended on a plateau, are missing.

        Raises:
            ValueError: see `optimize_image`.
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
            content,
            [self.paintings[painting]],
            loss,
            reference.options,
            photos=known,
            on_step=on_step,
        )
        kept[LAST] = last, len(curve)
        return {
            step: Cell(image, self.numbers(image, content, painting), curve[:rows])
            for step, (image, rows) in kept.items()
        }

    def _loss_of(self, reference: Reference) -> tuple[PerceptualLoss, PhotoStatistics | None]:
        """Return the loss of a reference and its photo statistics, which are made only once.

        Making either takes longer than a step of the optimization.
        """
        key = json.dumps(asdict(reference.loss))
        if key not in self._losses:
            loss = PerceptualLoss(reference.loss).to(self.photos.device)
            self._losses[key] = loss, self._measured(loss)
        return self._losses[key]

    def _measured(self, loss: PerceptualLoss) -> PhotoStatistics | None:
        """Return the photos' statistics under a loss; None with `balance: fixed`, which needs none.

        They depend on network, weights, layers and scales. Losses that share these share them.
        """
        options = loss.options
        if options.balance == "fixed":
            return None
        layers = [sorted(loss.kept_layers), sorted(options.style_layers)]
        key = json.dumps([options.network, options.weights, layers, options.scales])
        if key not in self._statistics:
            self._statistics[key] = loss.photo_statistics(self.photos)
        return self._statistics[key]


def digest(image: Tensor) -> str:
    """Return the SHA-256 of a tensor's values, in hexadecimal."""
    return hashlib.sha256(image.cpu().numpy().tobytes()).hexdigest()


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
