"""The command `impasto optimize`: a photo and paintings in, the picture of least loss out."""

import csv
import io
import os
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.nn import functional as F

from impasto.commands.jobs import check_output_folder, spare_inputs
from impasto.data.files import find_images
from impasto.evaluation.plots import plot_terms
from impasto.images import (
    WRITABLE,
    Picture,
    encode,
    explained,
    keep_colors,
    match_colors,
    read_image,
    resize,
    writable,
    write_image,
)
from impasto.images.sheets import contact_sheet
from impasto.inference.devices import find_device, memory_explained
from impasto.perceptual.loss import LossOptions, PerceptualLoss
from impasto.reference import OptimizeOptions, optimize_image
from impasto.shipped import shipped_config
from impasto.writing import new_files

GAP_PHOTOS = 32  # of a folder, on which the balance is measured: as many as in training
GAP_SIZE = 256


def optimize(arguments: list[str]) -> int:
    """Runs the command; 0: done, 130: interrupted, with what there was saved. Mistakes are ValueErrors."""
    given, options = read_options(
        "optimize",
        "Paint one photo by optimization (Gatys et al. 2016), under the loss networks are trained with.",
        optimize_photo,
        arguments,
    )
    try:
        return optimize_photo(**given, options=options)
    except KeyboardInterrupt:
        print("interrupted before the first step", file=sys.stderr)
        return 130


def read_options(
    command: str, description: str, job: Callable[..., int], arguments: list[str]
) -> tuple[dict[str, Any], OptimizeOptions]:
    """The arguments of `job` and the options of the reference, on top of configs/optimize.yaml. ValueError as told."""
    parser = ArgumentParser(
        prog=f"impasto {command}", description=description, exit_on_error=False, allow_abbrev=False,
        default_config_files=[*shipped_config("optimize.yaml")],
    )  # fmt: skip
    parser.add_argument("--config", action="config", help="a YAML file of these options, such as ours in configs/")
    parser.add_function_arguments(job, skip={"options"}, as_group=False)
    parser.add_class_arguments(OptimizeOptions, as_group=False)
    try:
        given = parser.parse_args(arguments).as_dict()
    except ArgumentError as error:
        raise ValueError(f"{error} (--help lists the options)") from error
    options = OptimizeOptions(**{option.name: given.pop(option.name) for option in fields(OptimizeOptions)})
    for file in ("config", "__default_config__"):
        given.pop(file, None)
    return {**given, "loss": LossOptions(**given["loss"])}, options


def optimize_photo(
    content: str,
    styles: list[str],
    output: str | None = None,
    size: int = 512,
    style_size: int = 512,
    masks: list[str] = [],  # noqa: B006  only read
    colors: Literal["style", "luminance", "histogram"] = "style",
    photos: str | None = None,
    snapshots: list[int] = [],  # noqa: B006  only read
    device: str = "auto",
    overwrite: bool = False,
    loss: LossOptions = LossOptions(),  # noqa: B008  only read
    options: OptimizeOptions = OptimizeOptions(),  # noqa: B008  only read
) -> int:
    """Optimizes one picture; every mistake that can be seen beforehand is refused before the first step.

    Args:
        content: the photo.
        styles: paintings, with weights if they should differ: [a.jpg=0.7,b.jpg=0.3]; their Gram matrices are mixed.
        output: the picture to write (default: optimized/PHOTO_STYLE.png); the terms of every step go beside it (.csv).
        size: longer side of the result in pixels.
        style_size: longer side of the paintings in pixels: the scale of the strokes; 0 keeps them as they are.
        masks: one picture for each painting, white where it holds; stretched to the photo where sizes differ.
        colors: those of the style; or the photo's: luminance paints its brightness only, histogram gives the paintings
            the photo's mean and covariance of colours first (Gatys et al. 2016).
        photos: a folder of photos on which the balance is measured; without it, on the quarters of the photo.
        snapshots: after how many steps to keep the picture: [1,100,200], as files and as one contact sheet.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.
        overwrite: replace an earlier result.
        loss: what is measured, and how the terms are weighed.
        options: how the picture is optimized.
    """
    if not styles:
        raise ValueError("styles: none given; --styles '[painting.jpg]'")
    paths, weights = _weighted(styles)
    path = Path(output or f"optimized/{Path(content).stem}_{'+'.join(file.stem for file in paths)}.png")
    job = _Job(path, options.steps, tuple(snapshots), overwrite)
    torch_device = find_device(device)
    photo = read_image(content).resized(size)
    pixels = photo.pixels
    paintings = [_painting(file, style_size).to(torch_device) for file in paths]
    if colors == "histogram":
        paintings = [match_colors(painting, pixels.to(torch_device)) for painting in paintings]
    regions = _masks(masks, pixels)
    job.check([Path(content), *paths, *map(Path, masks)], pixels.shape[:-3:-1])
    known = gap_photos(photos).to(torch_device) if photos else None
    perceptual = PerceptualLoss(loss).to(torch_device)
    too_large = (
        f"size {size}: does not fit in the memory of {torch_device}; give --checkpointing true, or a smaller --size"
    )
    with job.progress:
        try:
            with memory_explained(too_large):
                optimize_image(
                    pixels.to(torch_device), paintings, perceptual, options,
                    mixture=weights, photos=known, masks=None if regions is None else regions.to(torch_device),
                    on_step=job.on_step,
                )  # fmt: skip
        except (KeyboardInterrupt, ValueError) as stop:
            if not job.rows:
                raise
            job.stopped = stop
    reached = max(job.latest.shape[-2:])  # a coarse size, where the run was stopped early
    painted = keep_colors(job.latest, resize(pixels, reached)) if colors == "luminance" else job.latest
    # In two steps, as the pixels went: in one, sides may be rounded to another number.
    alpha = None if photo.alpha is None else resize(photo.alpha, reached)
    job.finish(Picture(painted, alpha, photo.icc_profile))
    if isinstance(job.stopped, ValueError):
        raise job.stopped
    return 130 if job.stopped else 0


