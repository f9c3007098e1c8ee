"""Scans against `read_image`, rows against `write_image`, and what is left of a file that was not finished."""

import resource
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms

from impasto import images
from impasto.images import ImageError, Picture, colors, read_image, resize, write_image
from impasto.images import large as scanlines
from impasto.images.large import Scan, read_scan, scan, write_rows
from impasto.writing import FileError

P3 = colors.matrix_profile((0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060), colors._gamma(2.2))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(width: int = 23, height: int = 17, mode: str = "RGB") -> Image.Image:
    data = np.random.default_rng(0).integers(0, 256, width * height * len(Image.new(mode, (1, 1)).getbands()))
    return Image.frombytes(mode, (width, height), data.astype(np.uint8).tobytes())


def bands(image: Image.Image, rows: int = 5) -> Iterator[np.ndarray]:
    levels = np.asarray(image)
    yield from (levels[top : top + rows] for top in range(0, len(levels), rows))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def sixteen_bits() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 65536, (17, 23)).astype("<u2")
    return Image.frombytes("I;16", (23, 17), values.tobytes())


def floats(white: float) -> Image.Image:
    """The brightest value is in the last row, and a missing one in the first."""
    values = np.linspace(0, white, 17 * 23, dtype=np.float32).reshape(17, 23)
    values[0, 0] = np.nan
    return Image.fromarray(values)


KINDS = {
    "rgb.png": (noise(), {"icc_profile": SRGB}),
    "rgba.png": (noise(mode="RGBA"), {}),
    "grey.png": (noise(mode="L"), {}),
    "grey_alpha.png": (noise(mode="LA"), {}),
    "palette.gif": (noise().quantize(16), {"transparency": 3}),
    "bits.png": (noise(mode="L").convert("1"), {}),
    "cmyk.jpg": (noise(mode="CMYK"), {"icc_profile": SRGB}),
    "deep.png": (sixteen_bits(), {}),
    "float.tif": (floats(0.8), {}),
    "bright.tif": (floats(3000.0), {}),
}


@pytest.mark.parametrize("strip", [4_000_000, 60])
@pytest.mark.parametrize("name", KINDS)
def test_a_scan_is_what_read_image_reads_in_eight_bits(tmp_path, monkeypatch, name, strip):
    monkeypatch.setattr(scanlines, "_STRIP", strip)
    image, options = KINDS[name]
    image.save(tmp_path / name, **options)
    expected, found = read_image(tmp_path / name), read_scan(tmp_path / name)
    height, width = found.shape
    pixels = found.crop(0, 0, height, width)
    torch.testing.assert_close(pixels, expected.pixels, atol=0.501 / 255, rtol=0)
    assert (found.icc_profile, found.note) == (expected.icc_profile, expected.note)
    assert found.transparent == (expected.alpha is not None)
    if found.transparent:
        assert np.array_equal(found.alpha(3, 9)[..., 0], images.to_levels(expected.alpha)[0, 0, 3:9].numpy())
    torch.testing.assert_close(found.crop(2, 5, 11, 20), pixels[..., 2:11, 5:20])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_scans_are_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    noise().save(tmp_path / "a.png", exif=exif)
    found, expected = read_scan(tmp_path / "a.png"), read_image(tmp_path / "a.png").pixels
    assert found.shape == expected.shape[-2:] and torch.equal(found.crop(0, 0, *found.shape), expected)


@pytest.mark.parametrize(("mode", "size"), [("RGB", 9), ("RGB", 60), ("RGBA", 9), ("RGBA", 23)])
def test_scaled_as_a_picture_is(tmp_path, mode, size):
    noise(mode=mode).point(lambda level: 64 + level // 2).save(tmp_path / "a.png")  # Pillow clips between its passes
    picture, found = read_image(tmp_path / "a.png").resized(size), read_scan(tmp_path / "a.png", size=size)
    atol = 4 if mode == "RGBA" else 1.6  # rounded twice; multiplied by alpha, that is more
    torch.testing.assert_close(found.crop(0, 0, *found.shape), picture.pixels, atol=atol / 255, rtol=0)
    if picture.alpha is not None:
        alpha = torch.from_numpy(found.alpha(0, found.shape[0])[..., 0] / 255).float()
        torch.testing.assert_close(alpha, picture.alpha[0, 0], atol=1.6 / 255, rtol=0)


def test_reduced_is_the_whole_antialiased():
    smooth = noise(8, 6).resize((160, 121), Image.Resampling.BICUBIC)
    small = Scan(smooth).reduced(40 * 30)
    assert small.shape == (1, 3, 30, 40)
    expected = resize(images.from_pil(smooth).pixels, 40)
    assert (small - expected).abs().mean() < 1.5 / 255
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (120, 80))).convert("RGB")
    assert (Scan(stripes).reduced(400) - 0.5).abs().max() < 0.1  # without antialiasing: 0.5
    assert torch.equal(Scan(smooth).reduced(10**6), images.from_pil(smooth).pixels)


def test_limits_in_pixels(tmp_path, monkeypatch):
    noise().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # far below: Pillow itself would refuse
    assert read_scan(tmp_path / "a.png").shape == (17, 23) and Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(ImageError, match=r"a.png: more than 100 pixels, refused as a decompression bomb"):
        read_image(tmp_path / "a.png")
    monkeypatch.setattr(scanlines, "LARGEST", 400)
    for largest in (390, 150):  # where Pillow would warn, and where it would refuse
        monkeypatch.setattr(scanlines, "LARGEST", largest)
        with pytest.raises(ImageError, match=f"a.png: more than {largest} pixels, refused"):
            read_scan(tmp_path / "a.png")
    monkeypatch.setattr(scanlines, "LARGEST", 1000)
    with pytest.raises(ImageError, match=r"a.png: 46×34 pixels at size 46, at most 1,000 can be made"):
        read_scan(tmp_path / "a.png", size=46)


