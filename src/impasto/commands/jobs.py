"""Finds the photos to stylize, plans the files of the results, and protects existing files."""

import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from impasto.choices import IMAGE_SUFFIXES, WRITABLE
from impasto.data.folders import named_images, search, walk
from impasto.spelling import not_there
from impasto.writing import check_folder

PIPE = Path("-")  # standard input as a photo, standard output as a result


@dataclass(frozen=True)
class Job:
    """A photo, and the file of its result."""

    photo: Path
    output: Path


class Found(NamedTuple):
    """A photo that was found.

    Attributes:
        photo: its file.
        below: sub-folder for its result.
        searched: the folder or pattern that gave it; None: it was named itself.
    """

    photo: Path
    below: Path
    searched: str | None


def find(photos: list[str], output: Path) -> list[Found]:
    """Return every photo once; one that is also named itself counts as named.

    Args:
        photos: files, folders, patterns, or - for standard input.
        output: folder of the results; earlier results in it are no photos.

    Raises:
        ValueError: nothing was given, or a name or pattern finds no photo.
    """
    if not photos:
        raise ValueError(
            "no photos given: name files, folders or a pattern such as 'trip/**/*.jpg'"
        )
    found: dict[Path, Found] = {}
    for text in photos:
        path = Path(text).expanduser()
        if text == str(PIPE):
            found[PIPE] = Found(PIPE, Path(), None)
            continue
        for photo in _expand(path, output):
            below = photo.parent.relative_to(path) if path.is_dir() else Path()
            named = photo == path
            first = found.setdefault(photo.resolve(), Found(photo, below, None if named else text))
            if named:
                found[photo.resolve()] = first._replace(searched=None)
    return list(found.values())


def _expand(path: Path, output: Path) -> list[Path]:
    """Return the photos of a file name, a folder or a pattern."""
    # A photo may be called trip[1].jpg. So an existing path is no pattern.
    pattern = not path.exists() and glob.has_magic(str(path))
    if not path.exists() and not pattern:
        style = (
            ""
            if path.suffix or path.name != str(path)
            else f"; a style is named with --style {path}"
        )
        if re.fullmatch(r"[\w.-]+=[\d.]+,?", str(path)):
            style = "; a mixture is one word: --style udnie=0.5,great_wave=0.5"
        raise ValueError(f"{not_there(path, 'file or folder')}{style}")
    searched = _search_folder(path, output) if path.is_dir() else _search_pattern(path, output)
    photos = list(searched) if pattern or path.is_dir() else [path]
    if not photos:
        raise ValueError(f"{path}: no images found; they end in {', '.join(IMAGE_SUFFIXES)}")
    return photos


def _search_folder(folder: Path, output: Path) -> Iterator[Path]:
    """Yield the images below a folder, leaving out earlier results in `output`.

    Results are not left out if the folder itself lies in `output`.
    """
    results = output.resolve()
    asked = folder.resolve().is_relative_to(results)
    return named_images(
        walk(folder, lambda sub: asked or not sub.resolve().is_relative_to(results))
    )


def _search_pattern(pattern: Path, output: Path) -> Iterator[Path]:
    """Yield the images that match a pattern, sorted, leaving out earlier results in `output`.

    Results are not left out if the pattern itself starts in `output`.
    """
    start = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    asked = start.resolve().is_relative_to(output.resolve())
    for path in named_images(path for path in search(pattern) if path.is_file()):
        if asked or output.resolve() not in path.resolve().parents:
            yield path


def without_paintings(found: list[Found], made_here: Callable[[Path], bool]) -> list[Found]:
    """Leave out what impasto painted, and say how many pictures that are.

    Results of earlier runs lie where photos are searched. A picture that is named is kept, and so
    are those of a folder or pattern that gives nothing else.

    Args:
        found: from `find`.
        made_here: whether impasto wrote a file.
    """
    painted = {one.photo for one in found if one.searched is not None and made_here(one.photo)}
    of_photos = {one.searched for one in found if one.photo not in painted}
    kept = [one for one in found if one.photo not in painted or one.searched not in of_photos]
    if left := len(found) - len(kept):
        what = "1 picture" if left == 1 else f"{left} pictures"
        print(f"{what} painted by impasto skipped; name them to paint them", file=sys.stderr)
    return kept


def plan(found: list[Found], output: Path, label: str) -> list[Job]:
    """Return a job for each photo.

    Args:
        found: photos, from `find`.
        output: a folder; or, for one photo, a file.
        label: added to the names of results. If two would be the same, the later is numbered.

    Raises:
        ValueError: `output` is one file for several photos, or a format that cannot be written.
    """
    # A suffix of letters marks a file.
    if re.fullmatch(r"\.[a-z]{2,5}", output.suffix.lower()) and not output.is_dir():
        if output.suffix.lower() not in WRITABLE:
            names = ", ".join(WRITABLE)
            raise ValueError(
                f"--output {output}: cannot be written; name it {names}, or a folder without "
                "a suffix"
            )
        if len(found) > 1:
            raise ValueError(
                f"--output {output}: names one image, and there are {len(found)} photos; "
                "name a folder"
            )
        return [Job(found[0].photo, output)]
    jobs: list[Job] = []
    taken: set[str] = set()
    for photo, below, _ in found:
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
    """Check the files of all results before the first photo is stylized.

    Raises:
        ValueError: a result would overwrite a photo, a folder cannot be written, or the result of
            a single photo exists and `overwrite` is false.
    """
    spare_inputs([job.output for job in jobs], [job.photo for job in jobs])
    if len(jobs) == 1:
        check_new(jobs[0], overwrite)
    for folder in dict.fromkeys(job.output.parent for job in jobs):
        check_output_folder(folder)


def spare_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Raise ValueError if an output would overwrite an input picture.

    Files are compared by inode, so that links or the case of letters do not hide an input.
    """
    given = {_inode(path) for path in inputs if path != PIPE and path.exists()}
    for output in outputs:
        if output.exists() and _inode(output) in given:
            raise ValueError(
                f"{output}: is a picture given, never written over; choose another --output"
            )


def refuse_same_names(what: str, files: list[str]) -> None:
    """Raise ValueError if two files have the same name without suffix, as a report uses it."""
    names = [Path(file).stem for file in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"{what}: two are named {twice[0]}, as which they appear in the report; rename one"
        )


def _inode(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def check_new(job: Job, overwrite: bool) -> None:
    """Raise ValueError if a result exists already and must not be overwritten."""
    if os.path.lexists(job.output) and not overwrite:
        instead = "--overwrite replaces it, --skip-existing leaves it"
        raise ValueError(f"{job.photo}: {job.output} exists already; {instead}")


def check_output_folder(folder: Path) -> None:
    """Raise ValueError if the folder of --output cannot be written.

    The folder is not made here, but with its first file.
    """
    try:
        check_folder(folder)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"--output: {folder} cannot be written ({reason}); choose another folder"
        ) from error
