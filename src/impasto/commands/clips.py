"""What `impasto video` does after its command line is checked: it paints and writes the frames."""

import hashlib
import json
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import impasto
from impasto.choices import Audio
from impasto.commands.painting import label
from impasto.commands.progress import bar
from impasto.images import Picture, from_pil, scaled, write_image
from impasto.images.sheets import contact_sheet
from impasto.inference.steady import SteadyPainter
from impasto.networks.styles import style_parts
from impasto.spelling import printable
from impasto.video.clips import SEGMENT, WRITABLE_CLIPS, Frame
from impasto.video.reading import Clip
from impasto.video.writing import ClipWriter

_TIME = r"\d+(?:\.\d+)?"
Times = list[tuple[float, str | None]]


def style_times(style: str | None) -> Times:
    """Return the styles of a clip, each with the second at which it is reached, in order.

    Args:
        style: one style, or several as "0:starry_night, 5:great_wave=0.5,udnie=0.5".

    Raises:
        ValueError: the times do not begin at 0, or do not grow.
    """
    if style is None or not re.match(rf"\s*{_TIME}\s*:", style):
        return [(0.0, style)]
    parts = re.split(rf",\s*(?={_TIME}\s*:)", style)
    times: Times = []
    for part in parts:
        second, _, name = part.partition(":")
        times.append((float(second), name.strip()))
    seconds = [second for second, _ in times]
    if seconds[0] != 0 or any(b <= a for a, b in pairwise(seconds)):
        raise ValueError(
            f'style {style!r}: times must begin at 0 and grow, as in "0:starry_night, 5:great_wave"'
        )
    return times


def all_styles(times: Times) -> str | None:
    """Return a mixture of all styles of a clip, by which a network that knows them is found."""
    if len(times) == 1:
        return times[0][1]
    return ",".join(dict.fromkeys(name for _, style in times for name in style_parts(style or "")))


@dataclass
class Painted:
    """A clip with all that decides its paintings.

    Args:
        clip: the clip.
        painter: paints its frames.
        times: its styles, from `style_times`.
        network: file of the network.

    Attributes:
        codes: the code of each style.
        label: what the name of the result adds to that of the clip.
    """

    clip: Clip
    painter: SteadyPainter
    times: Times
    network: Path
    codes: list[Tensor] = field(init=False)
    label: str = field(init=False)

    def __post_init__(self) -> None:
        clip, stylizer = self.clip, self.painter.stylizer
        bound = [stylizer.bound(style) for _, style in self.times]
        self.codes = [each.code for each in bound]
        parts = [
            (True, label(bound[0], self.network, *bound[1:])),
            (self.painter.steady != 0.5, f"steady-{self.painter.steady:g}"),
            (clip.start > 0, f"from-{float(clip.start):g}s"),
            (clip.duration is not None, f"for-{float(clip.duration or 0):g}s"),
            (clip.fps is not None, f"{float(clip.fps or 0):g}fps"),
        ]
        self.label = "_".join(part for differs, part in parts if differs)

    def code(self, second: float) -> Tensor:
        """Return the style at a time of the result: between two styles, their mixture."""
        after = bisect_right([time for time, _ in self.times], second)
        if after == len(self.times):
            return self.codes[-1]
        (begin, _), (end, _) = self.times[after - 1 : after + 1]
        before, then = self.codes[after - 1 : after + 1]
        return torch.lerp(before, then, (second - begin) / (end - begin))

    def file(self, output: Path) -> Path:
        """Return the file of the result. `output` is it, by its suffix, or the folder for it."""
        if output.suffix.lower() in WRITABLE_CLIPS or re.fullmatch(r"\.\w{2,5}", output.suffix):
            return output
        path = self.clip.path
        suffix = path.suffix.lower() if path.suffix.lower() in WRITABLE_CLIPS else ".mp4"
        return output / f"{path.stem}_{self.label}{'' if path.is_dir() else suffix}"

    def identity(self) -> str:
        """Return all that decides the paintings, as JSON."""
        stylizer, status = self.painter.stylizer, self.clip.path.stat()
        options = ("strength", "keep_colors", "size", "stroke", "tile")
        return json.dumps({
            "impasto": impasto.__version__,
            "clip": [str(self.clip.path.resolve()), status.st_size, status.st_mtime_ns],
            "network": hashlib.sha256(self.network.read_bytes()).hexdigest(),
            "painter": type(stylizer.painter).__name__,
            "styles": [
                [time, code.flatten().tolist()]
                for (time, _), code in zip(self.times, self.codes, strict=True)
            ],
            "steady": self.painter.steady,
            **{name: getattr(stylizer, name) for name in options},
        })  # fmt: skip

    def frames(self, writer: ClipWriter) -> Iterator[Frame]:
        """Yield the painted frames that are not written yet."""
        began: float | None = None
        if writer.state:
            began = float(writer.state.pop("began"))
            self.painter.restore(writer.state)
        for number, frame in enumerate(self.clip.frames(writer.done), writer.done + 1):
            time = float(frame.pts * self.clip.time_base)
            began = time if began is None else began
            painting = self.painter(frame.pixels, self.code(time - began))
            yield Frame(painting, frame.pts, frame.duration)
            if number % SEGMENT == 0:
                writer.end_segment(self.painter.state | {"began": np.array(began)})


