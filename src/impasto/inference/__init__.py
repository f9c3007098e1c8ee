"""Stylizing pictures with a trained network: a `Stylizer` is made once and called per picture."""

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
from impasto.choices import Backend, Stroke, Tiling
from impasto.images import Picture
from impasto.images.large import LARGEST, Rows, Scan, collected, read_scan, scan
from impasto.inference import adaptive
from impasto.inference.backends import open_painter
from impasto.inference.devices import memory_explained as explained_memory
from impasto.inference.strokes import BORDER, Enlarged, check_stroke, painted_side
from impasto.inference.styles import AnyStyle, elsewhere, pictures
from impasto.inference.tiles import (
    AUTO_SIDE,
    Floats,
    Paint,
    Source,
    Tell,
    Tile,
    check_tiling,
    least_side,
    paint_floats,
    paint_rows,
    plan,
    statistics_of,
    tile_side,
)
from impasto.networks import TransformNet
from impasto.networks.reading import SIDE
from impasto.networks.styles import Number, UnknownStyle

# How far values may lie outside [0, 1]: bicubic resampling overshoots a little, while values up to
# 255 are a mistake.
_TOLERANCE = 0.01


class Stylizer:
    """A network and a style, ready to paint: `Stylizer("starry_night")(photo)`.

    Args:
        network: a published name, a file (also `.onnx`), or a network, which is copied.
        style: a name, a mixture ("starry_night=0.7,udnie=0.3"), or a mapping of names to weights.
            None is allowed where the network has one style. For a network for any painting: a path
            or a mixture of paths, a PIL image, or a tensor 3×H×W in [0, 1].
        strength: from 0, exactly the photo, to 1, fully stylized. `auto` chooses it for each photo
            so that the content lost is at most 0.5, and `auto:0.4` at most 0.4 (see `adapted`).
        keep_colors: take the luminance from the stylized picture and the colours from the photo.
        size: longer side of the result in pixels; None: as the photo.
        stroke: `auto` paints a picture above 1024 pixels with strokes as large, relative to the
            picture, as at 1024. A number makes them that many times larger. `pixels` gives them a
            fixed number of pixels (see `impasto.inference.strokes`).
        tile: `auto` paints pictures above 4 megapixels in tiles, `never` paints all of them whole.
            A number paints pictures of any size in tiles of that side. Tiles take less memory, but
            change the picture slightly (see `impasto.inference.tiles`).
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.
        backend: see `open_painter`.

    Attributes:
        painter: runs the network.
        code: the style as the network takes it, weights 1×N of sum 1.
        mixture: the styles by name, with their weights above 0.
        allowed: content that may be lost where the strength is chosen for each photo, else None.
        choice: the strength chosen for a photo, in a stylizer that `adapted` returned; else None.

    Raises:
        ValueError: an unknown network, style or device, or a value out of range.
    """

    def __init__(
        self, network: TransformNet | str | Path, style: AnyStyle = None, *,
        strength: Number | str = 1.0, keep_colors: bool = False, size: int | None = None,
        device: str = "auto", backend: Backend = "auto", tile: Tiling = "auto",
        stroke: Stroke = "auto",
    ) -> None:  # fmt: skip
        self.allowed = adaptive.allowed_loss(strength)
        self.choice: adaptive.Choice | None = None
        if size is not None and size < 1:
            raise ValueError(f"size {size}: the longer side must be at least 1 pixel")
        check_stroke(stroke)
        self.painter = open_painter(network, backend, device)
        check_tiling(tile, self.painter.reach, self.painter.multiple)
        self.strength: Number = 1.0 if isinstance(strength, str) else strength
        self.keep_colors, self.size, self.tile = keep_colors, size, tile
        self.stroke = stroke
        self._bind(style)

    def _bind(self, style: AnyStyle) -> None:
        if self.painter.any_picture:
            paintings = pictures(style)
            total = sum(weight for _, weight in paintings.values())
            self.code = self.painter.encode_style(list(paintings.values()))
            self.mixture = {name: weight / total for name, (_, weight) in paintings.items()}
            return
        if not isinstance(style, str | Mapping | None):
            raise ValueError(
                f"style {type(style).__name__}: this network knows {', '.join(self.styles)}; a "
                "picture as the style needs a network for any painting"
            )
        try:
            self.code = self.painter.encode_style(style)
        except UnknownStyle as error:
            raise ValueError(f"{error}{elsewhere(error.name)}") from None
        self.mixture = {
            name: w for name, w in zip(self.styles, self.code[0].tolist(), strict=True) if w > 0
        }

    def bound(self, style: AnyStyle) -> "Stylizer":
        """Return a stylizer for another style, with the same options and the network shared.

        Raises:
            ValueError: an unknown style.
        """
        other = copy.copy(self)
        other._bind(style)
        return other

    def adapted(self, photo: Picture | Source) -> "Stylizer":
        """Return a stylizer with the strength chosen for a photo; itself if its strength is fixed.

        The content lost is measured on a small copy, which is painted at most six times. Three
        photos of 512 and 1024 pixels, painted whole, lost the same within 0.02.

        Raises:
            ValueError: the network is damaged.
        """
        if self.allowed is None:
            return self
        source = Floats(photo.pixels) if isinstance(photo, Picture) else photo
        small = source.reduced(adaptive.PIXELS).to(self.painter.device)
        if self.size is not None and self.size < max(small.shape[-2:]):
            small = images.resize(small, self.size)
        same, adapted = copy.copy(self), copy.copy(self)
        same.allowed = adapted.allowed = same.size = None
        same.tile = "never"
        with torch.inference_mode():
            content = adaptive.features(small)
            # One painting is enough where it is blended with the photo.
            full = None if self.painter.any_picture else same._paint(small)

            def lost(strength: float) -> float:
                same.strength = strength
                painting = same._paint(small) if full is None else small.lerp(full, strength)
                return float(adaptive.content_lost(adaptive.features(painting), content))

            adapted.choice = adaptive.chosen(lost, self.allowed)
        adapted.strength = adapted.choice.strength
        return adapted

    @property
    def styles(self) -> list[str]:
        """The names of the network's styles, in the network's order."""
        return list(self.painter.styles)

    def __call__(self, image: Any, style: AnyStyle = None) -> Any:
        """Return the stylized image, in the type of `image`.

        Args:
            image: one of
                a PIL image; the result is RGB or RGBA, in the same colour space;
                the path of a picture; the result is a PIL image;
                an array H×W×3, uint8 or float in [0, 1];
                a float tensor 3×H×W or B×3×H×W in [0, 1]; the result has its dtype and device;
                a list of these; the result is a list.
            style: another style for this call only, as in the constructor. The network is not
                loaded again.

        Raises:
            ValueError: another type, an unknown style, or a picture that cannot be read or does not
                fit in memory.
        """
        if style is not None:
            return self.bound(style)(image)
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
        """Read a picture: a `Picture` for `stylize`, or a `Scan` for `rows` if tiles are needed.

        The file is read only once, so it may be a pipe.

        Args:
            path: the file.
            data: the bytes of the file, if they have been read already.

        Raises:
            ImageError: as `read_image` and `read_scan` raise it.
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
        """Return the picture stylized, scaled to `size` if one is set.

        Alpha, colour profile and note are kept.

        Raises:
            ValueError: the picture does not fit in memory.
        """
        if self.allowed is not None:
            return self.adapted(picture).stylize(picture)
        with self.memory_explained(picture.pixels.shape[-2:]):
            fitted = picture if self.size is None else picture.resized(self.size)
            return replace(fitted, pixels=self._paint(fitted.pixels).cpu())

    def in_tiles(self, height: int, width: int) -> bool:
        """Whether a picture of this size needs tiles, before or after it is scaled to `size`.

        Such a picture is read as a `Scan` and painted by `rows`.
        """
        sides = (height, width) if self.size is None else images.scaled((height, width), self.size)
        return any(tile_side(self.tile, *shape) for shape in ((height, width), sides))

    def rows(self, scan: Scan, tell: Tell = lambda done, total: None) -> Iterator[Rows]:
        """Yield the stylized picture from top to bottom, in bands of rows, as they are painted.

        A band is a uint8 array h×W×3, or h×W×4 with alpha.

        Args:
            scan: the picture, already scaled to `size` (`read_scan` does that).
            tell: called after every tile, with the number of tiles done and of all tiles.

        Raises:
            ValueError: a tile does not fit in memory.
        """
        with self.memory_explained(scan.shape):
            tiles, paint = self.adapted(scan)._planned(scan)
            yield from paint_rows(scan, tiles, paint, tell)

    def _planned(self, source: Source) -> tuple[list[list[Tile]], Paint]:
        """Return the tiles of a picture, and the function that paints its parts."""
        if self._resizes_strokes(source.shape):
            return plan(*source.shape, AUTO_SIDE, BORDER), self._enlarging_painter(source)
        side = tile_side(self.tile, *source.shape) or max(source.shape)
        tiles = plan(*source.shape, side, self.painter.reach, self.painter.multiple)
        return tiles, self._part_painter(source, side)

    def _resizes_strokes(self, shape: tuple[int, int]) -> bool:
        """Whether a picture is painted at another size, to give its strokes the size asked for."""
        return self.strength > 0 and painted_side(self.stroke, max(shape)) != max(shape)

    def _enlarging_painter(self, source: Source) -> Paint:
        """Paint a picture at another size, and return what gives the parts of the resized one."""
        longer, (height, width) = max(source.shape), source.shape
        side = painted_side(self.stroke, longer)
        with torch.inference_mode():
            if side < longer:
                photo = source.reduced(max(1, round(height * width * (side / longer) ** 2)))
            else:
                photo = images.resize(source.crop(0, 0, height, width), side)
            same = copy.copy(self)
            same.keep_colors, same.size, same.stroke = False, None, "pixels"
            if not self.painter.any_picture:
                same.strength = 1.0  # the photo is blended in at the size of the result
            painting = same._paint(photo)
            if side > longer:
                painting, photo = (images.resize(x, longer) for x in (painting, photo))
            large = Enlarged.of(
                painting.to(self.painter.device), photo.to(self.painter.device), source.shape
            )

        def paint(part: Tensor, origin: tuple[int, int]) -> Tensor:
            with torch.inference_mode():
                part = part.to(self.painter.device)
                return self.finished(large.part(part, origin), part)

        return paint

    def _part_painter(self, source: Source, side: int) -> Paint:
        """Measure a picture's statistics, and return a function that paints its parts."""
        statistics, code = None, self.code
        if self.strength > 0:
            with torch.inference_mode():
                code = self.code_for(source.reduced(SIDE**2))
                statistics = statistics_of(
                    source, lambda whole: self.painter.statistics(whole, code), side
                )

        def paint(part: Tensor, origin: tuple[int, int]) -> Tensor:
            # Inference mode around the loop over tiles would also hold in the caller of `rows`,
            # a generator.
            with torch.inference_mode():
                return self._blended(part.to(self.painter.device), code, statistics, origin)

        return paint

    def _paint(self, content: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h2 w2"]:
        if self.allowed is not None:
            return torch.cat([self.adapted(Floats(x))._paint(x) for x in content.split(1)])
        with torch.inference_mode():
            content = content if self.size is None else images.resize(content, self.size)
        height, width = content.shape[-2:]
        if self._resizes_strokes((height, width)) or tile_side(self.tile, height, width):
            pictures = map(Floats, content.split(1))
            return torch.cat([paint_floats(each, *self._planned(each)) for each in pictures])
        with torch.inference_mode():
            here = content.to(self.painter.device, memory_format=torch.channels_last)
            painted = self._blended(here, self.code_for(here))
        # Copy outside of inference mode, because autograd refuses tensors that were made inside.
        return painted.clone(memory_format=torch.contiguous_format)

    def code_for(self, content: Tensor, code: Tensor | None = None) -> Tensor:
        """Return the code for photos, which at a strength below 1 is mixed with their own style.

        A network for any painting has learned to leave a photo in its own style as it is.

        Args:
            content: photos.
            code: the style; None: that of the stylizer.
        """
        code = self.code if code is None else code
        if not self.painter.any_picture or self.strength in (0, 1):
            return code
        own = [self.painter.encode_style([(photo, 1.0)]) for photo in content.split(1)]
        return torch.lerp(torch.cat(own), code, self.strength)

    def _blended(
        self,
        content: Tensor,
        code: Tensor,
        statistics: Tensor | None = None,
        origin: tuple[int, int] = (0, 0),
    ) -> Tensor:
        if self.strength == 0:
            return content
        stylized = self.painter.paint(content, code, statistics, origin)
        if not stylized.isfinite().all():
            raise ValueError(
                "the network paints what is no number: it is damaged, or of a run that failed"
            )
        return self.finished(stylized, content)

    def finished(self, stylized: Tensor, content: Tensor) -> Tensor:
        """Return the painting with the photo's colours and blended with the photo, as set."""
        if self.keep_colors:
            stylized = images.keep_colors(stylized, content)
        # Blending pixels lets the photo show through. A network for any painting paints a weaker
        # style instead (`code_for`), because it learned what changes nothing.
        if self.painter.any_picture:
            return stylized
        return stylized if self.strength == 1 else content.lerp(stylized, self.strength).clamp(0, 1)

    def _image(self, image: Image.Image) -> Image.Image:
        if not self.in_tiles(image.height, image.width):
            return self._drawn(images.from_pil(image))
        with self.memory_explained((image.height, image.width)):
            return self._drawn(scan(image, self.size))

    def _drawn(self, photo: Picture | Scan) -> Image.Image:
        if isinstance(photo, Picture):
            return images.to_pil(self.stylize(photo))
        with self.memory_explained(photo.shape):
            return collected(
                self.rows(photo), photo.image.mode, photo.image.size, photo.icc_profile
            )

    def _tensor(self, image: Tensor) -> Tensor:
        if image.ndim not in (3, 4) or image.shape[-3] != 3 or image.numel() == 0:
            raise ValueError(
                f"tensor of shape {tuple(image.shape)}: must be 3×H×W or B×3×H×W, not empty"
            )
        if not image.is_floating_point():
            raise ValueError(
                f"tensor of {image.dtype}: must be float in [0, 1]; divide 8-bit values by 255"
            )
        batch = _within_range(image if image.ndim == 4 else image[None])
        with self.memory_explained(batch.shape[-2:]):
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

    def memory_explained(self, shape: Sequence[int]) -> AbstractContextManager[None]:
        """Return a context that explains errors of memory, for a picture of height and width."""
        height, width = shape
        longer = self.size or max(height, width)
        side = tile_side(self.tile, *images.scaled((height, width), longer)) or longer
        least = least_side(self.painter.reach, self.painter.multiple)
        instead = f"work at a smaller size, such as --size {max(1, longer // 2)}"
        if least < side < longer:
            instead = f"paint smaller tiles, such as --tile {max(least, side // 2)}"
        return explained_memory(
            f"{width}×{height} pixels, longer side {longer}: does not fit in the memory of "
            f"{self.painter.device}; {instead}"
        )


def _within_range(image: Tensor) -> Tensor:
    """Return the image as float32 in [0, 1], clipped if it is outside by at most `_TOLERANCE`."""
    low, high = (float(value) for value in image.detach().float().aminmax())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # true for NaN too
        raise ValueError(
            f"values from {low:g} to {high:g}: must be in [0, 1]; divide 8-bit values by 255"
        )
    return image.detach().float().clamp(0, 1)
