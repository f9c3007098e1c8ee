"""Contact sheets: many pictures in a grid, with labels."""

import math
import textwrap
from collections.abc import Sequence
from itertools import zip_longest

from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from impasto.images import ImageError, Picture, to_pil

_GAP = 8  # space between cells, in pixels
_LONGEST = 65_000  # longest side of a sheet, in pixels; a JPEG holds 65,500


def contact_sheet(
    rows: Sequence[Sequence[Float[Tensor, "1 3 _ _"]]],
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    cell: int = 256,
) -> Image.Image:
    """Return a grid of pictures on white.

    Args:
        rows: the pictures of each row, in [0, 1].
        row_labels: one label for each row, or none at all.
        column_labels: one label for each column, or none at all.
        cell: largest width and height of a picture, in pixels. It is reduced if the sheet would not
            fit into a JPEG.

    Raises:
        ImageError: there are no pictures, or the number of labels is wrong.
    """
    columns = max(map(len, rows), default=0)
    if (
        not columns
        or len(row_labels) not in (0, len(rows))
        or len(column_labels) not in (0, columns)
    ):
        labels = f"{len(row_labels)} and {len(column_labels)} labels"
        raise ImageError(
            f"contact sheet: {labels} for {len(rows)} rows, {columns} columns; give all or none"
        )
    # One row and one column hold the labels.
    cell = max(1, min(cell, _LONGEST // (1 + max(columns, len(rows))) - _GAP))
    grid = [[_label(text, cell) for text in column_labels]]
    for row in rows:
        grid.append([ImageOps.contain(to_pil(Picture(pixels)), (cell, cell)) for pixels in row])
    beside = [_label(text, cell) for text in ("", *(row_labels or [""] * len(rows)))]
    return _sheet([[label, *images] for label, images in zip(beside, grid, strict=True)])


def _label(text: str, width: int) -> Image.Image:
    """Return a text as an image, black on white, in lines of at most `width` pixels."""
    font = ImageFont.load_default(size=max(14, width // 16))
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    # Letters differ in width, so try ever fewer letters a line until the lines fit.
    for letters in range(max(1, len(text)), 0, -1):
        lines = "\n".join(textwrap.wrap(text, letters))
        right, bottom = map(math.ceil, draw.multiline_textbbox((0, 0), lines, font)[2:])
        if right <= width:
            break
    label = Image.new("RGB", (right, bottom), "white")
    ImageDraw.Draw(label).multiline_text((0, 0), lines, "black", font, align="center")
    return label


def _sheet(grid: list[list[Image.Image]]) -> Image.Image:
    """Return images of any size in rows and columns, each in the middle of its cell."""
    widths = [max(image.width for image in column if image) + _GAP for column in zip_longest(*grid)]
    heights = [max(image.height for image in row) + _GAP for row in grid]
    sheet = Image.new("RGB", (_GAP + sum(widths), _GAP + sum(heights)), "white")
    for y, row in enumerate(grid):
        for x, image in enumerate(row):
            left = sum(widths[:x]) + (_GAP + widths[x] - image.width) // 2
            top = sum(heights[:y]) + (_GAP + heights[y] - image.height) // 2
            sheet.paste(image, (left, top))
    return sheet