def stylize(job: Painted, output: Path, crf: int, audio: Audio, overwrite: bool) -> int:
    """Paint a clip into its file; return the exit status.

    Returns:
        0: done; 1: the clip is damaged, and what there is of it was painted; 130: interrupted.

    Raises:
        ValueError: the result cannot be written there, or a frame does not fit in memory.
    """
    file, clip = job.file(output), job.clip
    size = job.painter.stylizer.size
    width, height = clip.size if size is None else scaled(clip.size, size)
    writer = ClipWriter(
        file, clip, (width, height), identity=job.identity(), crf=crf, audio=audio,
        overwrite=overwrite,
    )  # fmt: skip
    total = clip.count
    if writer.done:
        print(f"continuing after {writer.done} frames, painted earlier", file=sys.stderr)
    for note in job.painter.notes:
        print(printable(note), file=sys.stderr)
    done, progress = writer.done, bar()
    task = progress.add_task("painting", total=total, completed=done)
    try:
        with progress:
            for frame in job.frames(writer):
                writer.write(frame)
                done += 1
                speed = progress.tasks[task].speed
                rate = f"{speed:.2g} frames/s" if speed else ""
                progress.update(task, completed=done, description=f"painting {rate}")
            notes = writer.finish()
    except KeyboardInterrupt:
        kept = done // SEGMENT * SEGMENT
        of = f" of {total}" if total else ""
        again = f"continues after frame {kept}" if kept else "begins anew"
        print(f"interrupted: {done}{of} frames painted; the same command {again}", file=sys.stderr)
        return 130
    for note in dict.fromkeys([*clip.notes, *notes]):
        print(printable(f"{clip.path}: {note}"), file=sys.stderr)
    print(printable(f"{file}  {width}×{height}, {done} frames"))
    return 1 if clip.damaged else 0


def preview(job: Painted, output: Path, number: int, overwrite: bool) -> int:
    """Paint a few frames, spread over the clip, each by itself, into one picture; return 0.

    Raises:
        ValueError: the number is below 1, or the picture exists.
    """
    if number < 1:
        raise ValueError(f"--preview {number}: must be 1 frame or more")
    clip, stylizer = job.clip, job.painter.stylizer
    file = job.file(output)
    file = file.with_name(f"{file.stem if file.suffix else file.name}_preview.png")
    total = clip.count or number
    wanted = {(2 * index + 1) * total // (2 * number) for index in range(number)}
    pictures, began = [], None
    for index, frame in enumerate(clip.frames()):
        time = float(frame.pts * clip.time_base)
        began = time if began is None else began
        if index in wanted:
            painter = SteadyPainter(stylizer, 0)
            pictures.append(painter.pictured(frame.pixels, job.code(time - began)).pixels)
        if index >= max(wanted):
            break
    if not pictures:
        raise ValueError(f"{clip.path}: no frame can be read")
    if len(pictures) == 1:
        sheet = Picture(pictures[0])
    else:
        sheet = from_pil(contact_sheet([pictures], cell=max(pictures[0].shape[-2:])))
    write_image(file, sheet, overwrite=overwrite)
    print(printable(f"{file}  {len(pictures)} of {clip.count or '?'} frames"))
    return 0
