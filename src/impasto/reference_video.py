"""The reference for clips: frames are optimized one after another, and stay near to each other.

The method is that of Ruder, Dosovitskiy, Brox 2016, with the loss that trains the networks.
"""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor

from impasto.choices import ClipOptions, OptimizeOptions
from impasto.images.arrays import from_array, to_array
from impasto.perceptual.gaps import PhotoStatistics
from impasto.perceptual.loss import PerceptualLoss
from impasto.reference import Anchor, optimize_image, quarters
from impasto.video.motion import estimate, scene_motion, warped

# Paintings H×W×3 in [0, 1], float32, by number of pass and frame. A folder of files will do.
Painted = MutableMapping[tuple[int, int], ndarray]
# Called with the numbers of pass, frame and step, and the unweighted terms with the total "loss".
OnClipStep = Callable[[int, int, int, dict[str, float]], None]


def optimize_clip(
    frames: UInt8[ndarray, "t h w 3"],
    styles: Sequence[Float[Tensor, "1 3 _ _"]],
    loss: PerceptualLoss,
    options: OptimizeOptions | None = None,
    clip: ClipOptions | None = None,
    *,
    mixture: Sequence[float] | None = None,
    photos: Float[Tensor, "p 3 _ _"] | PhotoStatistics | None = None,
    masks: Float[Tensor, "n 1 _ _"] | None = None,
    painted: Painted | None = None,
    on_step: OnClipStep | None = None,
) -> Iterator[Float32[ndarray, "h w 3"]]:
    """Optimize the frames of a clip, and return their paintings in order, each in [0, 1].

    A frame starts from the painting of the frame before, warped to it, and from the photo where the
    motion cannot be trusted. A term of the loss holds it there. Each scene begins anew.

    Args:
        frames: the clip. It may be mapped from a file: few frames are used at a time.
        styles: paintings 1×3×H×W in [0, 1]; frames are painted on their device.
        loss: the loss, as in `optimize_image`.
        options: settings of the first frame of each scene, and of the optimizer.
        clip: settings of the others.
        mixture: as in `optimize_image`.
        photos: as in `optimize_image`; None: use the quarters of the first frame.
        masks: as in `optimize_image`; they stay the same for all frames.
        painted: takes the paintings, and gives those of an interrupted run back. A painting is
            removed when a later pass has replaced it. None: keep them in memory.
        on_step: see `OnClipStep`.

    Raises:
        ValueError: as in `optimize_image`; also without OpenCV.
    """
    options, clip = options or OptimizeOptions(), clip or ClipOptions()
    painted = {} if painted is None else painted
    device, count = styles[0].device, len(frames)
    begins = [at > 0 and scene_motion(*frames[at - 1 : at + 1]) is None for at in range(count)]
    scenes = np.cumsum(begins)  # the number of each frame's scene
    if not isinstance(photos, PhotoStatistics) and loss.options.balance != "fixed":
        photos = loss.photo_statistics(
            quarters(from_array(frames[0]).to(device)) if photos is None else photos
        )
    following = replace(options, steps=clip.steps)
    for number in range(clip.passes):
        direction = -1 if number % 2 else 1
        for frame in range(count)[::direction]:
            if any((later, frame) in painted for later in range(number, clip.passes)):
                continue  # an interrupted run has painted it
            near = _near(frame, [direction * step for step in clip.reach], scenes)
            carried, held = _carried(frames, frame, {at: painted[number, at] for at in near})
            start = carried if near else None
            if number:
                # The first pass already follows the frames before. In the paper it paints each
                # frame by itself, which takes ten passes and more to agree.
                own = painted[number - 1, frame]
                start = np.where(held[..., None], own + clip.blend * (carried - own), own)
            image = optimize_image(
                from_array(frames[frame]).to(device),
                styles,
                loss,
                options if start is None else following,
                mixture=mixture,
                photos=photos,
                masks=masks,
                start=None if start is None else from_array(start).to(device),
                anchor=_anchor(carried, held, clip.temporal_weight, device),
                on_step=on_step and _numbered(on_step, number, frame),
            )
            painted[number, frame] = to_array(image)
            painted.pop((number - 1, frame), None)
    return (painted[clip.passes - 1, frame] for frame in range(count))


def _near(frame: int, steps: Sequence[int], scenes: ndarray) -> list[int]:
    """Return the frames of the same scene that lie so many steps before a frame.

    Args:
        frame: number of the frame.
        steps: distances back; negative ones where the clip is gone through backward.
        scenes: number of the scene of each frame.
    """
    before = (frame - step for step in steps)
    return [at for at in before if 0 <= at < len(scenes) and scenes[at] == scenes[frame]]


def _carried(
    frames: ndarray, frame: int, paintings: dict[int, ndarray]
) -> tuple[Float32[ndarray, "h w 3"], Bool[ndarray, "h w"]]:
    """Return other frames' paintings warped to a frame, and where their motion can be trusted.

    The first of the paintings that can be trusted decides a pixel (Ruder et al. 2016).
    Where none can, the pixel is that of the photo.

    Args:
        frames: the clip.
        frame: number of the frame.
        paintings: by number of the frame, nearest first.
    """
    image = frames[frame].astype(np.float32) / 255
    held = np.zeros(image.shape[:2], bool)
    for other, painting in paintings.items():
        motion = estimate(frames[other], frames[frame])
        new = motion.trusted & ~held
        image[new] = warped(painting, motion.flow)[new].clip(0, 1)
        held |= new
    return image, held


def _anchor(image: ndarray, held: ndarray, weight: float, device: torch.device) -> Anchor | None:
    if not weight or not held.any():
        return None
    mask = torch.from_numpy(held).float()[None, None].to(device)
    return Anchor(from_array(image).to(device), mask, weight)


def _numbered(
    on_step: OnClipStep, number: int, frame: int
) -> Callable[[int, Tensor, dict[str, float]], None]:
    return lambda step, _, terms: on_step(number, frame, step, terms)
