"""What a clip is made of, and which files can hold one. PyAV is not needed here."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from impasto.writing import REASONS, check_folder, one_line

SEGMENT = 48  # frames between two places at which an interrupted run can go on

Kind = Literal["mp4", "mov", "matroska", "gif", "webp", "folder"]
WRITABLE_CLIPS: dict[str, Kind] = {
    ".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".gif": "gif", ".webp": "webp",
}  # fmt: skip
FRAME_NAME = "{:06d}.png"  # the frames of a folder, counted from 1


@dataclass(frozen=True)
class Frame:
    """A picture of a clip.

    Attributes:
        pixels: levels of sRGB, upright; with alpha as fourth channel if the clip is transparent.
        pts: time at which it is shown, in units of the clip's `time_base`.
        duration: how long it is shown, in the same unit; 0: unknown.
    """

    pixels: UInt8[np.ndarray, "h w channels"]
    pts: int
    duration: int


def check_output(output: Path, source: Path, overwrite: bool = False) -> Kind:
    """Return the kind of clip that `output` names, after all checks that need no frames.

    Args:
        output: file or folder to write. A name without suffix is a folder of frames.
        source: the clip that is read, which is never written over.
        overwrite: accept an existing file, or a folder that holds nothing but earlier frames.

    Raises:
        ValueError: the suffix is unknown, `output` is `source`, exists (unless `overwrite`), or
            cannot be written there.
    """
    kind = WRITABLE_CLIPS.get(output.suffix.lower())
    if output.is_dir() or not output.suffix:
        kind = "folder"
    if kind is None:
        names = ", ".join(WRITABLE_CLIPS)
        raise _refusal(
            output,
            f"'{output.suffix}' cannot be written: name it {names}, or a folder without suffix",
        )
    if output.exists() and source.exists() and output.samefile(source):
        raise _refusal(output, "is the clip given, never written over; choose another --output")
    if kind == "folder" and output.is_dir():
        names_there = sorted(path.name for path in output.iterdir())
        others = [name for name in names_there if not re.fullmatch(r"\d{6}\.png", name)]
        if others:
            raise _refusal(output, f"the folder holds {others[0]}: choose a new or an empty one")
        if names_there and not overwrite:
            raise _refusal(output, "holds frames already; --overwrite replaces them")
    elif kind == "folder" and output.exists():
        raise _refusal(output, "is a file: give the name of a folder, or a suffix")
    elif os.path.lexists(output) and not overwrite:
        raise _refusal(output, "exists already; --overwrite replaces it")
    try:
        check_folder(output.absolute().parent)
    except OSError as error:
        reason = REASONS.get(error.errno or 0) or error.strerror or str(error)
        raise _refusal(output, f"cannot be written ({reason}): choose another folder") from error
    return kind


def _refusal(path: Path, reason: str) -> ValueError:
    return ValueError(one_line(path, reason))
