"""The report on clips: how steadily networks paint them, with strips and short clips to look at.

Every way to paint is a cell for each clip: its numbers, a strip of enlarged frames, and a clip.
"""

import csv
import hashlib
import io
import math
import platform
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from numpy import ndarray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from impasto.benchmark.video import TimedPainter, timed
from impasto.choices import ClipOptions
from impasto.evaluation.cells import Cell, Cells, digest
from impasto.images import from_pil, read_image, to_levels
from impasto.images.sheets import contact_sheet
from impasto.inference import Stylizer
from impasto.networks import find_network
from impasto.perceptual.loss import PerceptualLoss
from impasto.perceptual.temporal import LUMINANCE
from impasto.reference import Reference
from impasto.reference_video import optimize_clip
from impasto.spelling import not_there
from impasto.video import motion
from impasto.video.clips import Frame
from impasto.video.motion import Flicker, Motion
from impasto.video.reading import open_clip
from impasto.video.reading.folders import natural
from impasto.video.writing import ClipWriter
from impasto.writing import new_file, one_line, write_text

# Columns of the tables: keys of the numbers with their titles and formats.
COLUMNS = {
    "e": ("e", ".4f"), "flicker": ("flicker", ".3f"), "input": ("e of the clip", ".4f"),
    "contrast": ("local contrast", ".2f"), "gap": ("e over ten frames", ".4f"),
    "fps": ("frames/s", ".2f"), "motion": ("flow, canvas, blending", ".0%"),
}  # fmt: skip
GAP = 10  # frames between the two that show what a clip loses over a longer time
WINDOW = 16  # side of the windows in which contrast is measured, in pixels
PART, SHOWN, ENLARGED = 96, 6, 3  # a strip: pixels of the part, frames, factor
_MASK = ".png"  # suffix of the pictures that say what is occluded
_CRF = 23  # of the clips to look at
_NEAREST = Image.Resampling.NEAREST

Paintings = list[UInt8[ndarray, "_ _ 3"]]
Tell = Callable[[str, int], None]  # what is done now, and how many frames are done


class Footage:
    """The first frames of a clip, and the motion between them that paintings are judged by.

    Args:
        path: a clip, an animation, or a folder of frames.
        count: largest number of frames.
        size: largest longer side in pixels; larger frames are scaled down.
        flow: folder of the true flow; None: flow is measured, on frames of twice the size, not as
            the painter does it.

    Attributes:
        frames: H×W×3.
        times: time and duration of each, in the clip's own unit.

    Raises:
        ValueError: the clip or its flow cannot be read, or it has fewer than two frames.
    """

    def __init__(self, path: Path, count: int, size: int, flow: Path | None = None) -> None:
        motion.require()
        self.path, self.count, self.size = path, count, size
        self.clip = open_clip(path)
        self.frames: Paintings = []
        self.times: list[tuple[int, int]] = []
        for frame in self.clip.frames():
            self.frames.append(_scaled_down(frame.pixels[..., :3], size))
            self.times.append((frame.pts, frame.duration))
            if len(self.frames) == count:
                break
        if len(self.frames) < 2:
            raise ValueError(one_line(path, "has one frame: flicker needs two or more"))
        self.flow = flow
        self.flow_files = [] if flow is None else _flow_files(flow, len(self.frames))

    def resized(self, size: int) -> "Footage":
        """Return the same frames at another size."""
        return Footage(self.path, self.count, size, self.flow)

    def settings(self) -> dict[str, Any]:
        """Return all that the numbers depend on besides the paintings."""
        files = [
            each
            for file in self.flow_files
            for each in (file, file.with_suffix(_MASK))
            if each.exists()
        ]
        return {
            "frames": digest(torch.from_numpy(np.stack(self.frames))),
            "flow": [hashlib.sha256(file.read_bytes()).hexdigest() for file in files] or "fine DIS",
        }

    def in_order(self, paintings: list[Any]) -> list[Any]:
        """Return paintings in the order of `motions`: backwards where the flow is true.

        Files of true flow lead from a frame to the next one. What is compared is at the place where
        the flow begins, so the clip is gone through from its end.
        """
        return paintings[::-1] if self.flow_files else paintings

    @cached_property
    def motions(self) -> list[Motion | None]:
        """The motion between neighbours, in the order of `in_order`; None: a cut between them."""
        frames = self.in_order(self.frames)
        pairs = list(pairwise(frames))
        if self.flow_files:
            return [
                _true_motion(file, *pair)
                for file, pair in zip(self.flow_files[::-1], pairs, strict=True)
            ]
        found = [motion.estimate(*pair, fine=True) for pair in pairs]
        return [
            None if motion.is_cut(*pair, moved) else moved
            for pair, moved in zip(pairs, found, strict=True)
        ]

    @cached_property
    def place(self) -> tuple[float, float, float]:
        """Top, left and side of the part that moves most, as shares of the height and width."""
        first, last = _shown(len(self.frames))
        moved = self.in_order(self.motions)[first : last - 1]
        height, width = self.frames[0].shape[:2]
        side = min(PART, height, width)
        speed = np.zeros((height, width))
        for each in filter(None, moved):
            speed += np.where(each.trusted, np.linalg.norm(each.flow, axis=-1), 0)
        windows = [
            (speed[top : top + side, left : left + side].mean(), -top, -left)
            for top in range(0, height - side + 1, WINDOW)
            for left in range(0, width - side + 1, WINDOW)
        ]
        _, top, left = max(windows)
        return -top / height, -left / width, side / width


