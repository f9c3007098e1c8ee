"""Clips painted without flicker: what each frame takes over from the one before.

A frame painted by itself flickers, mostly because the canvas lies still while the photo moves. So
the canvas is carried along by the optical flow, the statistics of the instance norms are measured
once a scene, and where the flow can be trusted, a share of the previous painting is kept. A cut
begins a new scene.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from impasto import images
from impasto.images import Picture
from impasto.inference import Stylizer
from impasto.inference.strokes import Enlarged, painted_side
from impasto.inference.tiles import Floats, paint_floats, plan, tile_side
from impasto.networks.preprocess import canvas_at
from impasto.networks.styles import Number
from impasto.video import motion
from impasto.video.motion import Motion

Frame = UInt8[np.ndarray, "_ _ channels"]

# Share by which the canvas returns to its place with every frame. Otherwise, errors of the flow
# would add up and tear it.
_RELAXED = 0.01
# The scene is measured again when the mean of a channel has changed by more than this, in [0, 1],
# or its deviation by more than this factor, as in a fade. Statistics of a black frame would
# otherwise be applied to all that follow.
_BRIGHTER, _CONTRAST = 0.05, 1.15
_SIZE_OF_LOOK = 64  # pixels of the longer side at which mean and deviation are compared


class SteadyPainter:
    """Paints the frames of a clip in order: `painter = SteadyPainter(Stylizer("gallery", …))`.

    Args:
        stylizer: the network, its style and its options.
        steady: share of the previous painting that is kept where the flow can be trusted, from 0
            to 1. 0 paints every frame by itself, as the stylizer does. 1 smears.

    Attributes:
        notes: what the user should know, one line each.

    Raises:
        ValueError: `steady` is out of range, the strength is `auto`, or OpenCV is not installed.
    """

    def __init__(self, stylizer: Stylizer, steady: Number = 0.5) -> None:
        if not 0 <= steady <= 1:
            raise ValueError(
                f"steady {steady}: must be from 0 (every frame by itself) to 1 (what the flow "
                "carries is never painted again)"
            )
        if stylizer.allowed is not None:
            raise ValueError("strength auto: is for photos; for clips give a number from 0 to 1")
        self.stylizer, self.steady = stylizer, steady
        self.notes: list[str] = []
        # What the next frame needs: the last photo and painting, how far the canvas was carried,
        # and what was measured of the scene.
        self._kept: dict[str, Tensor] = {}
        if steady:
            motion.require()
        if steady and not stylizer.painter.takes_statistics:
            self.notes.append(
                "every frame is measured by itself; an export with --parts would measure each "
                "scene once"
            )

    @property
    def state(self) -> dict[str, np.ndarray]:
        """What the next frame needs, by name; `restore` continues from it, bit for bit."""
        return {name: value.cpu().numpy() for name, value in self._kept.items()}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue after the frame at which `state` was taken."""
        self._kept = {name: torch.from_numpy(value) for name, value in state.items()}

    def __call__(self, frame: Frame, code: Float[Tensor, "1 n"] | None = None) -> Frame:
        """Return the painted frame, in the size that the stylizer gives it.

        Args:
            frame: H×W×3, or H×W×4 with alpha, which is kept.
            code: the style of this frame; None: that of the stylizer.

        Raises:
            ValueError: the frame does not fit in memory.
        """
        return np.asarray(images.to_pil(self.pictured(frame, code)))

    def pictured(self, frame: Frame, code: Float[Tensor, "1 n"] | None = None) -> Picture:
        """Return the painted frame as a picture; see `__call__`."""
        code = self.stylizer.code if code is None else code
        picture = images.from_pil(Image.fromarray(frame))
        if not self.steady or self.stylizer.strength == 0:
            each = copy.copy(self.stylizer)
            each.code = code
            return each.stylize(picture)
        size = self.stylizer.size
        picture = picture if size is None else picture.resized(size)
        with self.stylizer.memory_explained(picture.pixels.shape[-2:]), torch.inference_mode():
            pixels = self._resized_strokes(picture.pixels, code)
        return replace(picture, pixels=pixels.cpu())

    def _resized_strokes(self, content: Tensor, code: Tensor) -> Tensor:
        """Paint a frame at the size that gives its strokes the size asked for."""
        longer = max(content.shape[-2:])
        side = painted_side(self.stylizer.stroke, longer)
        photo = images.resize(content, side)
        painting = self._next(photo, code)
        if side > longer:
            painting = images.resize(painting, longer)
        elif side < longer:
            large = Enlarged.of(painting, photo, (content.shape[-2], content.shape[-1]))
            painting = large.part(content, (0, 0))
        return self.stylizer.finished(painting, content.to(painting))

    def _next(self, photo: Tensor, code: Tensor) -> Tensor:
        """Paint the next frame of a clip, at the size of its strokes."""
        levels = images.to_levels(photo)
        moved = self._moved(levels)
        if moved is None:
            self._kept = {"carried": torch.zeros(*photo.shape[-2:], 2)}
        else:
            self._kept["carried"] = _carried(self._kept["carried"], moved)
        # The network adds the canvas where it lies by itself; the difference moves it.
        onto = photo + self._canvas(photo.shape[-2], photo.shape[-1]).to(photo)
        painting = self._painted(onto, photo, code)
        if moved is not None:
            before = motion.warped(_rows(self._kept["painting"]), moved.flow, "bicubic")
            share = self.steady * torch.from_numpy(moved.trusted)
            painting = torch.lerp(painting, _planes(before).to(painting), share.to(painting))
        painting = painting.clamp(0, 1)
        self._kept |= {"photo": levels, "painting": painting.cpu()}
        return painting

    def _moved(self, levels: Tensor) -> Motion | None:
        """Return the motion since the last frame; None at the beginning of a scene."""
        before = self._kept.get("photo")
        if before is None or before.shape != levels.shape:
            return None
        first, second = (np.ascontiguousarray(_rows(each)) for each in (before, levels))
        return motion.scene_motion(first, second)

    def _canvas(self, height: int, width: int) -> Tensor:
        """Return the canvas carried along, less the one that the network adds, H×W."""
        down, right = torch.meshgrid(
            torch.arange(height).float(), torch.arange(width).float(), indexing="ij"
        )
        carried, amplitude = self._kept["carried"], self.stylizer.painter.canvas
        if not amplitude or not carried.any():
            return torch.zeros(height, width)
        there = canvas_at(down + carried[..., 1], right + carried[..., 0], amplitude)
        return there - canvas_at(down, right, amplitude)

    def _painted(self, onto: Tensor, photo: Tensor, code: Tensor) -> Tensor:
        """Paint a photo with the statistics of its scene, which are measured where needed."""
        painter, shape = self.stylizer.painter, onto.shape[-2:]
        onto = onto.to(painter.device, memory_format=torch.channels_last)
        side = tile_side(self.stylizer.tile, *shape)
        look = _look(photo)
        if self._changed(look, code):
            own = self.stylizer.code_for(photo, code)
            self._kept |= {"asked": code, "code": own, "look": look}
            if painter.takes_statistics:
                whole = Floats(onto).reduced(side * side) if side else onto
                self._kept["statistics"] = painter.statistics(whole, own).cpu()
        code, statistics = self._kept["code"], self._kept.get("statistics")
        if statistics is not None:
            statistics = statistics.to(painter.device)
        if not side:
            return painter.paint(onto, code, statistics)
        tiles = plan(shape[0], shape[1], side, painter.reach, painter.multiple)
        return paint_floats(
            Floats(onto), tiles, lambda part, origin: painter.paint(part, code, statistics, origin)
        )

    def _changed(self, look: Tensor, code: Tensor) -> bool:
        """Whether the scene must be measured: it is new, or its light or its style has changed."""
        if "look" not in self._kept or not torch.equal(self._kept["asked"], code):
            return True
        return light_changed(self._kept["look"], look)


