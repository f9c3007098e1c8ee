"""The report that compares networks, the reference and a plain baseline, with pictures.

The reference is the optimization of Gatys et al. 2016. The baseline is a colour transfer.
"""

import platform
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto.benchmark.cost import Cost, cost_of_network, cost_of_reference
from impasto.evaluation.cells import LAST, Cell, Cells, Judge, digest, file_digest
from impasto.evaluation.metrics import grid_pattern
from impasto.evaluation.plots import plot_terms
from impasto.evaluation.tables import MISSING, markdown_table
from impasto.images import match_colors
from impasto.images.sheets import contact_sheet
from impasto.inference import Stylizer
from impasto.networks import find_network, load_network
from impasto.reference import Reference
from impasto.writing import new_file, write_bytes, write_text

# Columns of the tables: keys of `Cell.numbers` with their titles.
COLUMNS = {
    "ssim": "SSIM", "psnr": "PSNR, dB", "lpips": "LPIPS", "gmd": "GMD",
    "tone": "tone", "grain": "grain", "content": "content", "style": "style",
    "loss": "loss", "grid": "grid", "equal": "equal to iterations",
}  # fmt: skip
BASELINE = "colour transfer"  # name of the baseline


@dataclass(frozen=True)
class Compared:
    """What a report compares.

    Args:
        photos: by name, 1×3×H×W in [0, 1], in the size of the results.
        paintings: names of paintings.
        networks: published names or files of networks.
        reference: the main setting of the optimization.
        marks: numbers of iterations after which the reference is shown, the lowest first.
        others: further settings of the optimization by name, shown at their end.
        notes: remarks for the heading of the report, without a full stop.
    """

    photos: dict[str, Tensor]
    paintings: list[str]
    networks: list[str]
    reference: Reference
    marks: list[int]
    others: dict[str, Reference]
    notes: list[str] = field(default_factory=list)

    def pictures(self) -> int:
        """Return how many stylized pictures the report has at most.

        It has fewer if a network does not know every painting.
        """
        each = 1 + len(self.marks) + len(self.others) + len(self.networks)
        return each * len(self.photos) * len(self.paintings)


def compare(
    folder: Path, judge: Judge, compared: Compared, costs: bool, advance: Callable[[str], None]
) -> Path:
    """Make the missing cells, then write the report.

    Args:
        folder: gets `report.md`, its pictures and the cells.
        judge: measures the pictures.
        compared: what is compared.
        costs: measure runtime and memory too.
        advance: called with what comes next, before each cell and each measurement of costs.

    Returns:
        The path of `report.md`.
    """
    cells = Cells(folder / "cells")
    table = {
        (photo, painting): _Row(cells, judge, compared, photo, painting, advance).approaches()
        for painting in compared.paintings
        for photo in compared.photos
    }
    parts = [_heading(judge, compared)]
    if len(compared.paintings) > 1:
        parts += ["## All photos and paintings\n", _numbers(list(table.values()))]
    if costs:
        parts += ["## What it costs\n", _costs(judge, compared, list(table.values()), advance)]
    for painting in compared.paintings:
        rows = {photo: row for (photo, name), row in table.items() if name == painting}
        parts += [f"## {painting}\n", *_painting(folder, painting, rows, compared)]
    path = folder / "report.md"
    write_text(path, "\n".join(parts), overwrite=True)
    return path


