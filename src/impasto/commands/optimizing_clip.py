"""What `impasto optimize` does with clips.

Frames and paintings are kept on disk, so that long clips fit in memory and runs can be resumed.
"""

import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from impasto.commands.progress import bar
from impasto.images import keep_colors, resize, scaled, to_levels
from impasto.images.arrays import from_array, to_array
from impasto.video.clips import SEGMENT, Frame
from impasto.video.motion import Flicker, Motion, scene_motion
from impasto.video.reading import Clip
from impasto.video.writing import ClipWriter
from impasto.writing import new_file, remove_locked


class StoredPaintings(MutableMapping[tuple[int, int], np.ndarray]):
    """Paintings by number of pass and frame, each in a file of a folder, exactly as they were."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, key: tuple[int, int]) -> Path:
        return self.folder / "{}_{:06d}.npy".format(*key)

    def __getitem__(self, key: tuple[int, int]) -> Float32[np.ndarray, "h w 3"]:
        if key not in self:
            raise KeyError(key)
        painting: np.ndarray = np.load(self._file(key))
        return painting

    def __setitem__(self, key: tuple[int, int], painting: Float32[np.ndarray, "h w 3"]) -> None:
        with new_file(self._file(key), overwrite=True, durable=True) as file:
            np.save(file, painting)

    def __delitem__(self, key: tuple[int, int]) -> None:
        if key not in self:
            raise KeyError(key)
        self._file(key).unlink()

    def __contains__(self, key: object) -> bool:
        return isinstance(key, tuple) and self._file(key).exists()

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for file in sorted(self.folder.glob("*_*.npy")):
            number, frame = file.stem.split("_")
            yield int(number), int(frame)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@dataclass
class ClipJob:
    """An optimization of a clip: its frames, the paintings so far, and the file to write.

    Args:
        clip: the clip.
        output: the clip to write.
        size: longer side of the paintings in pixels.
        passes: how often the clip is gone through.
        keep_colors: whether only the brightness of the photos is painted.
        overwrite: replace an earlier result.
    """

    clip: Clip
    output: Path
    size: int
    passes: int
    keep_colors: bool
    overwrite: bool

    def __post_init__(self) -> None:
        """Read the frames; refuse an output that could not be written later.

        Raises:
            ValueError: see `ClipWriter`, or a frame cannot be read.
        """
        width, height = self.clip.size
        self.shape = scaled((height, width), self.size)
        self.frames, self._digest = self._read()
        self.progress = bar()

    def begin(self, settings: dict[str, object], images: list[Tensor]) -> None:
        """Find the paintings of an interrupted run.

        Args:
            settings: all that decides the paintings, besides frames and `images`.
            images: paintings and masks.

        Raises:
            ValueError: another run was interrupted, or the output cannot be written.
        """
        digest = self._digest.copy()
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        for image in images:
            digest.update(image.cpu().contiguous().numpy().tobytes())
        self.writer = ClipWriter(
            self.output,
            self.clip,
            self.shape[::-1],
            identity=f"{digest.hexdigest()} {self.keep_colors}",
            overwrite=self.overwrite,
        )
        self.painted = StoredPaintings(self.writer.parts / "paintings")
        total = self.passes * len(self.frames)
        # A painting of a later pass has replaced those of the earlier ones.
        done = sum(number + 1 for number, _ in self.painted)
        self.task = self.progress.add_task("", total=total, completed=min(done, total))

    def on_step(self, number: int, frame: int, step: int, terms: dict[str, float]) -> None:
        """Show how far the optimization is; see `reference_video.OnClipStep`."""
        count = len(self.frames)
        place = count - 1 - frame if number % 2 else frame
        said = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
        self.progress.update(
            self.task,
            completed=number * count + place,
            description=f"frame {frame + 1} step {step}  {said}",
        )

    def finish(self, paintings: Iterator[np.ndarray]) -> int:
        """Write the clip, print how steady it is, and return the exit status.

        Args:
            paintings: of all frames, in order.

        Returns:
            0: done; 1: frames of the clip were missing or damaged.
        """
        steadiness = Flicker()
        pairs = zip(self.clip.frames(), paintings, strict=True)
        for number, (frame, painting) in enumerate(pairs):
            if self.keep_colors:
                painting = to_array(
                    keep_colors(from_array(painting), from_array(self.frames[number]))
                )
            steadiness.add(painting, self._motion(number))
            if number < self.writer.done:
                continue  # an interrupted run has written it; here it counts for steadiness only
            self.writer.write(Frame(self._pixels(painting, frame), frame.pts, frame.duration))
            if (number + 1) % SEGMENT == 0:
                self.writer.end_segment({})
        for note in dict.fromkeys([*self.clip.notes, *self.writer.finish()]):
            print(note, file=sys.stderr)
        count = len(self.frames)
        said = [f"done: {self.output}, {count} frame{'s' if count > 1 else ''}"]
        if not math.isnan(steadiness.error):  # as of a single frame
            said += [f"e {steadiness.error:.4f}", f"flicker {steadiness.flicker:.3f}"]
        print(", ".join(said))
        return int(self.clip.damaged)

    def failed(self) -> None:
        """Remove what an optimization left that failed before its first painting."""
        if not self.painted:
            remove_locked(self.writer.parts)

    def interrupted(self) -> int:
        """Say how to go on, and return the exit status."""
        done = sum(number == self.passes - 1 for number, _ in self.painted)
        print(
            f"interrupted: {done} of {len(self.frames)} frames are painted; "
            "the same command goes on",
            file=sys.stderr,
        )
        return 130

    def _pixels(self, painting: np.ndarray, frame: Frame) -> np.ndarray:
        """Return a painting as levels H×W×3, or H×W×4 with the alpha of its frame."""
        pixels = to_levels(torch.from_numpy(painting)).numpy()
        if frame.pixels.shape[-1] == 3:
            return pixels
        alpha = to_levels(resize(from_array(frame.pixels[..., 3:]), self.size))
        return np.concatenate([pixels, to_array(alpha)], -1)

    def _motion(self, number: int) -> Motion | None:
        """Return the motion from the frame before; None for the first of a scene."""
        return scene_motion(*self.frames[number - 1 : number + 1]) if number else None

    def _read(self) -> tuple[np.ndarray, Any]:
        """Return all frames, T×H×W×3 in the paintings' size, and their hash.

        The frames are mapped from a temporary file, which lasts as long as the array.
        """
        digest = hashlib.sha256(str(self.shape).encode())
        with tempfile.TemporaryFile() as file:
            for frame in self.clip.frames():
                levels = to_array(to_levels(resize(from_array(frame.pixels[..., :3]), self.size)))
                digest.update(levels.tobytes())
                file.write(levels.tobytes())
            file.flush()
            frames = np.memmap(file, np.uint8, "r").reshape(-1, *self.shape, 3)
        return frames, digest
