"""Metrics of a painted clip: how steady it is, and how much of its contrast is left."""

import math
import statistics
from collections.abc import Sequence
from functools import reduce

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray

from impasto.perceptual.temporal import LUMINANCE
from impasto.video import motion
from impasto.video.motion import Flicker, Motion

GAP = 10  # frames between the two that show what a clip loses over a longer time
WINDOW = 16  # side of the windows in which contrast is measured, in pixels


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
    numbers = {
        "e": measured.error,
        "flicker": measured.flicker,
        "contrast": statistics.fmean(map(local_contrast, paintings)),
        "gap": _error_over(gap, paintings, motions),
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


def _error_over(gap: int, paintings: Sequence[ndarray], motions: Sequence[Motion | None]) -> float:
    """Return e of frames that lie `gap` apart in one scene; nan where there are none."""
    errors = []
    for at in range(len(paintings) - gap):
        between = [moved for moved in motions[at : at + gap] if moved is not None]
        if len(between) == gap:  # no cut
            pair = _values(paintings[at]), _values(paintings[at + gap])
            errors.append(motion.temporal_error(*pair, reduce(motion.chained, between)))
    errors = [error for error in errors if not math.isnan(error)]
    return math.sqrt(statistics.fmean(errors)) if errors else math.nan


def _values(painting: UInt8[ndarray, "h w 3"]) -> Float32[ndarray, "h w 3"]:
    return painting.astype(np.float32) / 255
