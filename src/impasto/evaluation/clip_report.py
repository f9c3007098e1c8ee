"""The report on clips: how steadily networks paint them, with strips and short clips to look at.

Every approach has a cell for each clip, whose picture is a strip, and a painted clip beside it.
"""

import math
import platform
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from impasto.evaluation.cells import Cell, Cells
from impasto.evaluation.clip_approaches import ClipApproach, Tell
from impasto.evaluation.footage import Footage, Frames
from impasto.evaluation.steadiness import GAP, steadiness
from impasto.evaluation.strips import CELL, Part, frames_shown, moving_part, strip
from impasto.evaluation.tables import MISSING, csv_table, markdown_table
from impasto.images.sheets import contact_sheet
from impasto.video.clips import Frame
from impasto.video.writing import ClipWriter
from impasto.writing import new_file, write_text

# Columns of the tables: keys of the numbers with their titles and formats.
COLUMNS = {
    "e": ("e", ".4f"), "flicker": ("flicker", ".3f"), "input": ("e of the clip", ".4f"),
    "contrast": ("local contrast", ".2f"), "gap": ("e over ten frames", ".4f"),
    "fps": ("frames/s", ".2f"), "motion": ("flow, canvas, blending", ".0%"),
}  # fmt: skip
ITSELF = "the clip"  # name of the row of a strip that shows the clip before it is painted
_CRF = 23  # quality of the painted clips (x264's default)


def compare_clips(
    folder: Path, clips: dict[str, Footage], approaches: list[ClipApproach], tell: Tell
) -> Path:
    """Make the missing cells, then write the report.

    Args:
        folder: gets `report.md`, `numbers.csv`, a strip and the painted clips of each clip.
        clips: by name.
        approaches: in the order of the rows.
        tell: called with what is made, and the number of frames done, over all clips and
            approaches.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: a clip cannot be painted or written.
    """
    table: dict[str, dict[str, Cell]] = {}
    parts, done = [_heading(approaches)], 0
    for name, footage in clips.items():
        cells = _ClipCells(folder, name, footage)
        tell(f"{name}: the motion", done)
        made = {ITSELF: cells.itself(footage)}
        for approach in approaches:
            made[approach.name] = cells.painted(approach, tell, done)
            done += len(footage.frames)
        table[name] = made
        parts += [f"## {name}\n", *_clip(folder, name, footage, approaches, made)]
    if len(clips) > 1:
        parts[1:1] = ["## All clips\n", _means(list(table.values()), approaches)]
    write_text(folder / "numbers.csv", _csv(table, approaches), overwrite=True)
    path = folder / "report.md"
    write_text(path, "\n".join(parts), overwrite=True)
    return path


def outputs(folder: Path, clips: Iterable[str], approaches: Sequence[ClipApproach]) -> list[Path]:
    """Return the files that `compare_clips` writes into a folder for clips of these names."""
    files = ["report.md", "numbers.csv"]
    for clip in clips:
        files += [f"{clip}.png", *(_painted_clip(clip, approach) for approach in approaches)]
    return [folder / file for file in files]


@dataclass(frozen=True)
class _ClipCells:
    """Makes the cells of one clip."""

    folder: Path
    clip: str
    footage: Footage

    def itself(self, footage: Footage) -> Cell:
        """Return the cell of the clip before it is painted, at the size of `footage`."""
        return self._cell(
            f"clip_{footage.size}",
            footage.settings(),
            lambda: self._judged(footage, footage.frames),
        )

    def painted(self, approach: ClipApproach, tell: Tell, done: int) -> Cell:
        """Return the cell of an approach, whose numbers also have `input`, e of the clip itself.

        Args:
            approach: what paints.
            tell: as in `compare_clips`.
            done: number of frames done before.
        """
        file = self.folder / _painted_clip(self.clip, approach)
        footage = self.footage if approach.size is None else self.footage.resized(approach.size)

        def tell_more(said: str, more: int) -> None:
            tell(f"{self.clip}: {approach.name} {said}".rstrip(), done + more)

        def make() -> Cell:
            paintings, took = approach.paint(footage.frames, tell_more)
            cell = self._judged(footage, paintings)
            itself = {"input": self.itself(footage).numbers.get("e", math.nan)}
            # The clip is written before its cell is stored, so that no cell lacks its clip.
            _write_clip(file, footage, paintings)
            return Cell(cell.image, {**cell.numbers, **itself, **took})

        tell_more("", 0)
        if not file.exists():  # somebody removed it: make the cell again, and the clip with it
            (self.folder / "cells" / self.clip / f"{file.stem}.json").unlink(missing_ok=True)
        return self._cell(file.stem, {**footage.settings(), **approach.settings}, make)

    def _cell(self, name: str, settings: dict[str, Any], make: Callable[[], Cell]) -> Cell:
        return Cells(self.folder / "cells").get(f"{self.clip}/{name}", settings, make)

    def _judged(self, footage: Footage, paintings: Frames) -> Cell:
        # The part is that of the clip's own size, so that all strips show the same.
        return Cell(
            strip(paintings, self.part),
            steadiness(footage.in_order(paintings), footage.motions),
        )

    @cached_property
    def part(self) -> Part:
        """What the strips show of the clip."""
        return moving_part(self.footage)


