"""The approaches that the report on clips compares: networks, and the reference for clips."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from impasto.benchmark.video import TimedPainter, timed
from impasto.choices import ClipOptions
from impasto.evaluation.cells import digest, file_digest
from impasto.evaluation.footage import Frames
from impasto.images import to_levels
from impasto.inference import Stylizer
from impasto.networks import find_network
from impasto.perceptual.loss import PerceptualLoss
from impasto.reference import Reference
from impasto.reference_video import optimize_clip

Tell = Callable[[str, int], None]  # called with what is done now, and how many frames are done


@dataclass(frozen=True)
class ClipApproach:
    """An approach to painting clips.

    Args:
        name: of its rows.
        settings: all that the paintings depend on besides the frames.
        paint: returns the paintings of a clip's frames, and what they took (`timed`).
        size: longer side of its frames in pixels; None: that of the clip.
        alone: name of the same network painting each frame by itself, whose contrast is 1.
    """

    name: str
    settings: dict[str, Any]
    paint: Callable[[Frames, Tell], tuple[Frames, dict[str, float]]]
    size: int | None = None
    alone: str | None = None


def approaches_of_network(file: str, style: Any, steady: float, device: str) -> list[ClipApproach]:
    """Return the two approaches of a network: each frame by itself, and steadily.

    Args:
        file: a published name or a file.
        style: the style as `Stylizer` takes it. A path is for networks for any painting only.
        steady: share of the previous painting that is kept, above 0.
        device: where it paints.

    Raises:
        ValueError: an unknown network or style, or a share out of range.
    """
    stylizer = Stylizer(file, style, stroke="pixels", device=device)
    TimedPainter(stylizer, steady)  # refuses a share out of range before the first frame
    stem, painter = Path(file).stem, stylizer.painter
    settings = {
        "weights": file_digest(find_network(file)), "code": stylizer.code.tolist(),
        "painter": type(painter).__name__, "device": str(painter.device),
    }  # fmt: skip

    def approach(name: str, share: float) -> ClipApproach:
        def paint(frames: Frames, tell: Tell) -> tuple[Frames, dict[str, float]]:
            return timed(TimedPainter(stylizer, share), frames, partial(tell, ""))

        return ClipApproach(name, {**settings, "steady": share}, paint, alone=f"{stem}, per frame")

    return [approach(f"{stem}, per frame", 0.0), approach(f"{stem}, steady", steady)]


def approach_of_reference(reference: Reference, painting: Tensor, size: int) -> ClipApproach:
    """Return the optimization of clips as an approach (Ruder et al. 2016).

    Args:
        reference: its settings; each frame takes `options.steps` iterations.
        painting: 1×3×H×W in [0, 1], on the device where it works.
        size: longer side of its frames in pixels.
    """
    steps = reference.options.steps
    clip = ClipOptions(steps=steps)

    def paint(frames: Frames, tell: Tell) -> tuple[Frames, dict[str, float]]:
        loss = PerceptualLoss(reference.loss).to(painting.device)

        def on_step(_: int, frame: int, step: int, __: dict[str, float]) -> None:
            tell(f"step {step}", frame)

        found = optimize_clip(
            np.stack(frames), [painting], loss, reference.options, clip, on_step=on_step
        )
        return [to_levels(torch.from_numpy(each)).numpy() for each in found], {}

    settings = {**reference.settings(), "clip": vars(clip), "painting": digest(painting)}
    return ClipApproach(f"reference {steps}, {size} pixels", settings, paint, size)