def steadiness(
    paintings: Sequence[UInt8[ndarray, "h w 3"]],
    motions: Sequence[Motion | None],
    gap: int = GAP,
) -> dict[str, float]:
    """Return how steady a painted clip is.

    Args:
        paintings: of two frames or more.
        motions: between neighbours; None: a cut.
        gap: frames between those that are compared over a longer time.

    Returns:
        By name `e` and `flicker` (`impasto.video.motion.Flicker`); `contrast` (`local_contrast`,
        the mean over the frames); and `gap`, e of frames that lie `gap` apart, along the flows
        between them. What cannot be measured is missing.
    """
    measured = Flicker()
    for painting, moved in zip(paintings, [None, *motions], strict=True):
        measured.add(_values(painting), moved)
    errors = []
    for at in range(len(paintings) - gap):
        between = [moved for moved in motions[at : at + gap] if moved is not None]
        if len(between) == gap:
            whole = reduce(motion.chained, between)
            pair = _values(paintings[at]), _values(paintings[at + gap])
            errors.append(motion.temporal_error(*pair, whole))
    errors = [error for error in errors if not math.isnan(error)]
    numbers = {
        "e": measured.error,
        "flicker": measured.flicker,
        "contrast": statistics.fmean(map(local_contrast, paintings)),
        "gap": math.sqrt(statistics.fmean(errors)) if errors else math.nan,
    }
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def local_contrast(painting: UInt8[ndarray, "h w 3"]) -> float:
    """Return the standard deviation of the luminance in windows of 16×16 pixels, their mean.

    Blurred paintings are steady too; this tells them apart. Luminance is in [0, 1]. Rows and
    columns beyond the last whole window do not count.
    """
    luminance = _values(painting) @ np.array(LUMINANCE, np.float32)
    height, width = luminance.shape
    down, right = min(WINDOW, height), min(WINDOW, width)
    windows = luminance[: height // down * down, : width // right * right].reshape(
        height // down, down, width // right, right
    )
    return float(windows.std((1, 3)).mean())


@dataclass(frozen=True)
class Way:
    """A way to paint a clip.

    Args:
        name: of its rows.
        settings: all that the paintings depend on besides the frames.
        paint: returns the paintings of a clip's frames, and what they took (`timed`). Its second
            argument is called with what is said of the work, and the number of frames done.
        size: longer side of its frames in pixels; None: that of the others.
        alone: name of the same network painting each frame by itself, whose contrast is 1.
    """

    name: str
    settings: dict[str, Any]
    paint: Callable[[Paintings, Tell], tuple[Paintings, dict[str, float]]]
    size: int | None = None
    alone: str | None = None


