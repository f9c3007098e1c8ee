"""Which photos a command is to stylize, where the results go, and what is never written over."""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from impasto.choices import IMAGE_SUFFIXES, WRITABLE
from impasto.spelling import not_there
from impasto.writing import check_folder

PIPE = Path("-")  # standard input as a photo, standard output as a result


@dataclass(frozen=True)
class Job:
    """A photo, and where the result goes."""

    photo: Path
    output: Path


def find(photos: list[str], output: Path) -> list[tuple[Path, Path]]:
    """Every photo once, with the sub-folder its result belongs in; what names nothing is refused."""
    if not photos:
        raise ValueError(
            "no photos given: name files, folders or a pattern such as 'trip/**/*.jpg'"
        )
    found: dict[Path, tuple[Path, Path]] = {}
    for text in photos:
        path = Path(text).expanduser()
        if text == str(PIPE):
            found[PIPE] = (PIPE, Path())
            continue
        for photo in _expand(path, output):
            below = photo.parent.relative_to(path) if path.is_dir() else Path()
            found.setdefault(photo.resolve(), (photo, below))
    return list(found.values())


def _expand(path: Path, output: Path) -> list[Path]:
    # A photo may be called trip[1].jpg: what exists is no pattern.
    pattern = not path.exists() and glob.has_magic(str(path))
    if not path.exists() and not pattern:
        style = (
            ""
            if path.suffix or path.name != str(path)
            else f"; a style is named with --style {path}"
        )
        raise ValueError(f"{not_there(path, 'file or folder')}{style}")
    searched = _search_folder(path, output) if path.is_dir() else _search_pattern(path, output)
    photos = list(searched) if pattern or path.is_dir() else [path]
    if not photos:
        raise ValueError(f"{path}: no images found; they end in {', '.join(IMAGE_SUFFIXES)}")
    return photos


def _search_folder(folder: Path, output: Path) -> Iterator[Path]:
    """Images in a folder and below, without earlier results, unless the folder itself lies among them."""
    from impasto.images import (
        named_images,
    )  # and torch, which a command line without folders need not wait for
    from impasto.images.folders import walk

    results = output.resolve()
    asked = folder.resolve().is_relative_to(results)
    return named_images(
        walk(folder, lambda sub: asked or not sub.resolve().is_relative_to(results))
    )


def _search_pattern(pattern: Path, output: Path) -> Iterator[Path]:
    """Images that match, sorted, without earlier results, unless the pattern itself starts among them."""
    from impasto.images import named_images
    from impasto.images.folders import search

    start = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    asked = start.resolve().is_relative_to(output.resolve())
    for path in named_images(path for path in search(pattern) if path.is_file()):
        if asked or output.resolve() not in path.resolve().parents:
            yield path


def plan(found: list[tuple[Path, Path]], output: Path, label: str) -> list[Job]:
    """Where each result goes; where two would get one name, the later is numbered."""
    if (
        re.fullmatch(r"\.[a-z]{2,5}", output.suffix.lower()) and not output.is_dir()
    ):  # the name of a file
        if output.suffix.lower() not in WRITABLE:
            names = ", ".join(WRITABLE)
            raise ValueError(
                f"--output {output}: cannot be written; name it {names}, or a folder without a suffix"
            )
        if len(found) > 1:
            raise ValueError(
                f"--output {output}: names one image, and there are {len(found)} photos; name a folder"
            )
        return [Job(found[0][0], output)]
    jobs: list[Job] = []
    taken: set[str] = set()
    for photo, below in found:
        suffix = photo.suffix if photo.suffix.lower() in WRITABLE else ".png"
        stem = "stdin" if photo == PIPE else photo.stem
        result, number = output / below / f"{stem}_{label}{suffix}", 1
        while str(result).lower() in taken:  # on some file systems A.jpg and a.jpg are one file
            number += 1
            result = result.with_name(f"{stem}_{label}-{number}{suffix}")
        taken.add(str(result).lower())
        jobs.append(Job(photo, result))
    return jobs


def check_outputs(jobs: list[Job], overwrite: bool) -> None:
    """Refuses to write over a photo, over an earlier result of a single photo, and where nothing can be."""
    spare_inputs([job.output for job in jobs], [job.photo for job in jobs])
    if len(jobs) == 1:
        check_new(jobs[0], overwrite)
    for folder in dict.fromkeys(job.output.parent for job in jobs):
        check_output_folder(folder)


def spare_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """`ValueError` where an output would be written over a picture given: by inode, so that neither links nor the case
    of letters hide one."""
    given = {_inode(path) for path in inputs if path != PIPE and path.exists()}
    for output in outputs:
        if output.exists() and _inode(output) in given:
            raise ValueError(
                f"{output}: is a picture given, never written over; choose another --output"
            )


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def check_new(job: Job, overwrite: bool) -> None:
    if os.path.lexists(job.output) and not overwrite:
        instead = "--overwrite replaces it, --skip-existing leaves it"
        raise ValueError(f"{job.photo}: {job.output} exists already; {instead}")


def check_output_folder(folder: Path) -> None:
    """`ValueError` where nothing can be written in the folder of --output; it is made with the first file."""
    try:
        check_folder(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"--output: {folder} cannot be written ({reason}); choose another folder"
        ) from error
