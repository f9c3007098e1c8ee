"""Painting large pictures in tiles that join without seams.

Instance norm needs the mean and variance of the whole picture in every layer. These statistics are
measured once, on the picture scaled down, and used for every tile (thumbnail instance
normalization, Chen et al. 2022).

Pixels at least `reach` (`TransformNet.reach`) inside a tile are then the same as in the whole
picture painted with these statistics. So tiles overlap by `reach` on each side, which is cut off,
and nothing needs blending. There is no overlap at the outer edges of the picture, where the network
reflects a margin itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from impasto import images
from impasto.choices import Tiling
from impasto.images.large import Rows, Scan

# Number of pixels of the largest picture that `auto` paints whole. At width 32 it takes 3 GB.
LARGEST_WHOLE = 4_000_000
# Side, in pixels, of the tiles of `auto`. One takes 1 GB. A picture of 100 megapixels, decoded and
# collected for a JPEG, then stays below 3 GB. Overlap and margin cost 1.4 times the arithmetic of
# the whole; a side of 1408 would cost 1.3 times.
AUTO_SIDE = 1152
# Least number of pixels to which a picture is scaled down to measure its statistics. At 2048×1536
# pixels, the network `gallery` painted in tiles 1.0 to 1.7 of 255 levels differently from the whole
# with 2 megapixels, 3.2 to 4.7 with 1, and 5.0 to 7.1 with ½.
MEASURED_PIXELS = 2_000_000

Box = tuple[int, int, int, int]  # top, left, bottom, right; bottom and right are excluded
# Paints a part of a picture, given the part and its origin (top, left).
Paint = Callable[[Float[Tensor, "1 3 h w"], tuple[int, int]], Float[Tensor, "1 3 h w"]]
Tell = Callable[[int, int], object]  # called with the number of tiles done and of all tiles


@dataclass(frozen=True)
class Floats:
    """A picture in memory, 1×3×H×W in [0, 1], with the methods of a `Scan` for its parts."""

    pixels: Float[Tensor, "1 3 h w"]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.pixels.shape[-2:]
        return height, width

    def crop(self, top: int, left: int, bottom: int, right: int) -> Float[Tensor, "1 3 h w"]:
        """Return a part, as a view."""
        return self.pixels[..., top:bottom, left:right]

    def reduced(self, pixels: int) -> Float[Tensor, "1 3 h w"]:
        """Return the whole picture, scaled down to about `pixels` pixels if it has more."""
        height, width = self.shape
        scale = min(1.0, (pixels / (height * width)) ** 0.5)
        return images.resize(self.pixels, max(1, round(max(height, width) * scale)))


Source = Floats | Scan


@dataclass(frozen=True)
class Tile:
    """A part of a picture: the box to paint, and the smaller box to keep of it.

    Both boxes are in pixels of the whole picture.
    """

    painted: Box
    kept: Box

    def cut(self, part: Float[Tensor, "1 3 _ _"]) -> Float[Tensor, "1 3 h w"]:
        """Return the pixels to keep, cut from the painted ones."""
        (top, left, *_), (first, start, last, end) = self.painted, self.kept
        return part[..., first - top : last - top, start - left : end - left]


def least_side(reach: int, multiple: int) -> int:
    """Return the least side of a tile, in pixels, for a network's `reach` and `multiple`.

    Half of such a tile's width is overlap, so a quarter of the painted pixels is kept.
    """
    return 4 * _up(reach, multiple)


def check_tiling(tile: Tiling, reach: int, multiple: int) -> None:
    """Raise ValueError for an unknown word, or for tiles that are too small for a network."""
    least = least_side(reach, multiple)
    if tile in ("auto", "never") or (isinstance(tile, int) and tile >= least):
        return
    raise ValueError(
        f"tile {tile}: must be auto, never, or a side of at least {least} pixels "
        f"(this network's tiles overlap by {least // 2})"
    )


def tile_side(tile: Tiling, height: int, width: int) -> int | None:
    """Return the side of the tiles for a picture, in pixels; None: paint it whole."""
    if isinstance(tile, int):
        return tile
    return AUTO_SIDE if tile == "auto" and height * width > LARGEST_WHOLE else None


def plan(height: int, width: int, side: int, reach: int, multiple: int = 4) -> list[list[Tile]]:
    """Return the tiles for a picture, in rows from top to bottom.

    The kept boxes cover every pixel once. The painted boxes are at most `side` wide and high, and
    begin at multiples of `multiple` pixels (`TransformNet.multiple`).
    """
    across = _spans(width, side, _up(reach, multiple), multiple)
    return [
        [
            Tile((top, left, bottom, right), (first, start, last, end))
            for left, right, start, end in across
        ]
        for top, bottom, first, last in _spans(height, side, _up(reach, multiple), multiple)
    ]


def _spans(length: int, side: int, reach: int, multiple: int) -> list[tuple[int, int, int, int]]:
    """Split one axis into spans: (painted start, painted end, kept start, kept end).

    Spans are about equally long, and painted ones start at multiples of `multiple`.
    """
    if length <= side:
        return [(0, length, 0, length)]
    inner = length - 2 * reach  # the first and the last span keep `reach` more at the outer edges
    number = -(-inner // ((side - 2 * reach) // multiple * multiple))
    step = _up(-(-inner // number), multiple)
    painted = [(start, min(start + step + 2 * reach, length)) for start in range(0, inner, step)]
    return [(a, b, a + reach if a else 0, b - reach if b < length else length) for a, b in painted]


def _up(pixels: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-pixels // multiple) * multiple


def statistics_of(
    source: Source, measure: Callable[[Float[Tensor, "1 3 h w"]], Tensor], side: int
) -> Float[Tensor, "1 s"] | None:
    """Return the statistics of a picture for its tiles; None if a single tile covers it.

    Args:
        source: the picture.
        measure: returns the statistics of a picture, such as `TorchPainter.statistics`.
        side: side of the tiles; the picture is not measured at fewer pixels than a tile has.
    """
    return (
        None
        if max(source.shape) <= side
        else measure(source.reduced(max(MEASURED_PIXELS, side * side)))
    )


def paint_rows(scan: Scan, tiles: list[list[Tile]], paint: Paint, tell: Tell) -> Iterator[Rows]:
    """Yield the painted picture from top to bottom, one row of tiles at a time.

    Args:
        scan: the picture.
        tiles: its tiles, as `plan` returns them.
        paint: paints a part.
        tell: called after every tile.

    Yields:
        uint8 arrays h×W×3, or h×W×4 if the scan has alpha.
    """
    total, done = sum(map(len, tiles)), 0
    for row in tiles:
        top, _, bottom, _ = row[0].kept
        rows = np.empty((bottom - top, scan.shape[1], 3 + scan.transparent), np.uint8)
        for tile in row:
            part = tile.cut(paint(scan.crop(*tile.painted), tile.painted[:2]))
            rows[:, tile.kept[1] : tile.kept[3], :3] = (
                images.to_levels(part)[0].permute(1, 2, 0).numpy()
            )
            done += 1
            tell(done, total)
        if scan.transparent:
            rows[..., 3:] = scan.alpha(top, bottom)
        yield rows
        del rows  # otherwise memory would hold two rows of tiles while the next is painted


def paint_floats(floats: Floats, tiles: list[list[Tile]], paint: Paint) -> Float[Tensor, "1 3 h w"]:
    """Return the painted picture, with the device and dtype of the given one."""
    whole = torch.empty_like(floats.pixels, memory_format=torch.contiguous_format)
    for tile in (tile for row in tiles for tile in row):
        top, left, bottom, right = tile.kept
        whole[..., top:bottom, left:right] = tile.cut(
            paint(floats.crop(*tile.painted), tile.painted[:2])
        )
    return whole