def light_changed(before: Float[Tensor, "2 3"], now: Float[Tensor, "2 3"]) -> bool:
    """Whether a scene's light has changed so much that its statistics must be measured again.

    Args:
        before: mean and deviation of each channel, in [0, 1], when they were measured.
        now: the same of the present frame.
    """
    ratio = (now[1] + 1e-3) / (before[1] + 1e-3)
    brighter = (now[0] - before[0]).abs().max() > _BRIGHTER
    return bool(brighter or (torch.maximum(ratio, 1 / ratio).max() > _CONTRAST))


def _carried(carried: Tensor, moved: Motion) -> Tensor:
    """Return how far each pixel's place on the canvas lies from the pixel, H×W×2 (x, y)."""
    before = motion.warped(carried.numpy(), moved.flow, "linear")
    return torch.from_numpy((before + moved.flow) * (1 - _RELAXED))


def _look(photo: Tensor) -> Float[Tensor, "2 3"]:
    """Return mean and deviation of each channel of a frame."""
    small = images.resize(photo, min(_SIZE_OF_LOOK, max(photo.shape[-2:])))[0].flatten(1)
    return torch.stack([small.mean(1), small.std(1, correction=0)]).cpu()


def _rows(planes: Tensor) -> np.ndarray:
    """Return 1×C×H×W as an array H×W×C."""
    return planes[0].permute(1, 2, 0).contiguous().numpy()


def _planes(rows: np.ndarray) -> Tensor:
    """Return an array H×W×C as 1×C×H×W."""
    return torch.from_numpy(rows).permute(2, 0, 1)[None]
