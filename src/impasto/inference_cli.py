"""The command `impasto infer`: photos, folders and patterns in, stylized photos out."""

import glob
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from impasto.arguments import parsed
from impasto.images import IMAGE_SUFFIXES, WRITABLE, read_image, write_image
from impasto.inference import Stylizer
from impasto.inference.backends import Backend, Painter, open_painter
from impasto.networks import find_network, published_networks

_ALLOWED = {"strength": "a number from 0 to 1", "size": "a whole number of pixels"}
_PHOTOS = "photo files, folders (searched with their sub-folders), or quoted patterns such as 'trip/**/*.jpg'"


@dataclass(frozen=True)
class Job:
    """A photo, and where the result goes."""

    photo: Path
    output: Path


def infer(arguments: list[str]) -> int:
    """Runs the command; 0: done, 1: some photos were skipped, 130: interrupted. Mistakes are ValueErrors."""
    description = "Stylize photos with a trained network."
    try:
        given = parsed("infer", description, stylize_photos, arguments, {"photos": _PHOTOS}, _ALLOWED, several=True)
        return stylize_photos(**given)
    except KeyboardInterrupt:
        print("interrupted before the first photo", file=sys.stderr)
        return 130


def stylize_photos(
    photos: list[str],
    network: str | None = None,
    style: str | None = None,
    strength: float = 1.0,
    keep_colors: bool = False,
    size: int | None = None,
    output: str = "stylized",
    device: str = "auto",
    backend: Backend = "auto",
    overwrite: bool = False,
    list_styles: bool = False,
) -> int:
    """Stylizes photos; every mistake that can be seen beforehand is refused before the first one.

    Args:
        photos: files, folders (searched with their sub-folders) or patterns.
        network: a published name or a file; starry_night, or the only one published, if not given
        style: a style of the network, or a mixture: starry_night=0.7,wave=0.3
        strength: from 0 (the photo) to 1 (fully stylized)
        keep_colors: keep the colours of the photo, paint its brightness only
        size: longer side of the result in pixels; the size of the photo if not given
        output: a folder, or for one photo a file
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps
        backend: torch, or onnx for exported files; auto: whichever the file is for
        overwrite: replace earlier results (never a photo)
        list_styles: print the styles of the network and stop
    """
    path = find_network(network or _default_network())
    if list_styles:
        print(_styles_table(open_painter(path, backend, device)))
        return 0
    found = _find(photos, Path(output).expanduser())
    stylizer = Stylizer(
        path, style, strength=strength, keep_colors=keep_colors, size=size, device=device, backend=backend
    )
    jobs = _plan(found, Path(output).expanduser(), _label(stylizer, style, path))
    _check_outputs(jobs, overwrite)
    return _run(stylizer, jobs, overwrite)


def _default_network() -> str:
    names = published_networks()
    if len(names) == 1 or "starry_night" in names:
        return names[0] if len(names) == 1 else "starry_night"
    known = ", ".join(names) or "none yet"
    raise ValueError(f"--network is missing: name a .safetensors file or a published network ({known})")


def _styles_table(painter: Painter) -> str:
    """A line for each style: name, title, painter, year."""
    known = {str(style["name"]): style for style in painter.metadata.get("styles", [])}
    keys = ("title", "artist", "year")
    rows = [[name, *(str(known.get(name, {}).get(key) or "") for key in keys)] for name in painter.styles]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _label(stylizer: Stylizer, style: str | None, network: Path) -> str:
    """What the name of a result says beside the photo's: style, mixture in percent, or network."""
    label = network.stem if style is None else next(iter(stylizer.mixture))
    if len(stylizer.mixture) > 1:
        label = "+".join(f"{name}-{100 * weight:.0f}" for name, weight in stylizer.mixture.items())
    return re.sub(r"[^\w.+-]+", "-", label)


def _find(photos: list[str], output: Path) -> list[tuple[Path, Path]]:
    """Every photo once, with the sub-folder its result belongs in; what names nothing is refused."""
    if not photos:
        raise ValueError("no photos given: name files, folders or a pattern such as 'trip/**/*.jpg'")
    found: dict[Path, tuple[Path, Path]] = {}
    for text in photos:
        path = Path(text).expanduser()
        for photo in _expand(path, output):
            below = photo.parent.relative_to(path) if path.is_dir() else Path()
            found.setdefault(photo.resolve(), (photo, below))
    return list(found.values())


def _expand(path: Path, output: Path) -> list[Path]:
    # A photo may be called trip[1].jpg: what exists is no pattern.
    pattern = not path.exists() and glob.has_magic(str(path))
    if not path.exists() and not pattern:
        raise ValueError(f"{path}: no such file or folder")
    searched = _search_folder(path, output) if path.is_dir() else _search_pattern(path, output)
    photos = list(searched) if pattern or path.is_dir() else [path]
    if not photos:
        raise ValueError(f"{path}: no images found; they end in {', '.join(IMAGE_SUFFIXES)}")
    return photos


