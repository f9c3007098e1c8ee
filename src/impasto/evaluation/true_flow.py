"""True optical flow, as data sets and renderers store it.

A file holds the flow from a frame to the next one, H×W×2 (x, y) in pixels. A picture of the same
name with the suffix .png is white where the next frame does not show what this one does.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from impasto.images import read_image
from impasto.images.arrays import to_array
from impasto.spelling import not_there
from impasto.video import motion
from impasto.video.motion import Motion
from impasto.video.reading.folders import natural
from impasto.writing import one_line

_UNKNOWN = 1e9  # pixels from which a flow means that it is unknown (Middlebury)
_MAGIC = b"PIEH"  # the first bytes of a .flo file


def flow_files(folder: Path, frames: int) -> list[Path]:
    """Return the flow from each of the first `frames` frames to the next, in natural order.

    Raises:
        ValueError: the folder is missing, or holds too few files.
    """
    if not folder.is_dir():
        raise ValueError(not_there(folder, "folder"))
    files = sorted(
        (file for file in folder.iterdir() if file.suffix.lower() in (".flo", ".npz")), key=natural
    )
    if len(files) < frames - 1:
        raise ValueError(
            f"{folder}: {len(files)} files of flow (.flo, .npz) for {frames} frames: "
            f"needs {frames - 1}, each from a frame to the next"
        )
    return files[: frames - 1]


def occlusion_file(file: Path) -> Path | None:
    """Return the picture of what is occluded that belongs to a file of flow; None if missing."""
    picture = file.with_suffix(".png")
    return picture if picture.exists() else None


def true_motion(
    file: Path, frame: UInt8[ndarray, "h w 3"], following: UInt8[ndarray, "h w 3"]
) -> Motion:
    """Return the motion that leads from `following` back to `frame`, at the size of the frames.

    Its flow belongs to the pixels of `frame`, so in terms of `Motion` that is the second frame.
    Without a picture of what is occluded, trust is measured as for flow that is not true.

    Args:
        file: the flow from `frame` to `following`.
        frame: where the flow begins.
        following: the next frame.

    Raises:
        ValueError: the file or the picture cannot be read.
    """
    flow = torch.from_numpy(read_flow(file)).permute(2, 0, 1)[None]
    height, width = frame.shape[:2]
    known = flow.abs().amax(1, keepdim=True) < _UNKNOWN
    ratio = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]]).view(1, 2, 1, 1)
    # Not a product: infinities and nan, which mark unknown flow too, would stay nan.
    flow = torch.where(known, flow, 0)
    found = to_array(_scaled(flow, height, width) * ratio)
    # A pixel of a smaller frame is known where all pixels that it covers are.
    trusted = _scaled(known.float(), height, width)[0, 0].numpy() == 1
    if (picture := occlusion_file(file)) is not None:
        occluded = read_image(picture).pixels.mean(1, keepdim=True)
        trusted &= _scaled(occluded, height, width)[0, 0].numpy() < 0.01
    else:
        trusted &= motion.estimate(following, frame, fine=True).trusted
    return Motion(found, trusted & motion.is_inside(found))


def read_flow(file: Path) -> Float32[ndarray, "h w 2"]:
    """Return a flow H×W×2 (x, y) in pixels, from .flo (Middlebury) or .npz (its array `flow`).

    Raises:
        ValueError: the file is damaged, or holds something else.
    """
    try:
        flow = _read_npz(file) if file.suffix.lower() == ".npz" else _read_flo(file)
        if flow.ndim != 3 or flow.shape[-1] != 2 or not flow.size:
            raise ValueError("not a flow")
    except Exception as error:  # a damaged archive can raise anything
        raise ValueError(
            one_line(file, "no flow can be read: needs .flo, or .npz with an array `flow` H×W×2")
        ) from error
    return flow


def _read_npz(file: Path) -> ndarray:
    with np.load(file) as arrays:
        return arrays["flow"].astype(np.float32)


def _read_flo(file: Path) -> ndarray:
    data = file.read_bytes()
    if data[:4] != _MAGIC:
        raise ValueError("not a flow")
    width, height = np.frombuffer(data[4:12], "<i4")
    if width < 1 or height < 1:  # numpy would take -1 as a side to find out
        raise ValueError("not a flow")
    return np.frombuffer(data[12:], "<f4").reshape(height, width, 2).astype(np.float32)


def _scaled(values: Tensor, height: int, width: int) -> Float[Tensor, "1 c h w"]:
    """Return the means of 1×C×H×W over the area that each pixel of another size covers."""
    return F.interpolate(values, (height, width), mode="area")
