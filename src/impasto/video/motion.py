"""Motion between two frames: optical flow, what of it can be trusted, warping, cuts, flicker.

Frames are H×W×3 arrays in RGB, uint8 where motion is measured and float32 in [0, 1] where paintings
are compared. Flow is in pixels.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from numpy import ndarray

Order = Literal["linear", "bicubic"]

SMALLEST = 32  # least side in pixels that DIS gets; below 16 it refuses, or crashes
THUMBNAIL = 32  # side in pixels of the pictures that decide whether there was a cut


@dataclass(frozen=True)
class Motion:
    """The motion between two frames that follow each other.

    Args:
        flow: backward flow H×W×2 (x, y) in pixels: pixel (x, y) of the second frame was at
            (x, y) + flow[y, x] in the first.
        trusted: H×W, pixels of the second frame whose flow can be trusted.
    """

    flow: Float32[ndarray, "h w 2"]
    trusted: Bool[ndarray, "h w"]


def estimate(
    first: UInt8[ndarray, "h w 3"], second: UInt8[ndarray, "h w 3"], fine: bool = False
) -> Motion:
    """Return the motion between two frames: DIS flow (Kroeger et al. 2016) in both directions.

    Args:
        first: a frame.
        second: the next frame.
        fine: measure on frames of twice the size, in five times the time. On true flow (Sintel's
            alley_1, cave_2), trusted pixels are off by 0.17 and 0.64 pixels instead of 0.24 and
            0.87. Farnebäck's flow, the other one in OpenCV, is off by 0.97 and 4.6.

    Raises:
        ValueError: OpenCV is not installed.
    """
    start, end = (_grey(frame) for frame in (first, second))
    height, width = first.shape[:2]
    with ThreadPoolExecutor(1) as beside:  # OpenCV releases Python's lock
        waiting = beside.submit(_flow, start, end, fine)
        backward, forward = _flow(end, start, fine), waiting.result()
    trusted = _trusted(backward, forward)
    return Motion(backward[:height, :width].copy(), trusted[:height, :width].copy())


def warped(
    image: Float32[ndarray, "h w c"], flow: Float32[ndarray, "h w 2"], order: Order = "bicubic"
) -> Float32[ndarray, "h w c"]:
    """Return an image of the first frame, pulled to the second: image[y + flow_y, x + flow_x].

    Beyond the border, the border's values are repeated.

    Args:
        image: values of the first frame, of any range.
        flow: backward flow, as in `Motion`.
        order: linear, or bicubic, which blurs less where a painting is warped again and again.
    """
    cv2 = require()
    x, y = _origins(flow)

    def sampled(x: ndarray, y: ndarray, method: int) -> ndarray:
        parts = [  # OpenCV's cubic takes at most four channels
            cv2.remap(image[..., at : at + 4], x, y, method, borderMode=cv2.BORDER_REPLICATE)
            for at in range(0, image.shape[-1], 4)
        ]
        return np.concatenate([part.reshape(*x.shape, -1) for part in parts], -1)

    if order == "linear":
        return sampled(x, y, cv2.INTER_LINEAR)
    # Cubic kernels are linear in their slope. OpenCV's, -0.75, sharpens: repeated, it would grow
    # patterns. Catmull-Rom's, -0.5, is 2/3 of it and 1/3 of the kernel of slope 0, which is linear
    # interpolation at smoothed fractions. That is exact along an axis, and near it otherwise.
    cubic = sampled(x, y, cv2.INTER_CUBIC)
    smooth = sampled(_smoothed(x), _smoothed(y), cv2.INTER_LINEAR)
    return (2 * cubic + smooth) / np.float32(3)


def chained(first: Motion, second: Motion) -> Motion:
    """Return the motion over three frames, from the motion between the first two and the last two.

    A pixel can be trusted if both of its steps can.
    """
    flow = second.flow + warped(first.flow, second.flow, "linear")
    trusted = warped(first.trusted[..., None].astype(np.float32), second.flow, "linear")
    return Motion(flow, second.trusted & (trusted[..., 0] > 0.999) & is_inside(second.flow))


def is_inside(flow: Float32[ndarray, "h w 2"]) -> Bool[ndarray, "h w"]:
    """Return which pixels were inside the frame before, H×W."""
    height, width = flow.shape[:2]
    x, y = _origins(flow)
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def scene_motion(
    first: UInt8[ndarray, "h w 3"], second: UInt8[ndarray, "h w 3"], fine: bool = False
) -> Motion | None:
    """Return the motion between two frames, or None if a new scene begins with the second.

    It does where 2 · (share of trusted pixels) + (correlation of the thumbnails) is below 0.9. Cuts
    between clips and photos had 0.74 at most. Frames of one scene had more than 1.5; moved by an
    eighth of the width, 1.6; brightened by 150 of 255, 1.1. A pan by a quarter of the width a frame
    counts as a cut: nothing is left to follow.

    Args:
        first: a frame.
        second: the next frame.
        fine: as in `estimate`.
    """
    motion = estimate(first, second, fine)
    cut = 2 * motion.trusted.mean() + _correlation(first, second) < 0.9
    return None if cut else motion


def temporal_error(
    first: Float32[ndarray, "h w 3"], second: Float32[ndarray, "h w 3"], motion: Motion
) -> float:
    """Return e² of two paintings: the mean squared change of trusted pixels along the motion.

    Σ M ‖O_t − W(O_{t−1})‖² / (3 Σ M), with linear interpolation in W as in ReCoNet
    (Gao et al. 2018). It is nan where no pixel can be trusted.

    Args:
        first: painting of the first frame, in [0, 1].
        second: painting of the second frame.
        motion: motion between the frames, not between the paintings.
    """
    if not motion.trusted.any():
        return math.nan
    change = second - warped(first, motion.flow, "linear")
    return float(np.square(change[motion.trusted]).mean(dtype=np.float64))


class Flicker:
    """How much a painted clip changes against the motion of its frames.

    Give the paintings to `add` in their order, then read `error` and `flicker`.
    """

    def __init__(self) -> None:
        self._previous: ndarray | None = None
        self._errors: list[float] = []
        self._moments = np.zeros((3, 3))  # of each channel: number of values, sum, sum of squares

    def add(self, painting: Float32[ndarray, "h w 3"], motion: Motion | None = None) -> None:
        """Add the next painting.

        Args:
            painting: in [0, 1].
            motion: motion from the previous frame to this one; None for the first frame and after
                a cut.
        """
        if motion is not None and self._previous is not None:
            error = temporal_error(self._previous, painting, motion)
            if not math.isnan(error):
                self._errors.append(error)
        self._previous = painting
        values = painting.reshape(-1, 3).astype(np.float64)
        self._moments += [
            np.full(3, len(values)),
            values.sum(0),
            np.square(values).sum(0),
        ]

    @property
    def error(self) -> float:
        """e, the root of the mean of e² over the pairs of frames; nan without a pair."""
        return math.sqrt(sum(self._errors) / len(self._errors)) if self._errors else math.nan

    @property
    def flicker(self) -> float:
        """e / (√2 · std of the paintings): 0 is steady, 1 is what unrelated paintings have."""
        number, total, squares = self._moments
        variance = float(np.mean(squares / number - np.square(total / number)))
        return self.error / math.sqrt(2 * variance) if variance > 1e-12 else 0.0


def require() -> Any:
    """Return OpenCV, or say how to install it."""
    try:
        import cv2
    except ImportError:
        raise ValueError(
            "motion between frames is measured with OpenCV, which is not installed: "
            "pip install 'impasto[video]'"
        ) from None
    return cv2


def _correlation(first: ndarray, second: ndarray) -> float:
    """Return the correlation of two frames' thumbnails, over pixels and channels; 0 if one is flat.

    It does not change with brightness and contrast, as in fades and flashes.
    """
    cv2 = require()
    thumbnails = [
        cv2.resize(frame, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float32)
        for frame in (first, second)
    ]
    a, b = (thumbnail - thumbnail.mean((0, 1)) for thumbnail in thumbnails)
    lengths = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / lengths if lengths else 0.0


def _grey(frame: ndarray) -> ndarray:
    """Return a frame in grey, H×W uint8, at least SMALLEST pixels a side."""
    cv2 = require()
    missing = [max(0, SMALLEST - side) for side in frame.shape[:2]]
    return cv2.copyMakeBorder(
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE
    )


def _flow(start: ndarray, end: ndarray, fine: bool = False) -> ndarray:
    """Return where each pixel of the grey picture `start` is in `end`, H×W×2 (x, y) in pixels."""
    cv2 = require()
    method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    if not fine:
        return method.calc(start, end, None)
    height, width = start.shape
    twice = (2 * width, 2 * height)
    large = [cv2.resize(each, twice, interpolation=cv2.INTER_CUBIC) for each in (start, end)]
    flow = method.calc(*large, None)
    return cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / np.float32(2)


def _trusted(flow: ndarray, back: ndarray) -> ndarray:
    """Return which pixels to trust by the rules of Ruder et al. 2016.

    The pixel's origin lies inside the frame. The flow back from there leads to the pixel again; it
    does not where the pixel was covered. The flow changes little around it; at the edge of a moving
    thing, it is a mixture.

    Args:
        flow: of the pixels to judge.
        back: of the other frame, in the opposite direction.
    """
    cv2 = require()
    back = warped(back, flow, "linear")
    length = _squared(flow)
    consistent = _squared(flow + back) <= 0.01 * (length + _squared(back)) + 0.5
    slopes = [
        _squared(cv2.Sobel(flow, -1, dx, dy, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE))
        for dx, dy in ((1, 0), (0, 1))
    ]
    return is_inside(flow) & consistent & (slopes[0] + slopes[1] <= 0.01 * length + 0.002)


def _origins(flow: ndarray) -> tuple[ndarray, ndarray]:
    """Return where each pixel was in the first frame, as two pictures of x and of y."""
    height, width = flow.shape[:2]
    return (
        flow[..., 0] + np.arange(width, dtype=np.float32),
        flow[..., 1] + np.arange(height, dtype=np.float32)[:, None],
    )


def _squared(vectors: ndarray) -> ndarray:
    """Return the squared lengths of H×W×2 vectors, H×W."""
    return np.square(vectors[..., 0]) + np.square(vectors[..., 1])


def _smoothed(place: ndarray) -> ndarray:
    """Return coordinates whose fraction t became 3t² − 2t³."""
    whole = np.floor(place)
    t = place - whole
    return whole + t * t * (3 - 2 * t)