def ways_of_network(file: str, style: Any, steady: float, device: str) -> list[Way]:
    """Return the two ways in which a network paints: each frame by itself, and steadily.

    Args:
        file: a published name or a file.
        style: the style as `Stylizer` takes it. A path is for networks for any painting only.
        steady: share of the previous painting that is kept, above 0.
        device: where it paints.

    Raises:
        ValueError: an unknown network or style, or a share out of range.
    """
    stylizer = Stylizer(file, style, stroke="pixels", device=device)
    weights = hashlib.sha256(find_network(file).read_bytes()).hexdigest()
    alone = f"{Path(file).stem}, per frame"

    def way(name: str, share: float) -> Way:
        def paint(frames: Paintings, tell: Tell) -> tuple[Paintings, dict[str, float]]:
            return timed(TimedPainter(stylizer, share), frames, partial(tell, ""))

        settings = {
            "weights": weights, "code": stylizer.code.tolist(), "steady": share,
            "painter": type(stylizer.painter).__name__, "device": str(stylizer.painter.device),
        }  # fmt: skip
        TimedPainter(stylizer, share)  # refuses a share out of range before the first frame
        return Way(name, settings, paint, alone=alone)

    return [way(alone, 0.0), way(f"{Path(file).stem}, steady", steady)]


def way_of_reference(reference: Reference, painting: Tensor, size: int) -> Way:
    """Return the optimization of clips as a way to paint (Ruder et al. 2016).

    Args:
        reference: its settings; each frame takes `options.steps` iterations.
        painting: 1×3×H×W in [0, 1], on the device where it works.
        size: longer side of its frames in pixels.
    """
    clip = ClipOptions(steps=reference.options.steps)

    def paint(frames: Paintings, tell: Tell) -> tuple[Paintings, dict[str, float]]:
        loss = PerceptualLoss(reference.loss).to(painting.device)

        def on_step(_: int, frame: int, step: int, __: dict[str, float]) -> None:
            tell(f"step {step}", frame)

        found = optimize_clip(
            np.stack(frames), [painting], loss, reference.options, clip, on_step=on_step
        )
        return [(255 * each).round().astype(np.uint8) for each in found], {}

    settings = {**reference.settings(), "clip": vars(clip), "painting": digest(painting)}
    return Way(f"reference {reference.options.steps}, {size} pixels", settings, paint, size)


def compare_clips(folder: Path, clips: dict[str, Footage], ways: list[Way], tell: Tell) -> Path:
    """Make the missing cells, then write the report.

    Args:
        folder: gets `report.md`, `numbers.csv`, a strip and the painted clips of each clip.
        clips: by name.
        ways: how they are painted, in the order of the rows.
        tell: called with what is made, and the number of frames done, of all that each way paints.

    Returns:
        The path of `report.md`.

    Raises:
        ValueError: a clip cannot be painted or written.
    """
    table: dict[str, dict[str, Cell]] = {}
    parts, done = [_heading(ways)], 0
    for name, footage in clips.items():
        here = _Here(folder, name, footage)
        tell(f"{name}: the motion", done)
        made = {"the clip": here.itself(footage)}
        for way in ways:
            made[way.name] = here.painted(way, tell, done)
            done += len(footage.frames)
        table[name] = made
        parts += [f"## {name}\n", *_part(folder, name, footage, ways, made)]
    if len(clips) > 1:
        parts[1:1] = ["## All clips\n", _table(list(table.values()), ways)]
    write_text(folder / "numbers.csv", _csv(table, ways), overwrite=True)
    path = folder / "report.md"
    write_text(path, "\n".join(parts), overwrite=True)
    return path


def outputs(folder: Path, names: Iterable[str], ways: Sequence[Way]) -> list[Path]:
    """Return the files that `compare_clips` writes into a folder for clips of these names."""
    files = [f"{name}.png" for name in names]
    files += [_file_of(name, way) for name in names for way in ways]
    return [folder / file for file in ("report.md", "numbers.csv", *files)]


