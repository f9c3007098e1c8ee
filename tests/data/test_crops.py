"""Crops are squares by the generator alone, the same from pixels, from a file, or from a JPEG decoded in part."""

import io
from typing import Any

import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from impasto.data import crops
from impasto.data.crops import center_crop, crop
from impasto.data.sources import seeded
from impasto.images import ImageError, open_image, read_image


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def both(data: bytes, size: int, n: int) -> tuple[Tensor, Tensor]:
    """A crop of a file, and the same of all its pixels."""
    return (
        crop(open_image("it", data), size, seeded(n)),
        crop(read_image("it", data).pixels[0], size, seeded(n)),
    )


@pytest.mark.parametrize(("height", "width"), [(20, 20), (16, 90), (200, 33), (64, 48), (31, 32), (32, 32)])
def test_crops_are_square_in_range_and_never_invented(height: int, width: int) -> None:
    pixels = torch.rand(3, height, width, generator=seeded(height, width))
    for n in range(20):
        square = crop(pixels, 32, seeded(n))
        assert square.shape == (3, 32, 32)
        assert square.min() >= 0 and square.max() <= 1
    assert center_crop(pixels, 32).shape == (3, 32, 32)


def test_crops_vary_in_scale_place_and_mirroring() -> None:
    # Red grows to the right and green downwards, by 1 over the photo: slopes tell scale and mirroring.
    ramp = torch.linspace(0, 1, 200)
    pixels = torch.stack([ramp.expand(200, 200), ramp[:, None].expand(200, 200), torch.zeros(200, 200)])
    crops = torch.stack([crop(pixels, 32, seeded(n)) for n in range(200)])
    across = (crops[:, 0, 16, 24] - crops[:, 0, 16, 8]) / 16
    scales = 1 / across.abs()  # the shorter side before cropping
    assert scales.min() > 31 and scales.max() < 132 and scales.max() - scales.min() > 85
    assert 60 < (across < 0).sum() < 140
    assert (crops[:, 1, 24, 16] > crops[:, 1, 8, 16]).all()  # never upside down
    assert crops[:, 1, 16, 16].std() > 0.05


def test_the_centre_crop_is_the_middle() -> None:
    pixels = torch.zeros(3, 32, 96)
    pixels[:, :, 32:64] = 1
    assert torch.equal(center_crop(pixels, 32), torch.ones(3, 32, 32))


def test_a_photo_of_less_than_half_the_crop_is_refused() -> None:
    assert crop(torch.rand(3, 16, 50), 32, seeded(0)).shape == (3, 32, 32)
    for cut in (lambda pixels: crop(pixels, 32, seeded(0)), lambda pixels: center_crop(pixels, 32)):
        with pytest.raises(ImageError, match="is 50×15 pixels, too small for crops of 32: at least 16 needed"):
            cut(torch.rand(3, 15, 50))


COFFEE = Image.fromarray(skimage.data.coffee())  # 600×400
UPRIGHT, LYING, MIRRORED = ({"exif": Image.Exif()} for _ in range(3))
for options, orientation in ((UPRIGHT, 1), (LYING, 6), (MIRRORED, 7)):
    options["exif"][0x0112] = orientation
STORED = {
    "rgb": stored(COFFEE),
    "small": stored(COFFEE.resize((72, 50))),  # less than the crop
    "alpha": stored(Image.merge("RGBA", [*COFFEE.split(), COFFEE.getchannel("R")])),
    "palette": stored(COFFEE.quantize(64), transparency=3),
    "grey": stored(COFFEE.convert("L"), "JPEG", quality=98),
    "cmyk": stored(COFFEE.convert("CMYK"), "JPEG", quality=98),
    "odd": stored(COFFEE.crop((0, 0, 597, 397)), "JPEG", quality=98),  # sides that no reduction divides
    "upright": stored(COFFEE, "JPEG", quality=98, **UPRIGHT),
    "lying": stored(COFFEE, "JPEG", quality=98, **LYING),
    "mirrored": stored(COFFEE, "JPEG", quality=98, **MIRRORED),
    "deep": stored(Image.fromarray(torch.randint(2**16, (150, 200)).numpy().astype("uint16"))),
}


@pytest.mark.parametrize("kind", sorted(set(STORED) - {"alpha", "palette"}))
def test_a_file_gives_what_its_pixels_give(kind: str) -> None:
    jpeg = kind in ("grey", "cmyk", "odd", "upright", "lying", "mirrored")
    for n in range(12):
        ours, theirs = both(STORED[kind], 96, n)
        assert (ours - theirs).abs().mean() < 1.5 / 255  # edges of a JPEG decoded in part are softer
        assert jpeg or (ours - theirs).abs().max() < (1e-6 if kind == "deep" else 1.5 / 255)
    ours = center_crop(open_image("it", STORED[kind]), 96)
    theirs = center_crop(read_image("it", STORED[kind]).pixels[0], 96)
    assert (ours - theirs).abs().mean() < 1.5 / 255


@pytest.mark.parametrize("kind", ["alpha", "palette"])
def test_colours_are_weighed_with_alpha_and_hidden_ones_do_not_count(kind: str) -> None:
    image = Image.open(io.BytesIO(STORED[kind])).convert("RGBA").crop((100, 0, 500, 400))
    hidden = Image.composite(
        image, Image.new("RGBA", image.size, (255, 0, 255, 0)), image.getchannel("A").point([0] + [255] * 255)
    )
    assert hidden.tobytes() != image.tobytes()
    ours = center_crop(open_image("it", stored(image)), 96)
    assert torch.equal(ours, center_crop(open_image("it", stored(hidden)), 96))
    weighed = torch.tensor(list(image.resize((96, 96), Image.Resampling.BILINEAR).getdata())).T.reshape(4, 96, 96)
    seen = weighed[3] >= 32
    assert (ours * 255 - weighed[:3]).abs()[:, seen].max() <= 1


@pytest.mark.parametrize(("short", "factor"), [(400, 1), (201, 1), (200, 2), (101, 2), (100, 4), (51, 4), (50, 8)])
def test_a_jpeg_is_decoded_at_the_least_scale_that_is_enough(short: int, factor: int) -> None:
    image, extent = crops._reduced(open_image("it", STORED["lying"]), short)
    assert image.size == (400 // factor, 600 // factor) and extent == image.size
    assert min(image.size) >= short


def test_a_part_of_a_pixel_at_the_edge_of_a_reduced_jpeg_is_none_more() -> None:
    image, extent = crops._reduced(open_image("it", STORED["odd"]), 49)
    assert image.size == (75, 50) and extent == (597 / 8, 397 / 8)


def test_a_jpeg_that_ends_too_early_is_refused_at_any_scale() -> None:
    for size in (16, 300):
        with pytest.raises(ImageError, match=r"^image: damaged"):
            center_crop(open_image("it", STORED["upright"][:-4000]), size)