def _clip(
    folder: Path,
    name: str,
    footage: Footage,
    approaches: list[ClipApproach],
    made: dict[str, Cell],
) -> list[str]:
    """Write the strips of a clip's section, and return its Markdown, part by part."""
    rows = [list(cell.image.split(CELL, dim=-1)) for cell in made.values()]
    labels = [f"frame {at + 1}" for at in range(*frames_shown(len(footage.frames)))]
    with new_file(folder / f"{name}.png", overwrite=True) as file:
        contact_sheet(rows, list(made), labels, cell=CELL).save(file, "PNG")
    height, width = footage.frames[0].shape[:2]
    flow = "true flow" if footage.flow_files else "measured flow"
    links = ", ".join(f"[{each.name}]({_painted_clip(name, each)})" for each in approaches)
    return [
        f"{len(footage.frames)} frames of {width}×{height} pixels, {flow}. To look at: {links}.\n",
        _means([made], approaches),
        f"![{name}]({name}.png)\n",
    ]


def _numbers(made: dict[str, Cell], approach: ClipApproach) -> dict[str, float]:
    """Return the numbers of an approach; contrast is relative to that of frames painted alone.

    Args:
        made: cells of one clip by name of the approach.
        approach: whose contrast is left out if the network does not paint frames alone.
    """
    numbers = dict(made[approach.name].numbers)
    contrast = numbers.pop("contrast")
    alone = made[approach.alone].numbers["contrast"] if approach.alone else 0
    return numbers | ({"contrast": contrast / alone} if alone else {})


def _means(clips: list[dict[str, Cell]], approaches: list[ClipApproach]) -> str:
    """Return a Markdown table: the mean of each number over the clips that have it."""
    rows = []
    for approach in approaches:
        found = [_numbers(made, approach) for made in clips]
        row = [approach.name]
        for key, (_, form) in COLUMNS.items():
            values = [numbers[key] for numbers in found if key in numbers]
            row.append(format(statistics.fmean(values), form) if values else MISSING)
        rows.append(row)
    return markdown_table(["painted by", *(title for title, _ in COLUMNS.values())], rows)


def _csv(table: dict[str, dict[str, Cell]], approaches: list[ClipApproach]) -> str:
    """Return all numbers as CSV, a row for each clip and approach."""
    rows = [
        {"clip": clip, "way": approach.name, **_numbers(made, approach)}
        for clip, made in table.items()
        for approach in approaches
    ]
    return csv_table(["clip", "way", *COLUMNS], rows)


def _heading(approaches: list[ClipApproach]) -> str:
    """Return the heading of the report: where clips were painted, and what the numbers mean."""
    device = next(
        (each.settings["device"] for each in approaches if "device" in each.settings), "cpu"
    )
    where = (
        torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else f"CPU, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    return (
        "# How steadily clips are painted\n\n"
        f"{where}, torch {torch.__version__}. "
        "e: root mean square of what changes against the motion, in [0, 1]; the clip has an e too, "
        "of noise, light and wrong flow. Flicker: e as a share of what unrelated paintings have. "
        "Local contrast: in windows of 16 pixels, relative to the same network's frames painted by "
        f"themselves. Over ten frames: e of frames {GAP} apart. Frames/s: without reading and "
        "writing. The last column is a share of that time.\n\n"
        "True flow comes with a clip. Other flow is measured, on frames of twice the size: finer "
        "than the painter's, but of the same method (DIS).\n"
    )


def _painted_clip(clip: str, approach: ClipApproach) -> str:
    """Return the name of the file with a painted clip."""
    name = re.sub(r"[^\w.+-]+", "_", approach.name)
    return f"{clip}_{name}.mp4"


def _write_clip(file: Path, footage: Footage, paintings: Frames) -> None:
    """Write paintings as a clip with the times of the frames, without sound."""
    size = (paintings[0].shape[1], paintings[0].shape[0])
    # A new identity makes the writer discard what an interrupted run left instead of resuming it:
    # here, all paintings are at hand.
    writer = ClipWriter(
        file, footage.clip, size, identity=uuid4().hex, crf=_CRF, audio="none", overwrite=True
    )
    for painting, (pts, duration) in zip(paintings, footage.times, strict=True):
        writer.write(Frame(painting, pts, duration))
    writer.finish()
