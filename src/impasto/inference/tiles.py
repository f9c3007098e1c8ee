"""Pictures of any number of pixels, painted in tiles that join exactly.

Instance norm needs the mean and variance of the whole picture in every layer. They are measured once, on the picture
scaled down, and given to every tile (thumbnail instance normalization, Chen et al. 2022). What lies `reach` pixels
inside a part is then as in the whole under the same statistics, so tiles overlap by that, nothing is blended, and no
seam is left. At the outer edges of the picture, where the network reflects a margin itself, no overlap is needed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from impasto import images
from impasto.choices import Tiling
from impasto.images.large import Rows, Scan

WHOLE = 4_000_000  # pixels of the largest picture that auto paints whole: 3 GB of memory at width 32
# Of auto's tiles, in pixels: 1 GB, so that 100 megapixels, decoded, and collected to be written, stay below 3 GB.
# Overlap and margin make 1.4 times the arithmetic of the whole; 1408 would make 1.3.
SIDE = 1152
# Pixels of the picture that statistics are measured on, however small the tiles are. At 2048×1536 pixels, what gallery
# painted was 1.0 to 1.7 levels of 255 from the whole if measured on 2 megapixels, 3.2 to 4.7 on 1, 5.0 to 7.1 on ½.
MEASURED = 2_000_000

Box = tuple[int, int, int, int]  # top, left, bottom, right, the last two excluded
Paint = Callable[[Float[Tensor, "1 3 h w"], tuple[int, int]], Float[Tensor, "1 3 h w"]]  # a part, and its origin
Tell = Callable[[int, int], object]  # steps done, of how many


@dataclass(frozen=True)
class Floats:
    """A picture in memory, 1×3×H×W in [0, 1], which gives its parts as a `Scan` does."""

    pixels: Float[Tensor, "1 3 h w"]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.pixels.shape[-2:]
        return height, width

    def crop(self, top: int, left: int, bottom: int, right: int) -> Float[Tensor, "1 3 h w"]:
        """A part, not copied."""
        return self.pixels[..., top:bottom, left:right]

    def reduced(self, pixels: int) -> Float[Tensor, "1 3 h w"]:
        """The whole, scaled down to about that number of pixels, if it has more."""
        height, width = self.shape
        scale = min(1.0, (pixels / (height * width)) ** 0.5)
        return images.resize(self.pixels, max(1, round(max(height, width) * scale)))


Source = Floats | Scan


@dataclass(frozen=True)
class Tile:
    """A part to be painted, and what of it is kept, both in pixels of the whole picture."""

    painted: Box
    kept: Box

    def cut(self, part: Float[Tensor, "1 3 _ _"]) -> Float[Tensor, "1 3 h w"]:
        """The kept pixels of the painted ones."""
        (top, left, *_), (first, start, last, end) = self.painted, self.kept
        return part[..., first - top : last - top, start - left : end - left]


def least_side(reach: int) -> int:
    """Of the smallest tiles: half of their width is overlap, so a quarter of what is painted is kept."""
    return 4 * _fours(reach)


def check_tiling(tile: Tiling, reach: int) -> None:
    """`ValueError` for another word, or for tiles that are too small."""
    least = least_side(reach)
    if tile in ("auto", "never") or (isinstance(tile, int) and tile >= least):
        return
    raise ValueError(
        f"tile {tile}: must be auto, never, or a side of at least {least} pixels "
        f"(this network's tiles overlap by {least // 2})"
    )


def tile_side(tile: Tiling, height: int, width: int) -> int | None:
    """The side of the tiles for a picture; None: it is painted whole."""
    if isinstance(tile, int):
        return tile
    return SIDE if tile == "auto" and height * width > WHOLE else None


def plan(height: int, width: int, side: int, reach: int) -> list[list[Tile]]:
    """Tiles, row by row: the kept parts cover the picture once, the painted are at most `side` wide and high."""
    across = _spans(width, side, _fours(reach))
    return [
        [Tile((top, left, bottom, right), (first, start, last, end)) for left, right, start, end in across]
        for top, bottom, first, last in _spans(height, side, _fours(reach))
    ]


def _spans(length: int, side: int, reach: int) -> list[tuple[int, int, int, int]]:
    """Painted from and to, kept from and to: about equal, starting at multiples of four."""
    if length <= side:
        return [(0, length, 0, length)]
    inner = length - 2 * reach  # the first and the last keep `reach` more
    number = -(-inner // ((side - 2 * reach) // 4 * 4))
    step = _fours(-(-inner // number))
    painted = [(start, min(start + step + 2 * reach, length)) for start in range(0, inner, step)]
    return [(a, b, a + reach if a else 0, b - reach if b < length else length) for a, b in painted]


def _fours(pixels: int) -> int:
    """Up to a multiple of four, which the network's two halvings need."""
    return -(-pixels // 4) * 4


def statistics_of(
    source: Source, measure: Callable[[Float[Tensor, "1 3 h w"]], Tensor], side: int
) -> Float[Tensor, "1 s"] | None:
    """What the tiles have to know of the whole; None where one tile is the whole, and measures itself."""
    return None if max(source.shape) <= side else measure(source.reduced(max(MEASURED, side * side)))


def paint_rows(scan: Scan, tiles: list[list[Tile]], paint: Paint, tell: Tell) -> Iterator[Rows]:
    """The finished picture from top to bottom, one row of tiles at a time: h×W×3, or h×W×4 where it has alpha."""
    total, done = sum(map(len, tiles)), 0
    for row in tiles:
        top, _, bottom, _ = row[0].kept
        rows = np.empty((bottom - top, scan.shape[1], 3 + scan.transparent), np.uint8)
        for tile in row:
            part = tile.cut(paint(scan.crop(*tile.painted), tile.painted[:2]))
            rows[:, tile.kept[1] : tile.kept[3], :3] = images.to_levels(part)[0].permute(1, 2, 0).numpy()
            done += 1
            tell(done, total)
        if scan.transparent:
            rows[..., 3:] = scan.alpha(top, bottom)
        yield rows
        del rows  # or two rows of tiles would be held while the next is painted


def paint_floats(floats: Floats, tiles: list[list[Tile]], paint: Paint) -> Float[Tensor, "1 3 h w"]:
    """The finished picture, where and of what type the given one is."""
    whole = torch.empty_like(floats.pixels, memory_format=torch.contiguous_format)
    for tile in (tile for row in tiles for tile in row):
        top, left, bottom, right = tile.kept
        whole[..., top:bottom, left:right] = tile.cut(paint(floats.crop(*tile.painted), tile.painted[:2]))
    return whole