@dataclass(frozen=True)
class _Row:
    """Makes the cells of every approach for one photo and one painting."""

    cells: Cells
    judge: Judge
    compared: Compared
    photo: str
    painting: str
    advance: Callable[[str], None]

    def approaches(self) -> dict[str, Cell]:
        """Return the cells by name of the approach.

        First comes the baseline, then the optimizations, then the networks that know the painting.
        A network's cell also has the number `equal`, see `_equal`.
        """
        content, painting = self.compared.photos[self.photo], self.judge.paintings[self.painting]
        made = {
            BASELINE: self._cell(
                BASELINE, {}, lambda: self._judged(match_colors(content, painting))
            )
        }
        made |= self._references()
        curve = made[f"reference {max(self.compared.marks)}"].curve
        for file in self.compared.networks:
            network = load_network(file)
            if network.any_picture or self.painting in network.styles:
                cell = self._network(file)
                equal = _equal(curve, cell.numbers["loss"])
                made[Path(file).stem] = Cell(cell.image, {**cell.numbers, "equal": equal})
        return made

    def _references(self) -> dict[str, Cell]:
        """Return the cells of all optimizations by name.

        The reference has a cell at each mark, all from one run; other settings have one, at their
        end.
        """
        compared, made = self.compared, {}
        ran: dict[int, Cell] = {}

        def at(mark: int) -> Cell:
            if not ran:
                ran.update(self._optimized(compared.reference, compared.marks))
            return ran.get(mark, ran[LAST])  # the run may have ended before, on a plateau

        for mark in compared.marks:
            made[f"reference {mark}"] = self._cell(
                f"reference {mark}", compared.reference.settings(), partial(at, mark)
            )
        for name, other in compared.others.items():
            made[name] = self._cell(name, other.settings(), partial(self._at_its_end, other))
        return made

    def _at_its_end(self, other: Reference) -> Cell:
        return self._optimized(other, [])[LAST]

    def _optimized(self, reference: Reference, marks: list[int]) -> dict[int, Cell]:
        return self.judge.optimized(
            self.compared.photos[self.photo], self.painting, reference, marks
        )

    def _network(self, file: str) -> Cell:
        """Return the cell of a network; it has the number `grid` besides (`grid_pattern`)."""
        network = load_network(file)
        painting = self.judge.paintings[self.painting] if network.any_picture else self.painting
        stylizer = Stylizer(
            network, painting, stroke="pixels", device=str(self.judge.photos.device)
        )
        content = self.compared.photos[self.photo]

        @torch.no_grad()
        def make() -> Cell:
            judged = self._judged(stylizer(content))
            locked = grid_pattern(
                lambda part, origin: stylizer.painter.paint(part, stylizer.code, origin=origin),
                content,
            )
            return Cell(judged.image, {**judged.numbers, "grid": locked})

        return self._cell(Path(file).stem, {"weights": file_digest(find_network(file))}, make)

    def _judged(self, image: Tensor) -> Cell:
        return Cell(
            image, self.judge.numbers(image, self.compared.photos[self.photo], self.painting)
        )

    def _cell(self, name: str, settings: dict[str, Any], make: Callable[[], Cell]) -> Cell:
        self.advance(f"{self.painting}, {self.photo}: {name}")
        content = digest(self.compared.photos[self.photo])
        settings = {**settings, "judge": self.judge.settings(self.painting), "content": content}
        return self.cells.get(
            f"{self.painting}/{self.photo}/{name.replace(' ', '_')}", settings, make
        )


def _equal(curve: list, loss: float) -> float:
    """Return after how many iterations the reference's loss is at most `loss`; infinite if never.

    This is the comparison of Johnson et al. 2016, figure 5.

    Args:
        curve: the reference's rows (`Cell.curve`).
        loss: of the network's picture.
    """
    return float(next((row["step"] for row in curve if row["loss"] <= loss), "inf"))


def _numbers(rows: list[dict[str, Cell]]) -> str:
    """Return a Markdown table: the mean of each number, by approach, over the rows that have it.

    Args:
        rows: cells by approach, for each pair of photo and painting.
    """
    approaches = list(dict.fromkeys(name for row in rows for name in row))
    columns = [
        key for key in COLUMNS if any(key in cell.numbers for row in rows for cell in row.values())
    ]
    table = []
    for name in approaches:
        found = [row[name].numbers for row in rows if name in row]
        means = [
            _mean([numbers[key] for numbers in found if key in numbers], key) for key in columns
        ]
        table.append([name, *means, str(len(found))])
    return markdown_table(["approach", *(COLUMNS[key] for key in columns), "pictures"], table)


def _mean(values: list[float], key: str) -> str:
    if not values:
        return MISSING
    if key == "equal":  # the median, since the mean is infinite if one value is
        middle = statistics.median(values)
        return "more" if middle == float("inf") else f"{middle:.0f}"
    return f"{statistics.fmean(values):.{1 if key in ('psnr', 'grid') else 3}f}"