def _search_folder(folder: Path, output: Path) -> Iterator[Path]:
    """Images in a folder and below, sorted, without hidden ones and without earlier results."""
    for place, folders, files in os.walk(folder):
        inside = (Path(place) / name for name in sorted(folders) if not name.startswith("."))
        folders[:] = [sub.name for sub in inside if sub.resolve() != output.resolve()]
        yield from (Path(place) / name for name in sorted(files) if _is_image(name))


def _search_pattern(pattern: Path, output: Path) -> Iterator[Path]:
    """Images that match, sorted, without earlier results, unless the pattern itself starts among them."""
    start = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    asked = start.resolve().is_relative_to(output.resolve())
    # Not Path.glob, which finds hidden files and takes no absolute pattern.
    for path in map(Path, sorted(glob.glob(str(pattern), recursive=True))):  # noqa: PTH207
        earlier = not asked and output.resolve() in path.resolve().parents
        if path.is_file() and _is_image(path.name) and not earlier:
            yield path


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def _plan(found: list[tuple[Path, Path]], output: Path, label: str) -> list[Job]:
    """Where each result goes; where two would get one name, the later is numbered."""
    if len(found) == 1 and output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir():
        if output.suffix.lower() not in WRITABLE:
            raise ValueError(f"--output {output}: cannot be written; name it {', '.join(WRITABLE)}")
        return [Job(found[0][0], output)]
    if output.suffix.lower() in IMAGE_SUFFIXES and not output.is_dir():
        raise ValueError(f"--output {output}: names one image, and there are {len(found)} photos; name a folder")
    jobs: list[Job] = []
    taken: set[str] = set()
    for photo, below in found:
        suffix = photo.suffix if photo.suffix.lower() in WRITABLE else ".png"
        result, number = output / below / f"{photo.stem}_{label}{suffix}", 1
        while str(result).lower() in taken:  # on some file systems A.jpg and a.jpg are one file
            number += 1
            result = result.with_name(f"{photo.stem}_{label}-{number}{suffix}")
        taken.add(str(result).lower())
        jobs.append(Job(photo, result))
    return jobs


def _check_outputs(jobs: list[Job], overwrite: bool) -> None:
    """Refuses to write over a photo, over an earlier result of a single photo, and where nothing can be."""
    spare_inputs([job.output for job in jobs], [job.photo for job in jobs])
    if len(jobs) == 1:
        _check_new(jobs[0], overwrite)
    for folder in dict.fromkeys(job.output.parent for job in jobs):
        make_folder(folder)


def spare_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """`ValueError` where an output would be written over a picture given: by inode, so that neither links nor the case
    of letters hide one."""
    given = {_inode(path) for path in inputs if path.exists()}
    for output in outputs:
        if output.exists() and _inode(output) in given:
            raise ValueError(f"{output}: is a picture given, never written over; choose another --output")


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _check_new(job: Job, overwrite: bool) -> None:
    if os.path.lexists(job.output) and not overwrite:
        raise ValueError(f"{job.photo}: {job.output} exists already; --overwrite replaces it")


def make_folder(folder: Path) -> None:
    """Makes the folder of --output; `ValueError` where nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ValueError(f"--output: {folder} cannot be written ({reason}); choose another folder")


def _run(stylizer: Stylizer, jobs: list[Job], overwrite: bool) -> int:
    """Stylizes one after another; of several, those that cannot be are skipped with a line each."""
    done, single = 0, len(jobs) == 1
    columns = (TextColumn("stylizing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    try:
        with Progress(*columns, console=console, disable=single or not console.is_terminal) as progress:
            for job in progress.track(jobs):
                try:
                    line = _stylize(stylizer, job, overwrite)
                    done += 1
                except (ValueError, OSError) as error:
                    if single:
                        raise
                    print(f"skipped {_explain(job, error)}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"interrupted: {done} of {len(jobs)} stylized", file=sys.stderr)
        return 130
    print(line if single else f"{done} stylized, {len(jobs) - done} skipped")
    return 0 if done == len(jobs) else 1


def _stylize(stylizer: Stylizer, job: Job, overwrite: bool) -> str:
    """Reads, stylizes and writes one photo; returns the line that tells of it."""
    started = time.perf_counter()
    _check_new(job, overwrite)
    picture = read_image(job.photo)
    if picture.note:
        print(f"{job.photo}: {picture.note}", file=sys.stderr)
    stylized = stylizer.stylize(picture)
    write_image(job.output, stylized, overwrite=overwrite)
    height, width = stylized.pixels.shape[-2:]
    return f"{job.output}  {width}×{height}, {time.perf_counter() - started:.1f} s"


def _explain(job: Job, error: Exception) -> str:
    """One line that starts with the photo, whoever raised it."""
    message = " ".join(str(error).split())
    return message if message.startswith(str(job.photo)) else f"{job.photo}: {message}"