def _painting(file: Path, size: int | None) -> Tensor:
    painting = read_image(file)
    return (painting.resized(size) if size else painting).pixels


def _masks(files: list[str], pixels: Tensor) -> Tensor | None:
    """The brightness of the mask pictures, N×1×H×W, as large as the photo."""
    found = []
    for file in files:
        picture = read_image(file)
        mask = picture.pixels.mean(1, keepdim=True)
        mask = mask if picture.alpha is None else mask * picture.alpha  # transparent is not white
        if mask.shape[-2:] != pixels.shape[-2:]:
            given, fitted = ("{1}×{0}".format(*image.shape[-2:]) for image in (mask, pixels))
            print(f"{file}: stretched from {given} to {fitted} pixels", file=sys.stderr)
            mask = F.interpolate(mask, size=pixels.shape[-2:], mode="bilinear", antialias=True)
        found.append(mask)
    return torch.cat(found) if found else None


def _weighted(styles: list[str]) -> tuple[list[Path], list[float]]:
    """Files and weights of `a.jpg=0.7`; a file that has a = in its name is found all the same."""
    paths, weights = [], []
    for text in styles:
        name, equals, weight = text.rpartition("=")
        if not equals or Path(text).is_file():
            name, weight = text, "1"
        try:
            weights.append(float(weight))
        except ValueError:
            raise ValueError(f"styles {text}: {weight!r} is no weight; write picture.jpg=0.7") from None
        paths.append(Path(name))
    return paths, weights


def gap_photos(folder: str) -> Tensor:
    """The first photos of a folder, P×3×S×S in [0, 1], for the balance; ImageError where one cannot be read."""
    found = [read_image(file).resized(GAP_SIZE).pixels for file in find_images(folder)[:GAP_PHOTOS]]
    side = min(min(photo.shape[-2:]) for photo in found)
    return torch.cat([photo[..., :side, :side] for photo in found])


@dataclass
class _Job:
    """What a run leaves: the picture, the terms of every step, snapshots; and how far it is."""

    path: Path
    steps: int
    snapshots: tuple[int, ...]
    overwrite: bool
    stopped: BaseException | None = None
    latest: Tensor = field(default_factory=lambda: torch.empty(0))
    rows: list[dict[str, float]] = field(default_factory=list)
    kept: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.progress.add_task("", total=self.steps)

    def check(self, inputs: list[Path], size: Sequence[int]) -> None:
        """Refuses what could not be written at the end, and to write over what was given."""
        if self.path.suffix.lower() not in WRITABLE:
            raise ValueError(f"{self.path}: --output ends with one of {', '.join(WRITABLE)}")
        check_output_folder(self.path.parent)
        files = [self.path, self.path.with_suffix(".csv"), self._plot(), *map(self._snapshot, self.snapshots)]
        files += [self._sheet()] if self.snapshots else []
        spare_inputs(files, inputs)
        there = [file for file in files if os.path.lexists(file)]
        if there and not self.overwrite:
            names = ", ".join(map(str, there))
            raise ValueError(f"{names}: exists already; choose another --output, or --overwrite true")
        writable(self.path, size, self.overwrite)

    def _snapshot(self, step: int) -> Path:
        return self.path.with_stem(f"{self.path.stem}_{step:05d}")

    def _plot(self) -> Path:
        return self.path.with_name(f"{self.path.stem}_terms.png")

    def _sheet(self) -> Path:
        return self.path.with_name(f"{self.path.stem}_snapshots.png")

    def on_step(self, step: int, image: Tensor, terms: dict[str, float]) -> None:
        self.latest = image.cpu()
        self.rows.append({"step": step, "size": max(image.shape[-2:]), **terms})
        said = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
        self.progress.update(self.task, completed=step, description=said)
        if step in self.snapshots:
            self.kept[step] = self.latest
            write_image(self._snapshot(step), Picture(self.latest), overwrite=True)

    def finish(self, picture: Picture) -> None:
        """Writes what there is, and says where."""
        table, terms = self.path.with_suffix(".csv"), io.StringIO(newline="")
        writer = csv.DictWriter(terms, self.rows[0])
        writer.writeheader()
        writer.writerows(self.rows)
        drawn = plot_terms({self.path.stem: self.rows})
        with new_files(self.overwrite) as begin:
            with explained(self.path, "cannot be written"):
                encode(picture, writable(self.path, picture.pixels.shape[:-3:-1], self.overwrite), begin(self.path))
            begin(table).write(terms.getvalue().encode())
            if self.kept:
                sheet = contact_sheet([list(self.kept.values())], column_labels=[f"step {step}" for step in self.kept])
                sheet.save(begin(self._sheet()), "PNG")
            if drawn:
                begin(self._plot()).write(drawn)
        how = "stopped" if self.stopped else "done"
        plot = f" and {self._plot()}" if drawn else ""
        print(f"{how} after {self.rows[-1]['step']} steps: {self.path}, terms in {table}{plot}")
