"""Stylize pictures with a trained network: bind a style once, then call with one picture after another."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from impasto import images
from impasto.choices import Backend, Tiling
from impasto.images import Picture
from impasto.images.large import LARGEST, Rows, Scan, blank, paste_rows, read_scan, scan
from impasto.inference.backends import open_painter
from impasto.inference.devices import memory_explained
from impasto.inference.styles import Number, style_weights
from impasto.inference.tiles import (
    Floats,
    Paint,
    Source,
    Tell,
    check_tiling,
    least_side,
    paint_floats,
    paint_rows,
    plan,
    statistics_of,
    tile_side,
)
from impasto.networks import TransformNet

_TOLERANCE = 0.01  # beyond [0, 1]: bicubic resampling overshoots, 0…255 is a mistake


class Stylizer:
    """A network with its style bound: `Stylizer("starry_night")(photo)` is the painted photo.

    Args:
        network: a published name, a file (`.onnx` as well), or a network (it is copied, and stays where it is).
        style: a name, a mixture "starry_night=0.7,wave=0.3", or weights by name; None where N = 1.
        strength: from 0, exactly the photo, to 1, fully stylized.
        keep_colors: take the luminance from the stylized picture, the colours from the photo.
        size: the longer side, in pixels, to work at and to return; None: that of the photo.
        tile: auto: what is larger than 4 megapixels is painted in tiles, in memory that grows by 8 bytes a pixel only,
            under statistics of the picture scaled down (see `impasto.inference.tiles`), which makes it a little another
            picture than painted whole; a number: in tiles of that side, whatever the size; never: always whole.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.
        backend: see `open_painter`.

    Raises:
        ValueError: a network, style, strength, size, tile or device that does not exist or is out of range.
    """

    def __init__(
        self, network: TransformNet | str | Path, style: str | Mapping[str, Number] | None = None, *,
        strength: Number = 1.0, keep_colors: bool = False, size: int | None = None, device: str = "auto",
        backend: Backend = "auto", tile: Tiling = "auto",
    ) -> None:  # fmt: skip
        if not 0 <= strength <= 1:
            raise ValueError(f"strength {strength}: must be from 0 (the photo) to 1 (fully stylized)")
        if size is not None and size < 1:
            raise ValueError(f"size {size}: the longer side must be at least 1 pixel")
        self.painter = open_painter(network, backend, device)
        check_tiling(tile, self.painter.reach)
        self.strength, self.keep_colors, self.size, self.tile = strength, keep_colors, size, tile
        self._bind(style)

    def _bind(self, style: str | Mapping[str, Number] | None) -> None:
        weights = style_weights(style, self.styles)
        self.mixture = {name: w for name, w in zip(self.styles, weights[0].tolist(), strict=True) if w > 0}
        self.weights = weights.to(self.painter.device)

    @property
    def styles(self) -> list[str]:
        """The names of the network's styles, in its order."""
        return list(self.painter.styles)

    def __call__(self, image: Any, style: str | Mapping[str, Number] | None = None) -> Any:
        """The stylized image, of the kind given.

        Args:
            image: a PIL image (RGB or RGBA comes back, in its colour space), an array H×W×3 (uint8, or
                float in [0, 1]), or a float tensor 3×H×W or B×3×H×W in [0, 1]; dtype and device are kept.
                The path of a picture gives a PIL image; a list of all these, a list.
            style: another style for this call, as in the constructor; the network is not loaded again.

        Raises:
            ValueError: anything else, an unknown style, or a picture that cannot be read or does not fit in memory.
        """
        if style is not None:
            other = copy.copy(self)
            other._bind(style)
            return other(image)
        if isinstance(image, list | tuple):
            return [self(each) for each in image]
        if isinstance(image, str | Path):
            return self._drawn(self.read(Path(image).expanduser()))
        if isinstance(image, Image.Image):
            return self._image(image)
        if isinstance(image, Tensor):
            return self._tensor(image)
        if hasattr(image, "__array__"):
            return self._array(np.asarray(image))
        kinds = "a path, a PIL image, an array, a tensor, or a list of these"
        raise ValueError(f"{type(image).__name__} cannot be stylized: give {kinds}")

    def read(self, path: str | Path, data: bytes | None = None) -> Picture | Scan:
        """The picture of a file, or of `data`, what it holds: whole for `stylize`, in tiles a scan for `rows`.

        The file is read once; it may be a pipe.

        Raises:
            ImageError: as of `read_image` and `read_scan`.
        """
        if self.tile == "never":
            return images.read_image(path, data)
        if data is None:
            with images.explained(path):
                data = Path(path).read_bytes()
        image = images.open_image(path, data, LARGEST)
        tiled = self.in_tiles(image.height, image.width)
        return read_scan(path, data, self.size) if tiled else images.read_image(path, data)

    def stylize(self, picture: Picture) -> Picture:
        """The picture stylized, at `size` if one is set; alpha, colour profile and note are kept.

        Raises:
            ValueError: it does not fit in memory.
        """
        with self._memory_explained(picture.pixels.shape[-2:]):
            fitted = picture if self.size is None else picture.resized(self.size)
            return replace(fitted, pixels=self._paint(fitted.pixels).cpu())

    def in_tiles(self, height: int, width: int) -> bool:
        """Whether a picture of that size is to go as a `Scan` through `rows`: it, or what is made of it, is large."""
        sides = (height, width) if self.size is None else images.scaled((height, width), self.size)
        return any(tile_side(self.tile, *shape) for shape in ((height, width), sides))

    def rows(self, scan: Scan, tell: Tell = lambda done, total: None) -> Iterator[Rows]:
        """The picture stylized, as it is painted, from top to bottom: h×W×3, or h×W×4 with alpha, in 8 bit.

        Args:
            scan: at the `size` wanted (`read_scan` scales).
            tell: is called after every tile with the number of tiles done, and of all.

        Raises:
            ValueError: a tile does not fit in memory.
        """
        side = tile_side(self.tile, *scan.shape) or max(scan.shape)
        with self._memory_explained(scan.shape):
            tiles, paint = plan(*scan.shape, side, self.painter.reach), self._brush(scan, side)
            yield from paint_rows(scan, tiles, paint, tell)

    def _brush(self, source: Source, side: int) -> Paint:
        """What paints the parts of that picture, after measuring it."""
        statistics = None
        if self.strength > 0:
            with torch.inference_mode():
                statistics = statistics_of(source, lambda whole: self.painter.statistics(whole, self.weights), side)

        def paint(part: Tensor, origin: tuple[int, int]) -> Tensor:
            with torch.inference_mode():  # not around the loop: it would hold for whoever the rows go to
                return self._blended(part.to(self.painter.device), statistics, origin)

        return paint

    def _paint(self, content: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
        with torch.inference_mode():
            content = content if self.size is None else images.resize(content, self.size)
        height, width = content.shape[-2:]
        if side := tile_side(self.tile, height, width):
            tiles, pictures = plan(height, width, side, self.painter.reach), map(Floats, content.split(1))
            return torch.cat([paint_floats(each, tiles, self._brush(each, side)) for each in pictures])
        with torch.inference_mode():
            painted = self._blended(content.to(self.painter.device, memory_format=torch.channels_last))
        # A copy made outside: what inference mode itself makes is refused by autograd later on.
        return painted.clone(memory_format=torch.contiguous_format)

    def _blended(self, content: Tensor, statistics: Tensor | None = None, origin: tuple[int, int] = (0, 0)) -> Tensor:
        if self.strength == 0:
            return content
        stylized = self.painter.paint(content, self.weights, statistics, origin)
        if not stylized.isfinite().all():
            raise ValueError("the network paints what is no number: it is damaged, or of a run that failed")
        if self.keep_colors:
            stylized = images.keep_colors(stylized, content)
        # Pixels are blended, so the photo shows through. Painting less strongly, which is not the same, takes
        # a network with a "no style" entry among its styles.
        return stylized if self.strength == 1 else content.lerp(stylized, self.strength).clamp(0, 1)

    def _image(self, image: Image.Image) -> Image.Image:
        if not self.in_tiles(image.height, image.width):
            return self._drawn(images.from_pil(image))
        with self._memory_explained((image.height, image.width)):
            return self._drawn(scan(image, self.size))

    def _drawn(self, photo: Picture | Scan) -> Image.Image:
        if isinstance(photo, Picture):
            return images.to_pil(self.stylize(photo))
        with self._memory_explained(photo.shape):
            painted = blank(photo.image.mode, photo.image.size)
        paste_rows(painted, self.rows(photo), photo.icc_profile)
        return painted

    def _tensor(self, image: Tensor) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != 3 or image.numel() == 0:
            raise ValueError(f"tensor of shape {tuple(image.shape)}: must be 3×H×W or B×3×H×W, not empty")
        if not image.is_floating_point():
            raise ValueError(f"tensor of {image.dtype}: must be float in [0, 1]; divide 8-bit values by 255")
        batch = _within_range(image if image.ndim == 4 else image[None])
        with self._memory_explained(batch.shape[-2:]):
            painted = self._paint(batch).to(image.device, image.dtype)
        return painted if image.ndim == 4 else painted[0]

    def _array(self, image: np.ndarray) -> np.ndarray:
        if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise ValueError(f"array of shape {image.shape}: must be H×W×3, not empty")
        if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise ValueError(f"array of {image.dtype}: must be uint8, or float in [0, 1]")
        levels = 255 if image.dtype == np.uint8 else 1
        values = torch.from_numpy(image.astype(np.float32)) / levels
        painted = self._tensor(values.permute(2, 0, 1)).permute(1, 2, 0).contiguous() * levels
        return (painted.round() if levels == 255 else painted).numpy().astype(image.dtype)

    def _memory_explained(self, shape: Sequence[int]) -> AbstractContextManager[None]:
        height, width = shape
        longer = self.size or max(height, width)
        side = tile_side(self.tile, *images.scaled((height, width), longer)) or longer
        least = least_side(self.painter.reach)
        instead = f"work at a smaller size, such as --size {max(1, longer // 2)}"
        if least < side < longer:
            instead = f"paint smaller tiles, such as --tile {max(least, side // 2)}"
        return memory_explained(
            f"{width}×{height} pixels, longer side {longer}: does not fit in the memory of {self.painter.device}; "
            f"{instead}"
        )


def _within_range(image: Tensor) -> Tensor:
    """float32 in [0, 1]; a little beyond is clipped, more is refused."""
    low, high = (float(value) for value in image.detach().float().aminmax())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # also NaN
        raise ValueError(f"values from {low:g} to {high:g}: must be in [0, 1]; divide 8-bit values by 255")
    return image.detach().float().clamp(0, 1)
