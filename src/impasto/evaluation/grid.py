"""Grids of optimized pictures over one or two options, which show what these options do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from impasto.choices import LossOptions, OptimizeOptions
from impasto.evaluation.cells import LAST, Cell, Cells, Judge, digest
from impasto.evaluation.plots import plot_terms
from impasto.evaluation.tables import MISSING, csv_table, markdown_table
from impasto.images.sheets import contact_sheet
from impasto.reference import Reference
from impasto.writing import new_file, write_bytes, write_text

NUMBERS = ("content", "style", "loss", "ssim", "gmd")  # the columns of the report's table
Axes = Mapping[str, list[Any]]


@dataclass(frozen=True)
class Grid:
    """The axes of a grid and what is optimized at each of its points.

    Args:
        axes: one or two axes with their values. Of two, the first gives the rows, the second the
            columns. An axis is `photo`, `painting`, the name of an option of `OptimizeOptions`, or
            `loss.` and the name of an option of `LossOptions`.
        photos: by name, 1×3×H×W in [0, 1], in the size of the results. Without an axis `photo`,
            the first is taken.
        paintings: names of paintings. Without an axis `painting`, the first is taken.
        reference: the setting that the axes vary.

    Raises:
        ValueError: no or more than two axes, an unknown axis, an axis without values, or a photo
            or painting that is not there.
    """

    axes: Axes
    photos: dict[str, Tensor]
    paintings: list[str]
    reference: Reference

    def __post_init__(self) -> None:
        known = ["photo", "painting", *(option.name for option in fields(OptimizeOptions))]
        known += [f"loss.{option.name}" for option in fields(LossOptions)]
        if unknown := [name for name in self.axes if name not in known]:
            raise ValueError(
                f"axes {', '.join(unknown)}: no such option; "
                f"choose one or two of {', '.join(known)}"
            )
        for axis, there in (("photo", list(self.photos)), ("painting", self.paintings)):
            if missing := [str(name) for name in self.axes.get(axis, []) if name not in there]:
                raise ValueError(
                    f"axes {axis} {', '.join(missing)}: choose from {', '.join(there)}"
                )
        if not 1 <= len(self.axes) <= 2 or not all(self.axes.values()):
            raise ValueError(f"axes {dict(self.axes)}: one or two, with at least one value each")

    def points(self) -> list[dict[str, Any]]:
        """Return every combination of the axes' values, row by row."""
        return [
            dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())
        ]

    def at(self, point: Mapping[str, Any]) -> Reference:
        """Return the setting at a point; `ValueError` if an option cannot have that value."""
        loss = {
            name.removeprefix("loss."): value
            for name, value in point.items()
            if name.startswith("loss.")
        }
        plain = {
            name: value
            for name, value in point.items()
            if name not in ("photo", "painting", *self._loss_axes())
        }
        return Reference(
            replace(self.reference.options, **plain), replace(self.reference.loss, **loss)
        )

    def _loss_axes(self) -> list[str]:
        return [name for name in self.axes if name.startswith("loss.")]


def explore(folder: Path, judge: Judge, grid: Grid, advance: Callable[[str], None]) -> Path:
    """Optimize the missing pictures of a grid, then write the report.

    Args:
        folder: gets `report.md`, `numbers.csv`, `grid.jpg`, `curves.png` and the cells.
        judge: measures the pictures.
        grid: the points.
        advance: called with a point's label before the point is made.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: an option cannot have a value of its axis (checked before the first run), or
            see `optimize_image`.
    """
    settings = [grid.at(point) for point in grid.points()]  # raises before the first run
    cells = Cells(folder / "cells")
    made = []
    for point, reference in zip(grid.points(), settings, strict=True):
        advance(_label(point))
        made.append(_cell(cells, judge, grid, point, reference))
    return _report(folder, judge, grid, made)


def _cell(
    cells: Cells, judge: Judge, grid: Grid, point: Mapping[str, Any], reference: Reference
) -> Cell:
    """Return the cell at a point, stored or optimized now."""
    photo, painting = (
        point.get("photo", next(iter(grid.photos))),
        point.get("painting", grid.paintings[0]),
    )
    content = grid.photos[photo]
    depends = {
        **reference.settings(),
        "judge": judge.settings(painting),
        "content": digest(content),
    }
    return cells.get(
        _label(point, ",").replace("/", "_"),
        depends,
        lambda: judge.optimized(content, painting, reference, [])[LAST],
    )


def _report(folder: Path, judge: Judge, grid: Grid, made: list[Cell]) -> Path:
    """Write the report of the cells, given in the order of the points; return its path."""
    points = grid.points()
    numbers = csv_table(
        [*grid.axes, *made[0].numbers],
        ({**_as_text(point), **cell.numbers} for point, cell in zip(points, made, strict=True)),
    )
    write_text(folder / "numbers.csv", numbers, overwrite=True)
    columns = len(made) if len(grid.axes) == 1 else len(list(grid.axes.values())[1])
    rows = [
        [cell.image for cell in made[start : start + columns]]
        for start in range(0, len(made), columns)
    ]
    labels = [[_label({name: value}) for value in values] for name, values in grid.axes.items()]
    sheet = contact_sheet(rows, labels[0] if len(labels) == 2 else [], labels[-1], cell=224)
    with new_file(folder / "grid.jpg", overwrite=True) as file:
        sheet.save(file, "JPEG", quality=85)
    if drawn := plot_terms(
        {_label(point): cell.curve for point, cell in zip(points, made, strict=True)}
    ):
        write_bytes(folder / "curves.png", drawn, overwrite=True)
    heading = (
        f"# {' × '.join(grid.axes)}\n\n"
        f"Judged by {judge.loss.options.network}; content and style are fractions.\n"
    )
    curves = "\n![curves](curves.png)\n" if drawn else ""
    path = folder / "report.md"
    write_text(
        path, "\n".join([heading, _table(grid, made), "![grid](grid.jpg)", curves]), overwrite=True
    )
    return path


def _table(grid: Grid, made: list[Cell]) -> str:
    """Return the cells, given in the order of the points, as a Markdown table."""
    rows = []
    for point, cell in zip(grid.points(), made, strict=True):
        numbers = cell.numbers
        shown = [f"{numbers[key]:.3f}" if key in numbers else MISSING for key in NUMBERS]
        rows.append([*_as_text(point).values(), *shown])
    return markdown_table([*grid.axes, *NUMBERS], rows)


def _label(point: Mapping[str, Any], separator: str = ", ") -> str:
    """Return the label of a point: `noise_ratio 0.3`; for a photo or painting its name alone."""
    parts = []
    for name, said in _as_text(point).items():
        parts.append(
            said if name in ("photo", "painting") else f"{name.removeprefix('loss.')} {said}"
        )
    return separator.join(parts)


def _as_text(point: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of a point as text; layers as `relu1_1+0.5·relu2_1`."""
    return {
        name: "+".join(_weighed(*item) for item in value.items())
        if isinstance(value, dict)
        else str(value)
        for name, value in point.items()
    }


def _weighed(layer: str, weight: float) -> str:
    return layer if weight == 1 else f"{weight:g}·{layer}"