def test_what_cannot_be_read_is_said_in_a_line(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    noise(90, 90).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:4000])
    for name in ("text.png", "cut.png", "gone.png"):
        with pytest.raises(ImageError, match=f"^{tmp_path / name}: [^\n]*$"):
            read_scan(tmp_path / name)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_rows_make_the_file_that_write_image_makes(tmp_path, suffix, mode):
    image = scan(noise(mode=mode)).image  # without hidden colours
    picture = images.from_pil(image)
    write_image(tmp_path / f"whole.{suffix}", Picture(picture.pixels, picture.alpha, P3))
    path = tmp_path / "new" / f"rows.{suffix}"
    write_rows(path, bands(image), image.size, alpha=mode == "RGBA", icc_profile=P3)
    assert path.read_bytes() == (tmp_path / f"whole.{suffix}").read_bytes() and names(tmp_path / "new") == [path.name]
    with Image.open(path) as written:
        assert written.info["icc_profile"] == P3 and written.mode == ("RGB" if suffix == "jpg" else mode)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (300, 250)], ids=str)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sizes_of_rows(tmp_path, suffix, size):
    image = noise(*size)
    write_rows(tmp_path / f"a.{suffix}", bands(image, 7), size)
    with Image.open(tmp_path / f"a.{suffix}") as found:
        assert np.array_equal(np.asarray(found), np.asarray(image)) and "icc_profile" not in found.info


def test_a_picture_that_does_not_fit_in_memory_is_said_in_a_line(tmp_path, monkeypatch):
    image = noise()
    monkeypatch.setattr(Image, "new", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(ImageError, match=r"a.png: 23×17 pixels do not fit in memory$"):
        write_rows(tmp_path / "a.png", bands(image), image.size)
    assert names(tmp_path) == []


def test_rows_are_not_kept(tmp_path):
    image, made = noise(), []

    def watched() -> Iterator[np.ndarray]:
        for band in bands(image):
            assert not any(earlier() is not None for earlier in made)
            band = band.copy()
            made.append(weakref.ref(band))
            yield band
            del band

    write_rows(tmp_path / "a.png", watched(), image.size, icc_profile=P3)
    assert len(made) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no memory"), RuntimeError("a bug")], ids=repr)
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_what_goes_wrong_while_rows_are_made_leaves_the_old_file_and_passes(tmp_path, suffix, error):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(b"precious")

    def failing() -> Iterator[np.ndarray]:
        yield from bands(noise(23, 10))
        raise error

    with pytest.raises(type(error)) as raised:
        write_rows(path, failing(), (23, 17), overwrite=True)
    assert raised.value is error
    assert path.read_bytes() == b"precious" and names(tmp_path) == [path.name]


@pytest.mark.parametrize("missing", [1, 60_000])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_a_full_disk_leaves_nothing_and_is_said_in_a_line(tmp_path, suffix, missing):
    """Also where it takes all but the last byte, which Pillow itself would not notice."""
    image, before = noise(400, 300), resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / f"a.{suffix}"
    write_rows(path, bands(image), image.size)
    size = path.stat().st_size
    path.unlink()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - missing, before[1]))
    try:
        with pytest.raises((ImageError, FileError), match=f"a.{suffix}: File too large$"):
            write_rows(path, bands(image), image.size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("a.gif", (5, 5), "suffix '.gif' cannot be written: choose one of .png, .jpg, .jpeg, .webp, .tif, .tiff"),
        ("there.png", (5, 5), "exists already: choose another name, or pass --overwrite to replace it"),
        ("a.jpg", (65501, 5), "65501×5 pixels, JPEG holds 65500 a side: use .png or .tif"),
        ("a.tif", (40000, 40000), "40000×40000 pixels, a TIFF holds 4 GB: use .png"),
        ("there.png/a.png", (5, 5), "a file is where its folder should be"),
    ],
)
def test_refusals_come_before_the_first_row(tmp_path, name, size, message):
    (tmp_path / "there.png").write_bytes(b"precious")
    rows = (pytest.fail("work was begun") for _ in range(1))
    with pytest.raises((ImageError, FileError)) as raised:
        write_rows(tmp_path / name, rows, size)
    assert str(raised.value) == f"{tmp_path / name}: {message}"
    assert names(tmp_path) == ["there.png"] and (tmp_path / "there.png").read_bytes() == b"precious"


def test_a_file_that_appears_meanwhile_is_not_lost(tmp_path):
    def slow() -> Iterator[np.ndarray]:
        yield from bands(noise())
        (tmp_path / "a.png").write_bytes(b"precious")

    with pytest.raises(FileError, match="exists already"):
        write_rows(tmp_path / "a.png", slow(), (23, 17))
    assert (tmp_path / "a.png").read_bytes() == b"precious" and names(tmp_path) == ["a.png"]


def test_an_open_image_is_scanned_as_it_is():
    image = noise(mode="RGBA").point(lambda level: max(level, 1))
    image.info["icc_profile"] = SRGB
    found = scan(image)
    assert found.image.tobytes() == image.tobytes() and found.icc_profile == SRGB
    assert scan(image, size=10).shape == (7, 10)
