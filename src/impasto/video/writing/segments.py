"""Segments: encoded frames on disk, so that an interrupted run can go on.

A segment is one file of `.NAME.parts/` beside the output. It holds encoded frames, their exact
times, and what the painter needs to go on after them. It is written whole or not at all, so frames
and state always belong together. The folder is locked, so that two runs never share it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save

from impasto.writing import (
    FolderLocked,
    empty_locked,
    lock_folder,
    new_file,
    one_line,
    remove_locked,
    write_text,
)

Encoded = tuple[bytes, int, int, bool]  # data, pts, duration, whether it is a key frame


class Segments:
    """The segments of an output.

    Attributes:
        folder: where they are.
        done: number of frames in them.
        last: pts of the last of these frames; None: there is none.
        state: what was stored with the last segment; None: there is none.
    """

    def __init__(self, output: Path, identity: str, overwrite: bool) -> None:
        """Find the segments of an interrupted run, or begin.

        Args:
            output: what they will become.
            identity: all that decides them, as text.
            overwrite: remove segments of another identity.

        Raises:
            ValueError: they are of another identity, or another process writes the same output.
        """
        self.folder = output.absolute().parent / f".{output.name}.parts"
        self.done, self._count = 0, 0
        self.last: int | None = None
        self.state: dict[str, np.ndarray] | None = None
        self._begin(output, identity, overwrite)
        self._find()

    def add(self, frames: list[Encoded], state: dict[str, np.ndarray]) -> None:
        """Store a segment.

        Args:
            frames: at least one.
            state: arrays by name; they come back exactly.

        Raises:
            FileError: the disk is full, or the file cannot be written.
        """
        data, pts, durations, keys = zip(*frames, strict=True)
        arrays: dict[str, np.ndarray] = {
            "data": np.frombuffer(b"".join(data), np.uint8),
            "sizes": np.array([len(part) for part in data], np.int64),
            "pts": np.array(pts, np.int64),
            "durations": np.array(durations, np.int64),
            "keys": np.array(keys, np.uint8),
        }
        # safetensors stores an array's memory as it lies.
        arrays |= {f"state.{name}": np.array(value, order="C") for name, value in state.items()}
        with new_file(self._file(self._count), durable=True) as file:
            file.write(save(arrays))
        self.done += len(frames)
        self._count += 1

    def frames(self) -> Iterator[Encoded]:
        """Yield all encoded frames in order; one segment at a time is in memory."""
        for number in range(self._count):
            arrays = load_file(self._file(number))
            data, place = arrays["data"].tobytes(), 0
            for size, pts, duration, key in zip(
                arrays["sizes"].tolist(),
                arrays["pts"].tolist(),
                arrays["durations"].tolist(),
                arrays["keys"].tolist(),
                strict=True,
            ):
                yield data[place : place + size], pts, duration, bool(key)
                place += size

    def remove(self) -> None:
        """Remove the folder with all that is in it, and unlock it."""
        remove_locked(self.folder)

    def _begin(self, output: Path, identity: str, overwrite: bool) -> None:
        """Lock the folder, and empty it unless its segments are of this identity."""
        try:
            lock_folder(self.folder)
        except FolderLocked as locked:
            raise ValueError(
                one_line(
                    output,
                    f"{locked.holder} is writing it: wait until it ends, or choose another "
                    "--output",
                )
            ) from None
        place = self.folder / "identity.json"
        found = place.read_text() if place.exists() else None
        if found == identity:
            return
        if found is not None and not overwrite:
            raise ValueError(
                one_line(
                    output,
                    "an interrupted run with another clip, network or options left "
                    f"{self.folder.name}; repeat its command to go on, or pass "
                    "--overwrite to start anew",
                )
            )
        empty_locked(self.folder)
        try:
            write_text(place, identity)
        except ValueError:
            remove_locked(self.folder)
            raise

    def _find(self) -> None:
        while (file := self._file(self._count)).exists():
            with safe_open(file, "np") as stored:
                self.done += stored.get_slice("pts").get_shape()[0]
            self._count += 1
        if self._count:
            arrays = load_file(self._file(self._count - 1))
            self.last = int(arrays["pts"][-1])
            self.state = {
                name.removeprefix("state."): value
                for name, value in arrays.items()
                if name.startswith("state.")
            }

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.safetensors"
