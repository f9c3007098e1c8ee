"""Helpers of `optimize`: reading pictures, and the progress and output files of a run."""

import csv
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from impasto.choices import WRITABLE
from impasto.commands.jobs import check_output_folder, spare_inputs
from impasto.commands.progress import bar
from impasto.data.files import find_images
from impasto.evaluation.plots import plot_terms
from impasto.images import Picture, encode, explained, read_image, scaled, writable, write_image
from impasto.images.sheets import contact_sheet
from impasto.writing import new_files

GAP_PHOTOS = 32  # photos on which the balance is measured at most, as many as in training
GAP_SIZE = 256  # longer side of these photos in pixels


def read_painting(file: Path, size: int | None) -> Tensor:
    """Return a painting, 1×3×H×W in [0, 1], its longer side `size` pixels; 0 keeps its size."""
    painting = read_image(file)
    return (painting.resized(size) if size else painting).pixels


def brightness(files: list[str], pixels: Tensor) -> Tensor | None:
    """Return the brightness of mask files, stretched to the photo; None without files.

    Args:
        files: a picture for each of N paintings.
        pixels: the photo, 1×3×H×W.

    Returns:
        N×1×H×W in [0, 1].
    """
    found = []
    for file in files:
        picture = read_image(file)
        mask = picture.pixels.mean(1, keepdim=True)
        mask = mask if picture.alpha is None else mask * picture.alpha  # transparent is black
        if mask.shape[-2:] != pixels.shape[-2:]:
            if not _same_ratio(mask.shape[-2:], pixels.shape[-2:]):
                given, fitted = ("{1}×{0}".format(*image.shape[-2:]) for image in (mask, pixels))
                print(f"{file}: stretched from {given} to {fitted} pixels", file=sys.stderr)
            mask = F.interpolate(mask, size=pixels.shape[-2:], mode="bilinear", antialias=True)
        found.append(mask)
    return torch.cat(found) if found else None


def _same_ratio(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two sizes have the same ratio of sides.

    The larger is scaled to the smaller. Rounding may make a difference of one pixel.
    """
    small, large = sorted((one, other), key=max)
    return all(abs(a - b) <= 1 for a, b in zip(scaled(large, max(small)), small, strict=True))


def gap_photos(folder: str) -> Tensor:
    """Return the first photos of a folder, on which the balance is measured.

    Returns:
        P×3×S×S in [0, 1]: the photos scaled, and cropped to the shortest of all sides.

    Raises:
        ImageError: a photo cannot be read.
    """
    found = [read_image(file).resized(GAP_SIZE).pixels for file in find_images(folder)[:GAP_PHOTOS]]
    side = min(min(photo.shape[-2:]) for photo in found)
    return torch.cat([photo[..., :side, :side] for photo in found])


@dataclass
class Optimization:
    """An optimization of one picture: its progress, and the files it writes.

    Args:
        path: the picture to write.
        steps: length of the optimization.
        snapshots: numbers of the steps after which the picture is kept.
        overwrite: replace earlier files.
        stopped: the exception that ended the optimization early.
        latest: the picture after the last step, 1×3×H×W in [0, 1].
        rows: step, size and loss terms of every step.
        kept: the snapshots so far, by step.
    """

    path: Path
    steps: int
    snapshots: tuple[int, ...]
    overwrite: bool
    stopped: BaseException | None = None
    latest: Tensor = field(default_factory=lambda: torch.empty(0))
    rows: list[dict[str, float]] = field(default_factory=list)
    kept: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.progress = bar()
        self.task = self.progress.add_task("", total=self.steps)

    def check(self, inputs: list[Path], size: Sequence[int]) -> None:
        """Check, before the first step, that all files can be written at the end.

        Args:
            inputs: pictures that must not be overwritten.
            size: width and height of the result in pixels.

        Raises:
            ValueError: a file would overwrite an input, exists already or cannot be written.
        """
        if self.path.suffix.lower() not in WRITABLE:
            raise ValueError(f"{self.path}: --output ends with one of {', '.join(WRITABLE)}")
        check_output_folder(self.path.parent)
        files = [
            self.path,
            self.path.with_suffix(".csv"),
            self._plot(),
            *map(self._snapshot, self.snapshots),
        ]
        files += [self._sheet()] if self.snapshots else []
        spare_inputs(files, inputs)
        there = [file for file in files if os.path.lexists(file)]
        if there and not self.overwrite:
            names = ", ".join(map(str, there))
            raise ValueError(f"{names}: exists already; choose another --output, or --overwrite")
        writable(self.path, size, self.overwrite)

    def _snapshot(self, step: int) -> Path:
        return self.path.with_stem(f"{self.path.stem}_{step:05d}")

    def _plot(self) -> Path:
        return self.path.with_name(f"{self.path.stem}_terms.png")

    def _sheet(self) -> Path:
        return self.path.with_name(f"{self.path.stem}_snapshots.png")

    def on_step(self, step: int, image: Tensor, terms: dict[str, float]) -> None:
        """Record a step and show it; write the picture if a snapshot is due.

        Args:
            step: number of steps done.
            image: the picture, 1×3×H×W in [0, 1].
            terms: the loss terms, as fractions.
        """
        self.latest = image.cpu()
        self.rows.append({"step": step, "size": max(image.shape[-2:]), **terms})
        said = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
        self.progress.update(self.task, completed=step, description=said)
        if step in self.snapshots:
            self.kept[step] = self.latest
            write_image(self._snapshot(step), Picture(self.latest), overwrite=True)

    def finish(self, picture: Picture) -> None:
        """Write the picture, the table, and plot and contact sheet if any; print their names."""
        table, terms = self.path.with_suffix(".csv"), io.StringIO(newline="")
        writer = csv.DictWriter(terms, self.rows[0])
        writer.writeheader()
        writer.writerows(self.rows)
        drawn = plot_terms({self.path.stem: self.rows})
        with new_files(self.overwrite) as begin:
            with explained(self.path, "cannot be written"):
                encode(
                    picture,
                    writable(self.path, picture.pixels.shape[:-3:-1], self.overwrite),
                    begin(self.path),
                )
            begin(table).write(terms.getvalue().encode())
            if self.kept:
                sheet = contact_sheet(
                    [list(self.kept.values())], column_labels=[f"step {step}" for step in self.kept]
                )
                sheet.save(begin(self._sheet()), "PNG")
            if drawn:
                begin(self._plot()).write(drawn)
        how = "stopped" if self.stopped else "done"
        plot = f" and {self._plot()}" if drawn else ""
        print(f"{how} after {self.rows[-1]['step']} steps: {self.path}, terms in {table}{plot}")