@dataclass(frozen=True)
class _Here:
    """Makes the cells of one clip."""

    folder: Path
    name: str
    footage: Footage

    def itself(self, footage: Footage) -> Cell:
        """Return the cell of the clip before it is painted, at the size of `footage`."""
        return self._cell(
            f"clip_{footage.size}",
            footage.settings(),
            lambda: self._judged(footage, footage.frames),
        )

    def painted(self, way: Way, tell: Tell, done: int) -> Cell:
        """Return the cell of a way; its numbers have `input`, e of the clip itself, besides."""
        footage = self.footage if way.size is None else self.footage.resized(way.size)
        file = self.folder / _file_of(self.name, way)

        def told(said: str, number: int) -> None:
            tell(f"{self.name}: {way.name} {said}".rstrip(), done + number)

        def make() -> Cell:
            paintings, took = way.paint(footage.frames, told)
            cell = self._judged(footage, paintings)
            itself = {"input": self.itself(footage).numbers.get("e", math.nan)}
            # Written first: where there is a cell, there is its clip, unless it was removed.
            _write_clip(file, footage, paintings)
            return Cell(cell.image, {**cell.numbers, **itself, **took})

        told("", 0)
        if not file.exists():
            (self.folder / "cells" / self.name / f"{file.stem}.json").unlink(missing_ok=True)
        return self._cell(file.stem, {**footage.settings(), **way.settings}, make)

    def _cell(self, name: str, settings: dict[str, Any], make: Callable[[], Cell]) -> Cell:
        return Cells(self.folder / "cells").get(f"{self.name}/{name}", settings, make)

    def _judged(self, footage: Footage, paintings: Paintings) -> Cell:
        strip = _strip(paintings, self.footage.place)
        return Cell(strip, steadiness(footage.in_order(paintings), footage.motions))


def _part(
    folder: Path, name: str, footage: Footage, ways: list[Way], made: dict[str, Cell]
) -> list[str]:
    """Write the strip of a clip; return its part of the report."""
    first, last = _shown(len(footage.frames))
    rows = [list(cell.image.split(ENLARGED * PART, dim=-1)) for cell in made.values()]
    labels = [f"frame {number + 1}" for number in range(first, last)]
    sheet = contact_sheet(rows, list(made), labels, cell=ENLARGED * PART)
    with new_file(folder / f"{name}.png", overwrite=True) as file:
        sheet.save(file, "PNG")
    height, width = footage.frames[0].shape[:2]
    kind = "true flow" if footage.flow_files else "measured flow"
    look = ", ".join(f"[{way.name}]({_file_of(name, way)})" for way in ways)
    return [
        f"{len(footage.frames)} frames of {width}×{height} pixels, {kind}. To look at: {look}.\n",
        _table([made], ways),
        f"![{name}]({name}.png)\n",
    ]


def _numbers(made: dict[str, Cell], way: Way) -> dict[str, float]:
    """Return the numbers of a way, its contrast relative to that of frames painted alone."""
    numbers = dict(made[way.name].numbers)
    contrast = numbers.pop("contrast")
    alone = made[way.alone].numbers["contrast"] if way.alone else 0
    return numbers | ({"contrast": contrast / alone} if alone else {})


