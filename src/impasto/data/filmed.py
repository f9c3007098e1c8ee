"""Pairs of frames from clips, with measured motion, for temporal training.

Unlike `moved`, their motion is that of real cameras and things, and its flow is an estimate.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track
from torch import Tensor

from impasto.data.moved import inside
from impasto.data.sources import seeded
from impasto.video import motion
from impasto.video.clips import Frame
from impasto.video.motion import Motion
from impasto.video.reading import Clip, open_clip
from impasto.video.warping import positions

PAIRS = 240  # kept in memory, of all clips together; for crops of 256 pixels they take some 700 MB
SHORT = 1.5  # shorter side of the frames that are kept, relative to the crops
RATE = 25  # frames a second, about; of faster clips, frames between those of a pair are left out


@dataclass(frozen=True)
class _Kept:
    """A pair of frames H×W×3 uint8, and the motion from the first to the second."""

    first: np.ndarray
    second: np.ndarray
    motion: Motion


class FilmedPairs:
    """Pairs from clips. They are read and measured once, evenly over the clips and their lengths.

    Args:
        clips: what `open_clip` reads: videos, animations, folders of frames.
        size: side of the square crops, in pixels.

    Raises:
        ValueError: a clip cannot be read, is too small, or has no two frames without a cut between.
    """

    def __init__(self, clips: Sequence[str | Path], size: int) -> None:
        self.size = size
        share = max(1, PAIRS // max(1, len(clips)))
        console = Console(stderr=True)
        shown = track(clips, "reading clips", console=console, disable=not console.is_terminal)
        self._kept = [pair for clip in shown for pair in self._read(clip, share)]

    def __len__(self) -> int:
        return len(self._kept)

    def draw(self, seed: int, n: int) -> dict[str, Tensor]:
        """Return pair n: a random crop of a random pair, which depends on (seed, n) only.

        Returns:
            `first` and `second` 3×S×S in [0, 1], `flow` 2×S×S, `trusted` 1×S×S.
        """
        which, down, right, mirrored = torch.rand(
            4, generator=seeded("filmed", seed, n), dtype=torch.float64
        ).tolist()
        kept = self._kept[int(which * len(self._kept))]
        height, width = kept.first.shape[:2]
        rows, columns = (
            slice(start := int(place * (side - self.size + 1)), start + self.size)
            for place, side in ((down, height), (right, width))
        )
        first, second = (
            torch.from_numpy(frame[rows, columns]).permute(2, 0, 1) / 255
            for frame in (kept.first, kept.second)
        )
        flow = torch.from_numpy(kept.motion.flow[rows, columns]).permute(2, 0, 1)
        trusted = torch.from_numpy(kept.motion.trusted[rows, columns])[None]
        # The painting depends, near its border, on what lies beyond, which differs in the frames.
        trusted = trusted & inside(positions(flow[None]))[0]
        pair = {"first": first, "second": second, "flow": flow, "trusted": trusted}
        if mirrored < 0.5:
            pair = {name: part.flip(-1) for name, part in pair.items()}
            pair["flow"] = pair["flow"] * flow.new_tensor([-1, 1])[:, None, None]
        return {name: part.contiguous() for name, part in pair.items()}

    def _read(self, path: str | Path, count: int) -> list[_Kept]:
        """Return up to `count` pairs of a clip."""
        clip = open_clip(path)
        if min(clip.size) < self.size:
            raise ValueError(
                f"--data.clips {path}: has {clip.size[0]}×{clip.size[1]} pixels, too small for "
                f"frames of {self.size}: leave it out, or choose a smaller --data.crop"
            )
        found = []
        for frames in islice(_neighbours(path, clip, count), count):
            first, second = (self._scaled(frame.pixels) for frame in frames)
            measured = motion.scene_motion(first, second, fine=True)
            if measured is not None:
                found.append(_Kept(first, second, measured))
        if not found:
            raise ValueError(
                f"--data.clips {path}: no two frames follow each other without a cut: leave it out"
            )
        return found

    def _scaled(self, pixels: np.ndarray) -> np.ndarray:
        """Return a frame without alpha, scaled down if it is much larger than the crops."""
        height, width = pixels.shape[:2]
        scale = min(1, SHORT * self.size / min(height, width))
        image = Image.fromarray(pixels).convert("RGB")
        size = (max(self.size, round(scale * width)), max(self.size, round(scale * height)))
        return np.array(image.resize(size, Image.Resampling.BOX) if scale < 1 else image)


def _neighbours(path: str | Path, clip: Clip, count: int) -> Iterator[tuple[Frame, Frame]]:
    """Yield pairs of frames: some `count`, evenly over a clip whose length is known."""
    if clip.animation or not clip.seconds or not clip.count:
        # Only reading it from its start finds a frame.
        yield from pairwise(clip.frames())
        return
    apart = max(1, round(clip.rate / RATE))
    places = max(1, min(count, clip.count - apart))
    for place in range(places):
        start = clip.seconds * place * (clip.count - apart) / (places * clip.count)
        frames = list(islice(open_clip(path, start=start).frames(), apart + 1))
        if len(frames) > apart:
            yield frames[0], frames[apart]
