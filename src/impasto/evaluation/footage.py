"""The clips that paintings are judged on: their frames, and the motion between these."""

from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from impasto.evaluation.cells import digest, file_digest
from impasto.evaluation.true_flow import flow_files, occlusion_file, true_motion
from impasto.images import resize, to_levels
from impasto.images.arrays import from_array, to_array
from impasto.video import motion
from impasto.video.motion import Motion
from impasto.video.reading import open_clip
from impasto.writing import one_line

Frames = list[UInt8[ndarray, "_ _ 3"]]  # of a clip, or its paintings
_Item = TypeVar("_Item")


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
        flow_files: of the true flow from each frame to the next; none where flow is measured.

    Raises:
        ValueError: the clip or its flow cannot be read, or it has fewer than two frames.
    """

    def __init__(self, path: Path, count: int, size: int, flow: Path | None = None) -> None:
        motion.require()
        self.path, self.count, self.size, self.flow = path, count, size, flow
        self.clip = open_clip(path)
        self.frames: Frames = []
        self.times: list[tuple[int, int]] = []
        for frame in self.clip.frames():
            self.frames.append(_scaled_down(frame.pixels[..., :3], size))
            self.times.append((frame.pts, frame.duration))
            if len(self.frames) == count:
                break
        if len(self.frames) < 2:
            raise ValueError(one_line(path, "has one frame: flicker needs two or more"))
        self.flow_files = [] if flow is None else flow_files(flow, len(self.frames))

    def resized(self, size: int) -> "Footage":
        """Return the same frames at another size, read again so that they are scaled only once."""
        return Footage(self.path, self.count, size, self.flow)

    def settings(self) -> dict[str, Any]:
        """Return all that the numbers depend on besides the paintings."""
        files = [
            each
            for file in self.flow_files
            for each in (file, occlusion_file(file))
            if each is not None
        ]
        return {
            "frames": digest(torch.from_numpy(np.stack(self.frames))),
            "flow": [file_digest(file) for file in files] or "fine DIS",
        }

    def in_order(self, items: list[_Item]) -> list[_Item]:
        """Return what belongs to the frames in the order of `motions`: backwards for true flow.

        True flow leads from a frame to the next one. Paintings are compared where a flow begins,
        so the clip is judged from its end.
        """
        return items[::-1] if self.flow_files else items

    @cached_property
    def motions(self) -> list[Motion | None]:
        """The motion between neighbours, in the order of `in_order`; None: a cut between them."""
        pairs = list(pairwise(self.in_order(self.frames)))
        if self.flow_files:
            return [
                true_motion(file, frame, following)
                for file, (following, frame) in zip(self.flow_files[::-1], pairs, strict=True)
            ]
        return [motion.scene_motion(*pair, fine=True) for pair in pairs]


def _scaled_down(frame: UInt8[ndarray, "h w 3"], size: int) -> UInt8[ndarray, "_ _ 3"]:
    if max(frame.shape[:2]) <= size:
        return np.ascontiguousarray(frame)
    return to_array(to_levels(resize(from_array(frame), size)))
