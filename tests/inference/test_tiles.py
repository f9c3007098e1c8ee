"""Pictures in tiles are the pictures painted whole: exactly under the same statistics, nearly under a thumbnail's."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from pictures import OLD_NETWORK
from PIL import Image

from impasto import images
from impasto.images.large import scan
from impasto.inference import Stylizer, tiles
from impasto.inference.tiles import Floats, plan

SIDE = 112  # of tiles of `network`, whose reach is 26: 56 pixels of each are kept


def noise(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height + width))


def photo(side: int, mode: str = "RGB") -> Image.Image:
    data = pytest.importorskip("skimage.data")
    image = Image.fromarray(data.astronaut()).resize((side, side), Image.Resampling.BICUBIC)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize((side, side)))
    return image


def bend(painted: torch.Tensor, axis: int) -> torch.Tensor:
    """Mean absolute step from one row (-2) or column (-1) to the next."""
    return painted.diff(dim=axis).abs().mean(tuple(set(range(-4, 0)) - {axis}))


SHAPES = [(1, 1), (96, 96), (97, 96), (100, 400), (301, 413), (168, 169), (1000, 120)]


@pytest.mark.parametrize("reach", [28, 36, 68])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_plan_covers_every_pixel_once_and_keeps_only_what_is_exact(shape, reach):
    side = 2 * reach + 24
    count = np.zeros(shape, int)
    for tile in (tile for row in plan(*shape, side, reach) for tile in row):
        (top, left, bottom, right), (first, start, last, end) = tile.painted, tile.kept
        count[first:last, start:end] += 1
        assert top % 4 == 0 and left % 4 == 0 and 0 < bottom - top <= side and 0 < right - left <= side
        assert (first - top >= reach or first == top == 0) and (start - left >= reach or start == left == 0)
        assert bottom - last >= reach or bottom == last == shape[0]
        assert right - end >= reach or right == end == shape[1]
    assert count.min() == count.max() == 1


def test_rows_of_the_plan_go_down_and_none_is_almost_empty():
    rows = plan(9000, 12000, tiles.AUTO_SIDE, 68)
    edges = [(row[0].kept[0], row[0].kept[2]) for row in rows]
    assert edges[0][0] == 0 and edges[-1][1] == 9000
    assert all(before[1] == after[0] for before, after in pairwise(edges))
    heights = [row[0].painted[2] - row[0].painted[0] for row in rows]
    assert min(heights) > 0.95 * max(heights)
    overlap = sum(math.prod((t.painted[2] - t.painted[0], t.painted[3] - t.painted[1])) for r in rows for t in r)
    assert overlap < 1.35 * 9000 * 12000


@pytest.mark.parametrize("side", [SIDE, 200, 1000])
@pytest.mark.parametrize("shape", [(301, 213), (77, 300), (400, 1)], ids=str)
def test_tiles_under_the_statistics_of_the_whole_are_the_whole(network, shape, side):
    content = noise(*shape, batch=2)
    whole = Stylizer(network, device="cpu", tile="never")(content)
    tiled = Stylizer(network, device="cpu", tile=side)(content)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    assert whole.std() > 0.05 and tiled.is_contiguous() and not tiled.is_inference()


def test_without_the_overlap_they_are_not(network):
    content = noise(301, 213)
    stylizer = Stylizer(network, device="cpu", tile=SIDE)
    stylizer.painter.reach = 8
    whole = Stylizer(network, device="cpu", tile="never")(content)
    assert (stylizer(content) - whole).abs().max() > 1e-3


OPTIONS = [{"strength": 0.4}, {"strength": 0}, {"keep_colors": True}, {"size": 250}, {"size": 150, "strength": 0.5}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_work_in_tiles(network, options):
    content = noise(160, 230)
    whole = Stylizer(network, device="cpu", tile="never", **options)(content)
    tiled = Stylizer(network, device="cpu", tile=SIDE, **options)(content)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("options", [{}, {"strength": 0.4, "keep_colors": True, "size": 170}], ids=str)
def test_images_and_their_rows_are_those_painted_whole(network, mode, options):
    image = photo(200, mode)
    image.info["icc_profile"] = b"\0" * 16 + b"RGB " + b"\0" * 108
    whole = Stylizer(network, device="cpu", tile="never", **options)(image)
    stylizer = Stylizer(network, device="cpu", tile=SIDE, **options)
    tiled, steps = stylizer(image), []
    rows = list(stylizer.rows(scan(image, stylizer.size), lambda *step: steps.append(step)))
    assert (tiled.mode, tiled.size, tiled.info) == (mode, whole.size, whole.info)
    difference = np.abs(np.asarray(tiled).astype(int) - np.asarray(whole))
    # Scaled in 8 bit, where the whole is scaled as floats: the network makes more of a rounded level in flat areas.
    assert difference.max() <= (8 if "size" in options else 1) and difference.mean() < 0.6
    assert np.array_equal(np.concatenate(rows), np.asarray(tiled)) and len(rows) > 1
    assert steps == [(done, len(steps)) for done in range(1, len(steps) + 1)] and len(steps) > len(rows)


def test_arrays_in_tiles(network):
    levels = np.asarray(photo(200))
    whole = Stylizer(network, device="cpu", tile="never")(levels)
    tiled = Stylizer(network, device="cpu", tile=SIDE)(levels)
    assert tiled.dtype == np.uint8 and np.abs(tiled.astype(int) - whole).max() <= 1


def test_auto_tiles_what_is_large_and_no_more_than_a_tile_goes_through_the_network(network, monkeypatch):
    monkeypatch.setattr(tiles, "LARGEST_WHOLE", 150 * 150)
    monkeypatch.setattr(tiles, "AUTO_SIDE", SIDE)
    monkeypatch.setattr(tiles, "MEASURED_PIXELS", 100 * 100)
    auto, seen = Stylizer(network, device="cpu"), []
    auto.painter.network.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[-2:].numel()))
    auto(noise(150, 150))
    assert seen == [150 * 150] and not auto.in_tiles(150, 150)
    seen.clear()
    auto(noise(300, 400))
    assert auto.in_tiles(300, 400) and max(seen) <= SIDE * SIDE * 1.02 and len(seen) > 20
    assert Stylizer(network, device="cpu", size=50).in_tiles(151, 150)  # large before it is scaled
    assert Stylizer(network, device="cpu", size=500).in_tiles(20, 20)  # or after
    assert not Stylizer(network, device="cpu", tile="never").in_tiles(9000, 9000)


def test_larger_tiles_measure_more(network, monkeypatch):
    monkeypatch.setattr(tiles, "MEASURED_PIXELS", 1000)
    measured: list[torch.Tensor] = []
    for side in (76, 120):
        tiles.statistics_of(Floats(noise(200, 300)), lambda whole: measured.append(whole) or torch.zeros(1, 1), side)
        assert abs(math.sqrt(measured[-1].shape[-2:].numel()) - side) < 2


def test_a_thumbnail_measures_nearly_what_the_whole_does_and_no_border_shows(monkeypatch):
    """As a picture of 2048×1536 pixels, where borders had 1.001 and 0.999 of the steps that the whole has there."""
    image = photo(512)
    monkeypatch.setattr(tiles, "MEASURED_PIXELS", round(512 * 512 * tiles.MEASURED_PIXELS / (2048 * 1536)))
    content = images.from_pil(image).pixels
    whole = Stylizer(OLD_NETWORK, device="cpu", tile="never")(content)
    stylizer = Stylizer(OLD_NETWORK, device="cpu", tile=316)
    tiled = stylizer(content)
    assert 0 < (tiled - whole).abs().mean() <= 3 / 255  # 2 here; at 2048 pixels, less
    grid = plan(512, 512, 316, stylizer.painter.reach)
    for axis, edges in ((-2, [row[0].kept[0] for row in grid[1:]]), (-1, [tile.kept[1] for tile in grid[0][1:]])):
        # At small scale one line of pixels says little: against those of the picture without a border there.
        steps, elsewhere = bend(tiled, axis), bend(whole, axis)
        at = torch.tensor(edges) - 1
        assert abs(steps[at].mean() / elsewhere[at].mean() - steps.mean() / elsewhere.mean()) < 0.05


@pytest.mark.parametrize("tile", [0, -5, 111, True])
def test_tiles_that_are_too_small_are_refused(network, tile):
    with pytest.raises(ValueError) as raised:
        Stylizer(network, device="cpu", tile=tile)
    assert str(raised.value) == (
        f"tile {tile}: must be auto, never, or a side of at least 112 pixels (this network's tiles overlap by 56)"
    )


def test_out_of_memory_names_smaller_tiles(network, monkeypatch):
    stylizer = Stylizer(network, device="cpu", tile=300)
    monkeypatch.setattr(stylizer.painter.network, "forward", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    message = r"^500×250 pixels, longer side 500: does not fit .* cpu; paint smaller tiles, such as --tile 150$"
    for given in (noise(250, 500), Image.new("RGB", (500, 250))):
        with pytest.raises(ValueError, match=message):
            stylizer(given)
