"""Alpha: colours are mixed as Pillow mixes them, and what is hidden under alpha 0 changes nothing."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from impasto.commands.optimizing import brightness
from impasto.data.crops import center_crop
from impasto.images import from_pil, open_image, read_image, to_pil
from impasto.images.large import read_scan, scan
from impasto.images.transparency import fill_hidden
from impasto.inference import Stylizer
from impasto.networks import TransformNet

TILE = 112


def png(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def disc(hidden: tuple[int, int, int], shown: tuple[int, int, int] = (255, 255, 255), side: int = 200) -> Image.Image:
    """A disc with a hard edge; around it, colours under alpha 0."""
    image = Image.new("RGBA", (side, side), (*hidden, 0))
    ImageDraw.Draw(image).ellipse((20, 20, side - 20, side - 20), (*shown, 255))
    return image


def soft() -> Image.Image:
    """Smooth colours and alpha, hidden at some places."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 8, 4)).astype(np.uint8)
    image = Image.fromarray(noise[..., :3]).resize((160, 180), Image.Resampling.BICUBIC)
    alpha = Image.fromarray(noise[..., 3]).resize((160, 180), Image.Resampling.BICUBIC)
    image.putalpha(alpha.point(lambda level: max(0, min(255, 2 * level - 128))))
    return image


def on_white(image: Image.Image) -> np.ndarray:
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")).astype(int)


@pytest.mark.parametrize("tile", ["never", TILE])
@pytest.mark.parametrize("size", [77, 150, 290])
def test_a_white_disc_has_no_rim_at_any_size(network: TransformNet, size: int, tile: int | str) -> None:
    image = disc((0, 0, 0))
    found = Stylizer(network, strength=0, size=size, device="cpu", tile=tile)(image)
    assert on_white(image.resize((size, size), Image.Resampling.BICUBIC)).min() == 255
    assert on_white(found).min() == 255


@pytest.mark.parametrize("tile", ["never", TILE])
@pytest.mark.parametrize("size", [60, 130, 260])
def test_scaled_as_pillow_scales(network: TransformNet, size: int, tile: int | str) -> None:
    image = soft()
    found = Stylizer(network, strength=0, size=size, device="cpu", tile=tile)(image)
    expected = on_white(image.resize(found.size, Image.Resampling.BICUBIC))
    assert np.abs(on_white(found) - expected).max() <= 3  # Pillow rounds what is multiplied by alpha


@pytest.mark.parametrize("options", [{}, {"size": 130}, {"keep_colors": True, "strength": 0.7}], ids=str)
@pytest.mark.parametrize("tile", ["never", TILE])
def test_what_is_hidden_does_not_change_what_is_painted(
    network: TransformNet, tile: int | str, options: dict[str, object]
) -> None:
    stylize = Stylizer(network, device="cpu", tile=tile, **options)
    first, second = (stylize(disc(hidden, (90, 140, 60))) for hidden in ((0, 0, 0), (255, 0, 255)))
    assert first.mode == "RGBA" and first.tobytes() == second.tobytes()


READ: dict[str, Callable[[bytes], torch.Tensor]] = {
    "photo": lambda data: read_image("it", data).pixels,
    "painting": lambda data: read_image("it", data).resized(70).pixels,
    "scan": lambda data: read_scan("it", data).crop(0, 0, 200, 200),
    "scan made smaller": lambda data: read_scan("it", data, size=70).crop(0, 0, 70, 70),
    "what statistics are measured on": lambda data: read_scan("it", data).reduced(1000),
    "crop for training": lambda data: center_crop(open_image("it", data), 64),
}


@pytest.mark.parametrize("way", READ)
def test_hidden_colours_are_gone_wherever_pictures_are_read(way: str) -> None:
    first, second = (READ[way](png(disc(hidden, (90, 140, 60)))) for hidden in ((0, 0, 0), (255, 0, 255)))
    assert torch.equal(first, second)
    # What is shown spreads over the rest; at the rim, 8 bits that were multiplied by an alpha of 32 to 255 are coarse.
    apart = (first * 255 - torch.tensor([90.0, 140, 60]).view(3, 1, 1)).abs()
    assert apart.max() <= 9.01 and apart.mean() < 0.2


def test_a_hidden_value_of_sixteen_bits_is_gone_too() -> None:
    values = np.full((20, 20), 40000, np.uint16)
    files = []
    for key in (0, 65535):
        values[:8] = key
        files.append(png(Image.fromarray(values), transparency=key))
    first, second = (read_image("it", data) for data in files)
    assert torch.equal(first.pixels, second.pixels) and torch.equal(first.alpha, second.alpha)
    assert (first.pixels - 40000 / 65535).abs().max() < 0.5 / 255


def test_colours_spread_from_where_they_are_next() -> None:
    image = Image.new("RGBA", (300, 40), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 20, 40))
    image.paste((0, 0, 200, 128), (280, 0, 300, 40))
    before = image.tobytes()
    filled = np.asarray(fill_hidden(image)).astype(int)
    assert image.tobytes() == before
    assert np.array_equal(filled[..., 3], np.asarray(image)[..., 3])
    shown = filled[..., 3] > 0
    assert np.array_equal(filled[shown], np.asarray(image)[shown])
    assert filled[20, 24, 0] > filled[20, 24, 2] + 100 and filled[20, 275, 2] > filled[20, 275, 0] + 100
    assert filled[~shown][:, 1].max() == 0  # no colour that is nowhere


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_a_picture_that_is_hidden_throughout_is_read(mode: str) -> None:
    picture = from_pil(Image.new("RGBA", (5, 3), (9, 8, 7, 0)).convert(mode))
    assert picture.alpha is not None and picture.alpha.max() == 0 and picture.pixels.unique().numel() == 1


def test_what_is_seen_is_as_it_was() -> None:
    image = soft()
    for found in (to_pil(from_pil(image)), scan(image).image):
        seen = np.asarray(image)[..., 3] > 0
        assert np.array_equal(np.asarray(found)[seen], np.asarray(image)[seen]) and not seen.all()


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255)])
def test_a_mask_that_is_transparent_is_not_white_there(tmp_path, hidden: tuple[int, int, int]) -> None:
    disc(hidden).save(tmp_path / "mask.png")
    mask = brightness([str(tmp_path / "mask.png")], torch.zeros(1, 3, 200, 200))
    assert mask is not None and mask[0, 0, 100, 100] == 1 and mask[0, 0, 5, 5] == 0