def _painting(
    folder: Path, painting: str, rows: Mapping[str, dict[str, Cell]], compared: Compared
) -> list[str]:
    """Write the pictures of a painting's section and return its Markdown, part by part.

    The parts are a table, a contact sheet and, if matplotlib is there, the reference's curves.
    """
    approaches = list(next(iter(rows.values())))
    pictures = [
        [compared.photos[photo], *(row[name].image for name in approaches)]
        for photo, row in rows.items()
    ]
    sheet = folder / f"{painting}.jpg"
    with new_file(sheet, overwrite=True) as place:
        contact_sheet(pictures, list(rows), ["photo", *approaches], cell=224).save(
            place, "JPEG", quality=85
        )
    last = f"reference {max(compared.marks)}"
    curves, file = [], folder / f"{painting}_curves.png"
    if drawn := plot_terms({photo: row[last].curve for photo, row in rows.items()}):
        write_bytes(file, drawn, overwrite=True)
        curves = [f"![the reference's terms]({file.name})\n"]
    return [_numbers(list(rows.values())), f"![{painting}]({sheet.name})\n", *curves]


def _costs(
    judge: Judge, compared: Compared, rows: list[dict[str, Cell]], advance: Callable[[str], None]
) -> str:
    """Return a Markdown table laid out as that of Duggal et al.

    By approach it has SSIM, GMD, runtime at 256² and 1024² pixels, and peak memory at 1024².
    """
    table, device = [], str(judge.photos.device)
    iteration = cache(
        lambda other: _iteration(compared.others.get(other, compared.reference), device)
    )
    for name in dict.fromkeys(name for row in rows for name in row if name != BASELINE):
        advance(f"cost of {name}")
        found = [row[name].numbers for row in rows if name in row]
        quality = [
            f"{statistics.fmean(numbers[key] for numbers in found):.3f}" for key in ("ssim", "gmd")
        ]
        costs = _cost(name, compared, device, iteration)
        times = [f"{cost.seconds:.3g}" for cost in costs]
        table.append([name, *quality, *times, f"{costs[-1].mebibytes:.0f}"])
    titles = ["approach", "SSIM", "GMD", "256², s", "1024², s", "memory at 1024², MiB"]
    return markdown_table(titles, table)


def _cost(
    name: str, compared: Compared, device: str, iteration: Callable[[str], list[Cost]]
) -> list[Cost]:
    """Return what a picture costs by this approach, at 256² and at 1024² pixels.

    Args:
        name: of the approach.
        compared: what is compared.
        device: where it is measured.
        iteration: returns the costs of one iteration, of the setting with a given name.
    """
    for network in compared.networks:
        if Path(network).stem == name:
            return [cost_of_network(network, size, device) for size in (256, 1024)]
    if name in compared.others:
        steps, costs = compared.others[name].options.steps, iteration(name)
    else:
        steps, costs = int(name.split()[1]), iteration("reference")
    return [replace(cost, seconds=steps * cost.seconds) for cost in costs]


def _iteration(reference: Reference, device: str) -> list[Cost]:
    return [cost_of_reference(reference, size, device) for size in (256, 1024)]


def _heading(judge: Judge, compared: Compared) -> str:
    """Return the heading of the report: what was compared where, and what the numbers mean."""
    options, device = judge.loss.options, judge.photos.device
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    size = max(max(photo.shape[-2:]) for photo in compared.photos.values())
    return (
        f"# Which result is better, by how much\n\n"
        f"{len(compared.photos)} photos × {len(compared.paintings)} paintings at {size} pixels; "
        f"{where}, {platform.machine()}, torch {torch.__version__}. "
        f"Every approach is judged by {options.network}, under the loss of the reference "
        f"(`style_strength` {options.style_strength:g}, balance on {len(judge.photos)} photos): "
        "content and style are fractions, 0 perfect, 1 nothing kept or taken on. "
        "SSIM, PSNR, LPIPS (`--lpips`): to the photo; GMD: to the painting "
        "(relative Frobenius distance of the Gram matrices, mean over the layers). "
        f'"Grid": what is locked to the pixel grid instead of moving with the photo, '
        f'RMS in grey levels. "Equal to iterations": the reference is as low after so many, '
        f"of {max(compared.marks)} (median).\n" + "".join(f"\n{note}.\n" for note in compared.notes)
    )
