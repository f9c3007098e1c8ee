"""A thumbnail tells pictures apart, whatever their size and compression; published networks carry theirs."""

import base64
import io

import numpy as np
import pytest
import torch
from pictures import draw
from PIL import Image

from impasto.images import Picture as Read
from impasto.images import from_pil, read_image, resize, to_pil
from impasto.images.paintings import checked, other_picture, thumbnail
from impasto.networks import load_network, published_networks


def test_a_thumbnail_is_the_mean_of_64_parts() -> None:
    """Against Pillow's box filter."""
    picture = draw(3, height=64, width=128)[None]
    small = np.asarray(to_pil(Read(picture)).resize((8, 8), Image.Resampling.BOX), dtype=float).transpose(2, 0, 1)
    found = np.frombuffer(base64.b64decode(thumbnail(picture)), np.uint8).reshape(3, 8, 8)
    assert np.abs(found - small).max() <= 1


def test_sizes_and_compression_make_no_other_picture_but_another_or_a_mirrored_one_is() -> None:
    for seed in range(5):
        picture = draw(seed, blur=1.5)[None]
        known = thumbnail(picture)
        file = io.BytesIO()
        to_pil(Read(resize(picture, 90))).save(file, "JPEG", quality=60)
        for same in (picture, resize(picture, 64), resize(picture, 300), from_pil(Image.open(file)).pixels):
            assert not other_picture(known, thumbnail(same))
        for other in (draw(seed + 10, blur=1.5)[None], picture.flip(3), 1 - picture, picture * 0.8):
            assert other_picture(known, thumbnail(other))


def test_flat_pictures_differ_by_their_colour() -> None:
    grey = torch.full((1, 3, 1, 1), 0.5)
    assert not other_picture(thumbnail(grey), thumbnail(grey.expand(1, 3, 40, 30)))
    assert other_picture(thumbnail(grey), thumbnail(grey + 0.05))


@pytest.mark.parametrize("known", [None, "", "AAAA", 3, ["x"], "é", "=" * 256])
def test_of_what_is_no_thumbnail_nothing_is_known(known: object) -> None:
    assert not other_picture(known, thumbnail(torch.zeros(1, 3, 4, 4)))


def test_published_networks_know_their_paintings(shared) -> None:
    files = {"great_wave": "hokusai_great_wave", "starry_night": "van_gogh_starry_night", "udnie": "picabia_udnie"}
    seen = {
        name: thumbnail(read_image(shared / "data" / "paintings" / f"{file}.jpg").pixels)
        for name, file in files.items()
    }
    styles = [style for name in published_networks() for style in load_network(name).metadata.get("styles", [])]
    assert len(styles) >= 15 and all(style["thumbnail"] for style in styles)
    for style in styles:
        for name, picture in seen.items():
            assert other_picture(style["thumbnail"], picture) == (style["name"] != name)


def test_a_field_of_an_unknown_style_is_no_style() -> None:
    """The parser makes this name of --model.styles.mine.image PICTURE where there is no style yet."""
    with pytest.raises(ValueError, match=r"style name 'mine\.image': begin with --model\.styles\.mine PICTURE"):
        checked({"mine.image": "a.png"})
