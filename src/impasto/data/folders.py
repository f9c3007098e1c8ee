"""Find files below folders, at any depth and behind links, without hidden ones; and images."""

import fnmatch
import glob
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from impasto.choices import IMAGE_SUFFIXES

# Kinds of pictures that cannot be read. `named_images` leaves them out, and a warning counts them.
_OTHER_SUFFIXES = (
    ".jxl", ".jp2", ".psd", ".svg", ".tga", ".exr", ".hdr",
    ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef",
)  # fmt: skip
_LOG = logging.getLogger("impasto")


def walk(folder: str | Path, enter: Callable[[Path], bool] = lambda sub: True) -> Iterator[Path]:
    """Yield the files of a folder and its sub-folders, each folder's in sorted order.

    Links to folders are followed last, and each folder is visited once. So a file that lies below
    `folder` gets its own path, not that of a link, and circular links end.

    Args:
        folder: where to begin.
        enter: whether to enter a sub-folder.
    """
    pending, seen = deque([Path(folder)]), set()
    while pending:
        for place, names, files in os.walk(pending.popleft()):
            status = Path(place).stat()
            here = (status.st_dev, status.st_ino)
            inside = [
                Path(place, name)
                for name in sorted(names)
                if here not in seen and not name.startswith(".")
            ]
            inside = [sub for sub in inside if enter(sub)]
            names[:] = [sub.name for sub in inside if not sub.is_symlink()]
            pending += [sub for sub in inside if sub.is_symlink()]
            if here not in seen:
                yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))
            seen.add(here)


def search(pattern: Path) -> list[Path]:
    """Return the paths that match a pattern, sorted. `**` matches folders at any depth."""
    parts = pattern.parts
    if "**" not in parts:
        # Path.glob would find hidden files.
        found: Iterable[Path] = map(Path, glob.glob(str(pattern)))  # noqa: PTH207
    else:
        # For `**`, use `walk`. glob would follow circular links again and again.
        start = parts.index("**")
        places = glob.glob(str(Path(*parts[:start])))  # noqa: PTH207
        below = ((Path(place), file) for place in places for file in walk(place))
        found = (
            file for place, file in below if _matches(file.relative_to(place).parts, parts[start:])
        )
    return sorted(found, key=str)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match the parts of a pattern."""
    if not pattern or not parts:
        return not parts and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatch.fnmatch(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def named_images(files: Iterable[Path]) -> Iterator[Path]:
    """Yield the files with the suffix of an image; a warning counts pictures of other kinds."""
    left: Counter[str] = Counter()
    for file in files:
        suffix = file.suffix.lower()
        if suffix in IMAGE_SUFFIXES:
            yield file
        elif suffix in _OTHER_SUFFIXES:
            left[suffix] += 1
    if left:
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in sorted(left.items()))
        _LOG.warning(
            "left out, as files of these kinds cannot be read: %s; "
            "convert them to JPEG, PNG or TIFF",
            kinds,
        )