def _table(clips: list[dict[str, Cell]], ways: list[Way]) -> str:
    """Return a Markdown table: the mean of each number over the clips that have it."""
    titles = " | ".join(title for title, _ in COLUMNS.values())
    lines = [f"| painted by | {titles} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for way in ways:
        found = [_numbers(made, way) for made in clips]
        cells = []
        for key, (_, form) in COLUMNS.items():
            values = [numbers[key] for numbers in found if key in numbers]
            cells.append(format(statistics.fmean(values), form) if values else "–")
        lines.append(f"| {way.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _csv(table: dict[str, dict[str, Cell]], ways: list[Way]) -> str:
    """Return all numbers as a table, a row for each clip and way."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["clip", "way", *COLUMNS])
    writer.writeheader()
    for name, made in table.items():
        writer.writerows({"clip": name, "way": way.name, **_numbers(made, way)} for way in ways)
    return text.getvalue()


def _heading(ways: list[Way]) -> str:
    device = next((way.settings["device"] for way in ways if "device" in way.settings), "cpu")
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


def _file_of(clip: str, way: Way) -> str:
    """Return the name of a painted clip to look at."""
    said = re.sub(r"[^\w.+-]+", "_", way.name)
    return f"{clip}_{said}.mp4"


def _write_clip(file: Path, footage: Footage, paintings: Paintings) -> None:
    """Write paintings as a clip with the times of the frames, without sound."""
    size = (paintings[0].shape[1], paintings[0].shape[0])
    # No other run's identity: what an interrupted one left is removed.
    writer = ClipWriter(
        file, footage.clip, size, identity=uuid4().hex, crf=_CRF, audio="none", overwrite=True
    )
    for painting, (pts, duration) in zip(paintings, footage.times, strict=True):
        writer.write(Frame(painting, pts, duration))
    writer.finish()


def _strip(paintings: Paintings, place: tuple[float, float, float]) -> Tensor:
    """Return a part of frames in the middle of the clip, enlarged, side by side, 1×3×H×W.

    Args:
        paintings: of all frames.
        place: top, left and side of the part, as shares of height, width and width.
    """
    first, last = _shown(len(paintings))
    height, width = paintings[0].shape[:2]
    top, left, side = (
        round(share * length) for share, length in zip(place, (height, width, width), strict=True)
    )
    shown = (ENLARGED * PART,) * 2
    parts = [
        Image.fromarray(each[top : top + side, left : left + side]).resize(shown, _NEAREST)
        for each in paintings[first:last]
    ]
    return torch.cat([from_pil(part).pixels for part in parts], dim=-1)


def _shown(count: int) -> tuple[int, int]:
    """Return the first frame of the strip, and the one after its last."""
    first = max(0, (count - SHOWN) // 2)
    return first, min(count, first + SHOWN)


def _scaled_down(pixels: UInt8[ndarray, "h w 3"], size: int) -> UInt8[ndarray, "_ _ 3"]:
    if max(pixels.shape[:2]) <= size:
        return np.ascontiguousarray(pixels)
    picture = from_pil(Image.fromarray(np.ascontiguousarray(pixels))).resized(size)
    return to_levels(picture.pixels)[0].permute(1, 2, 0).contiguous().numpy()


def _values(painting: UInt8[ndarray, "h w 3"]) -> Float32[ndarray, "h w 3"]:
    return painting.astype(np.float32) / 255


def _flow_files(folder: Path, frames: int) -> list[Path]:
    """Return the files of the flow from each frame to the next, in the natural order of names.

    Raises:
        ValueError: the folder is missing, or their number is not that of the pairs.
    """
    if not folder.is_dir():
        raise ValueError(not_there(folder, "folder"))
    files = sorted(
        (file for file in folder.iterdir() if file.suffix in (".flo", ".npz")), key=natural
    )
    if len(files) < frames - 1:
        raise ValueError(
            f"{folder}: {len(files)} files of flow (.flo, .npz) for {frames} frames: "
            f"needs {frames - 1}, each from a frame to the next"
        )
    return files[: frames - 1]


def _true_motion(file: Path, after: ndarray, before: ndarray) -> Motion:
    """Return the true motion from a frame to the next one, at the size of the frames.

    Args:
        file: its flow. A picture of the same name with the suffix .png is white where the next
            frame does not show what this one does; without it, that is measured.
        after: the next frame.
        before: the frame where the flow begins.
    """
    flow = torch.from_numpy(read_flow(file)).permute(2, 0, 1)[None]
    height, width = before.shape[:2]
    known = flow.abs().amax(1, keepdim=True) < 1e9  # Middlebury's mark of unknown flow
    ratio = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]]).view(1, 2, 1, 1)
    scaled = F.interpolate(flow * known, (height, width), mode="area") * ratio
    found = scaled[0].permute(1, 2, 0).contiguous().numpy()
    trusted = F.interpolate(known.float(), (height, width), mode="area")[0, 0].numpy() == 1
    mask = file.with_suffix(_MASK)
    if mask.exists():
        occluded = read_image(mask).pixels.mean(1, keepdim=True)
        trusted &= F.interpolate(occluded, (height, width), mode="area")[0, 0].numpy() < 0.01
    else:
        trusted &= motion.estimate(after, before, fine=True).trusted
    return Motion(found, trusted & motion.is_inside(found))


def read_flow(file: Path) -> Float32[ndarray, "h w 2"]:
    """Return a flow H×W×2 (x, y) in pixels, from .flo (Middlebury) or .npz (its array `flow`).

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        if file.suffix == ".npz":
            with np.load(file) as arrays:
                flow = arrays["flow"].astype(np.float32)
        else:
            data = file.read_bytes()
            width, height = np.frombuffer(data[4:12], "<i4")
            flow = np.frombuffer(data[12:], "<f4").reshape(height, width, 2).astype(np.float32)
            if data[:4] != b"PIEH":
                raise ValueError("not a flow")
        if flow.ndim != 3 or flow.shape[-1] != 2:
            raise ValueError("not a flow")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise ValueError(
            one_line(file, "no flow can be read: needs .flo, or .npz with an array `flow` H×W×2")
        ) from error
    return flow
