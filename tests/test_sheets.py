"""Contact sheets: order, labels, refusals."""

import pytest
import torch

from impasto.images import ImageError
from impasto.images.sheets import contact_sheet


def test_contact_sheet_holds_the_pictures_in_order() -> None:
    colors = [[(255, 0, 0), (0, 255, 0)], [(0, 0, 255)]]
    rows = [[torch.tensor(c).view(1, 3, 1, 1).expand(1, 3, 8, 16) / 255 for c in row] for row in colors]
    sheet = contact_sheet(rows, cell=32)
    for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255)):
        assert sum(count for count, seen in sheet.getcolors() if seen == color) == 32 * 16  # aspect kept
    order = [color for color in sheet.get_flattened_data() if color != (255, 255, 255)]
    assert list(dict.fromkeys(order)) == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert sheet.getpixel((0, 0)) == (255, 255, 255)


def test_contact_sheet_labels_have_ink_and_stay_beside_the_pictures() -> None:
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    long = "a_file_name_without_any_space_that_is_wider_than_the_cell.jpg WWWWWWWWWWWWWWW"
    plain = contact_sheet([[red, red]], cell=96)
    labelled = contact_sheet([[red, red]], [long], ["photo", long], cell=96)
    assert labelled.width <= plain.width + 96
    assert labelled.height > plain.height
    counts = {color: count for count, color in labelled.getcolors(10**6)}
    assert counts[(255, 0, 0)] == 2 * 96 * 96  # no letter covers a picture
    assert counts[(0, 0, 0)] > 50


def test_many_pictures_are_made_smaller_so_that_a_jpeg_holds_the_sheet(tmp_path) -> None:
    dot = torch.zeros(1, 3, 4, 4)
    sheet = contact_sheet([[dot] * 300], column_labels=["x"] * 300, cell=256)
    assert 60_000 < sheet.width <= 65_500
    sheet.save(tmp_path / "sheet.jpg")


@pytest.mark.parametrize(
    ("rows", "row_labels", "column_labels"),
    [([], [], []), ([[]], [], []), ([[1]], ["a", "b"], []), ([[1]], [], ["a", "b"])],
)
def test_contact_sheet_refusals(rows: list[list[int]], row_labels: list[str], column_labels: list[str]) -> None:
    pictures = [[torch.zeros(1, 3, 2, 2) for _ in row] for row in rows]
    with pytest.raises(ImageError, match="contact sheet: "):
        contact_sheet(pictures, row_labels, column_labels)
