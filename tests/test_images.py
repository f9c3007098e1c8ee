"""Reading, writing and small operations on pictures, against Pillow's own results and hand-made files."""

import errno
import io
import os
import struct
import sys
import threading
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import ExifTags, Image, ImageChops, ImageCms, ImageFile, ImageOps
from torchvision.transforms.functional import pil_to_tensor

from impasto.choices import IMAGE_SUFFIXES
from impasto.images import (
    ImageError,
    Picture,
    from_pil,
    keep_colors,
    match_colors,
    read_image,
    resize,
    to_pil,
    write_image,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
CHROMINANCE = torch.tensor([[0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])


def noise(width: int = 7, height: int = 5, mode: str = "RGB") -> Image.Image:
    generator = torch.Generator().manual_seed(0)
    size = width * height * len(Image.new(mode, (1, 1)).getbands())
    data = torch.randint(0, 256, (size,), generator=generator).tolist()
    return Image.frombytes(mode, (width, height), bytes(data))


def levels(image: Image.Image) -> torch.Tensor:
    return pil_to_tensor(image)[None]


def bytes_of(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor * 255).round().to(torch.uint8)


def saved(folder: Path, name: str, image: Image.Image, **options: object) -> Path:
    image.save(folder / name, **options)
    return folder / name


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Reading


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(tmp_path, f"a.{suffix}", noise(), exif=exif)
    with Image.open(path) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert torch.equal(bytes_of(read_image(path).pixels), levels(expected))
    assert expected.size == ((7, 5) if orientation < 5 else (5, 7))


def test_damaged_exif_does_not_hide_the_pixels(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.png", noise(), exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01garbage")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = read_image(path)
    assert torch.equal(bytes_of(picture.pixels), levels(noise()))


def test_an_orientation_is_heeded_in_exif_that_pillow_cannot_write_again(tmp_path: Path) -> None:
    maker, orientation = struct.pack("<HHLf", 0x010F, 11, 1, 0.5), struct.pack("<HHLL", 0x0112, 3, 1, 6)
    path = saved(tmp_path, "a.png", noise(), exif=b"Exif\0\0II*\0\x08\0\0\0\x02\0" + maker + orientation + bytes(4))
    with Image.open(path) as image, pytest.raises(AttributeError):
        ImageOps.exif_transpose(image)
    assert torch.equal(bytes_of(read_image(path).pixels), levels(noise().transpose(Image.Transpose.ROTATE_270)))


def test_metadata_warnings_are_silent_and_filters_come_back(tmp_path: Path) -> None:
    broken = b"II*\0\x08\0\0\0" + struct.pack("<HHHLL", 1, 0x0112, 3, 9000, 9000) + b"\0\0\0\0"
    path = saved(tmp_path, "a.jpg", noise(), exif=b"Exif\0\0" + broken)
    with pytest.warns(UserWarning), Image.open(path) as image:
        image.getexif()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        assert read_image(path).pixels.shape == (1, 3, 5, 7)
        assert warnings.filters == before


def test_threads_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.png", noise())
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_image(path) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette(tmp_path: Path, mode: str) -> None:
    image = noise().convert(mode)
    picture = read_image(saved(tmp_path, "a.png", image))
    assert torch.equal(bytes_of(picture.pixels), levels(image.convert("RGB")))
    assert picture.alpha is None


def test_grey_with_alpha(tmp_path: Path) -> None:
    image = noise(mode="LA")
    picture = read_image(saved(tmp_path, "a.png", image))
    assert torch.equal(bytes_of(picture.pixels), levels(image)[:, :1].expand(1, 3, 5, 7))
    assert picture.alpha is not None
    assert torch.equal(bytes_of(picture.alpha), levels(image)[:, 1:])


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 128])])
def test_palette_with_transparency(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    picture = read_image(saved(tmp_path, "a.png", image, transparency=transparency))
    # Colours under alpha 0 are those around.
    between = [40, 50, 60] if isinstance(transparency, bytes) else bytes_of(picture.pixels)[0, :, 0, 1].tolist()
    assert bytes_of(picture.pixels)[0, :, 0].T.tolist() == [[10, 20, 30], between, [70, 80, 90]]
    assert picture.alpha is not None
    expected = [255, 0, 255] if transparency == 1 else [255, 0, 128]
    assert bytes_of(picture.alpha).flatten().tolist() == expected


VALUES = [0, 1, 255, 256, 32768, 65534, 65535]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_sixteen_bits_are_exact(tmp_path: Path, mode: str, suffix: str) -> None:
    order = ">" if mode.endswith("B") else "<"
    image = Image.frombytes(mode, (7, 1), struct.pack(f"{order}7H", *VALUES))
    picture = read_image(saved(tmp_path, f"a.{suffix}", image))
    assert torch.equal(picture.pixels, (torch.tensor(VALUES) / 65535).expand(1, 3, 1, 7))
    assert torch.equal(from_pil(image).pixels, picture.pixels)


def test_sixteen_bits_turned_and_with_a_transparent_value(tmp_path: Path) -> None:
    image = Image.frombytes("I;16", (7, 1), struct.pack("<7H", *VALUES))
    shown = torch.tensor([value != 256 for value in VALUES])
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture = read_image(saved(tmp_path, "a.png", image, transparency=256, exif=exif))
    assert torch.equal((picture.pixels[0, 0, :, 0] * 65535)[shown], torch.tensor(VALUES)[shown].float())
    assert picture.alpha is not None
    assert picture.alpha.flatten().tolist() == [1, 1, 1, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I", [0, 13107, 65535], [0, 0.2, 1]),
        ("I", [-5, 65536, 131072], [0, 0.5, 1]),
        ("F", [0.0, 0.25, 1.0], [0, 0.25, 1]),
        ("F", [0.0, 51.0, 255.0], [0, 0.2, 1]),
        ("F", [0.0, 13107.0, 65535.0], [0, 0.2, 1]),
        ("F", [float("nan"), -1.0, 0.5], [0, 0, 0.5]),
        ("F", [0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_integers_and_floats(tmp_path: Path, mode: str, values: list[float], expected: list[float]) -> None:
    image = Image.new(mode, (3, 1))
    image.putdata(values)
    picture = read_image(saved(tmp_path, "a.tif", image))
    assert torch.allclose(picture.pixels, torch.tensor(expected).float().expand(1, 3, 1, 3))


def cmyk_profile(lab: tuple[int, int, int]) -> bytes:
    """A least ICC profile for CMYK: a table (lut8) with one Lab colour for all inks, but black for full K."""
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = (
        b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + (bytes(lab) + bytes([0, 128, 128])) * 8 + ramp * 3
    )
    table += bytes(-len(table) % 4)
    tags = struct.pack(">L4sLL", 1, b"A2B0", 144, len(table))
    head = struct.pack(">L4sL4s4s4s12x4s", 144 + len(table), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    head += bytes(28) + struct.pack(">3L", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + tags + table


def test_cmyk_without_a_profile(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    picture = read_image(saved(tmp_path, "a.jpg", image, quality=100))
    assert (picture.pixels[0, :, 8, 8] - torch.tensor([0.0, 1.0, 1.0])).abs().max() < 0.02


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_goes_through_its_profile(tmp_path: Path, suffix: str) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    path = saved(tmp_path, f"a.{suffix}", image, icc_profile=cmyk_profile((136, 128, 128)))
    picture = read_image(path)
    # L* = 136 / 255 · 100 = 53.3 without colour is sRGB (127, 127, 127); without the profile it were cyan.
    assert (picture.pixels * 255 - 127).abs().max() <= 2
    assert picture.icc_profile is None


def test_cmyk_with_a_broken_profile_is_still_read(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    picture = read_image(saved(tmp_path, "a.tif", image, icc_profile=bytes(16) + b"CMYK" + bytes(200)))
    assert bytes_of(picture.pixels)[0, :, 0, 0].tolist() == [0, 255, 255]
    assert picture.icc_profile is None


def test_ycck_jpeg(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("CMYK", (16, 16), (100, 100, 100, 50)).save(stream, "JPEG", quality=100)
    data = bytearray(stream.getvalue())
    adobe = data.index(b"Adobe")
    assert data[adobe + 11] == 0
    data[adobe + 11] = 2  # what is stored, 155 for each ink, is now read as Y, Cb and Cr
    (tmp_path / "a.jpg").write_bytes(data)
    # Y = Cb = Cr = 155 give the inks (C = 155 + 1.402 · 27 and so on), each leaves 255 − ink, K leaves 205.
    ink = torch.tensor([155 + 1.402 * 27, 155 - (0.344136 + 0.714136) * 27, 155 + 1.772 * 27])
    expected = (255 - ink) / 255 * 205 / 255
    assert (read_image(tmp_path / "a.jpg").pixels[0, :, 8, 8] - expected).abs().max() < 0.02


@pytest.mark.parametrize(("mode", "space"), [("L", b"GRAY"), ("L", b"RGB "), ("RGB", b"GRAY"), ("RGB", b"CMYK")])
def test_profile_that_does_not_describe_rgb_is_dropped(tmp_path: Path, mode: str, space: bytes) -> None:
    profile = SRGB[:16] + space + SRGB[20:]
    path = saved(tmp_path, "a.png", Image.new(mode, (2, 2)), icc_profile=profile)
    assert Image.open(path).info["icc_profile"] == profile
    assert read_image(path).icc_profile is None


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_first_frame_of_several(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "lime", "blue")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path, f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    picture = read_image(path)
    assert torch.equal(bytes_of(picture.pixels), levels(frames[0]))
    assert picture.note == f"{'3 pages' if suffix == 'tif' else 'animated, 3 frames'}: the first is used"


def test_jpeg_with_a_preview_is_not_an_animation(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.mpo", noise(), save_all=True, append_images=[noise()])
    picture = read_image(path.rename(tmp_path / "a.jpg"))
    assert picture.pixels.shape == (1, 3, 5, 7)
    assert picture.note == ""


def test_from_pil_uses_the_current_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "lime", "blue")]
    with Image.open(saved(tmp_path, "a.gif", frames[0], save_all=True, append_images=frames[1:])) as image:
        image.seek(1)
        picture = from_pil(image)
    assert torch.equal(bytes_of(picture.pixels), levels(frames[1]))
    assert picture.note == "animated, 3 frames: number 2 is used"


WITH_ALPHA = ("RGBa", "PA")


@pytest.mark.parametrize("mode", ["RGBa", "RGBX", "YCbCr", "HSV", "LAB", "PA"])
def test_from_pil_converts_rare_modes(mode: str) -> None:
    image = Image.new("RGB", (3, 2), (10, 200, 60)).convert("RGBA").convert(mode) if mode in WITH_ALPHA else None
    image = image or Image.new(mode, (3, 2))
    assert torch.equal(bytes_of(from_pil(image).pixels), levels(image.convert("RGBA").convert("RGB")))


def test_from_pil_explains_a_closed_image(tmp_path: Path) -> None:
    image = Image.open(saved(tmp_path, "a.png", noise()))
    image.close()
    with pytest.raises(ImageError, match=r"a\.png: cannot be converted \("):
        from_pil(image)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_suffix_we_look_for_is_read(tmp_path: Path, suffix: str) -> None:
    if suffix in (".heic", ".heif", ".hif"):
        pytest.importorskip("pillow_heif").register_heif_opener()
    picture = read_image(saved(tmp_path, f"a{suffix}", Image.new("RGB", (4, 3), "red")))
    assert (picture.pixels - torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)).abs().max() < 0.02


# Refusals


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif", "gif"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path, f"a.{suffix}", noise(80, 60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "damaged" in refusal(path)


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.png").touch()
    assert refusal(tmp_path / "a.png") == "the file is empty, get it again"


def test_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("hello\n")
    assert refusal(tmp_path / "a.jpg").startswith("no image that can be read (JPEG, PNG")


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(struct.pack(">L8sL8s", 24, b"ftypmif1", 0, b"mif1heic") + bytes(40))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # not installed
    assert refusal(path) == (
        "HEIC is read where pillow-heif is installed: pip install pillow-heif, or convert the photo to JPEG"
    )
    path.write_bytes(struct.pack(">L8sL8s", 24, b"ftypmif1", 0, b"mif1avif") + bytes(40))
    assert "pillow-heif" not in refusal(path)  # AVIF, though damaged

    class Reader(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self) -> None:
            self._size, self._mode = (2, 1), "RGB"
            self.tile = [ImageFile._Tile("raw", (0, 0, 2, 1), 24, "RGB")]

    register = partial(Image.register_open, "HEIF", Reader)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register))
    path.write_bytes(struct.pack(">L8sL8s", 24, b"ftypheic", 0, b"mif1heic") + bytes([0, 51, 102, 153, 204, 255]))
    assert (read_image(path).pixels * 255).round()[0, :, 0].T.tolist() == [[0, 51, 102], [153, 204, 255]]


def test_postscript_is_not_handed_to_ghostscript(tmp_path: Path) -> None:
    assert refusal(saved(tmp_path, "a.eps", noise())).startswith("no image that can be read")


def test_missing_and_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.png") == "no such file"
    assert refusal(tmp_path) == "is a folder: give the name of an image file"
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file" / "a.png") == "a file is where its folder should be"


def test_permission_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(tmp_path / "a.png") == "permission denied"


def test_a_name_of_two_lines_is_reported_in_one(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a b\.png: no such file"):
        read_image(tmp_path / "a\nb.png")


@pytest.mark.parametrize("limit", [10, 34])  # Pillow itself refuses at 10, and only warns at 34
def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    path = saved(tmp_path, "a.png", noise())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refusal(path)
    assert message == f"more than {limit} pixels, refused as a decompression bomb: scale it down"


@pytest.mark.parametrize("limit", [35, None])
def test_no_bomb_at_the_limit_or_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int | None
) -> None:
    path = saved(tmp_path, "a.png", noise())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert read_image(path).pixels.shape == (1, 3, 5, 7)


def test_files_are_closed(tmp_path: Path) -> None:
    good = saved(tmp_path, "good.gif", noise(), save_all=True, append_images=[noise(mode="L")])
    bad = saved(tmp_path, "bad.png", noise(80, 60))
    bad.write_bytes(bad.read_bytes()[:500])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        read_image(good)
        refusal(bad)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Writing


def smooth(alpha: bool = False, profile: bytes | None = None) -> Picture:
    ramp = torch.linspace(0, 1, 16).expand(16, 16)
    pixels = torch.stack([ramp, ramp.T, 1 - ramp])[None]
    return Picture(pixels, (ramp.T[None, None] > 0.5).float() * 0.8 + 0.2 if alpha else None, profile)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "tif", "tiff"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    picture = smooth(profile=SRGB)
    write_image(tmp_path / "new" / f"a.{suffix}", picture)
    again = read_image(tmp_path / "new" / f"a.{suffix}")
    assert (again.pixels - picture.pixels).abs().max() < (0.0021 if suffix in ("png", "tif", "tiff") else 0.08)
    assert again.icc_profile == SRGB
    assert again.alpha is None
    assert names(tmp_path / "new") == [f"a.{suffix}"]


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "TIFF"])
def test_alpha_round_trip(tmp_path: Path, suffix: str) -> None:
    picture = smooth(alpha=True)
    write_image(tmp_path / f"a.{suffix}", picture)
    again = read_image(tmp_path / f"a.{suffix}")
    assert again.alpha is not None
    assert picture.alpha is not None
    assert torch.equal(bytes_of(again.alpha), bytes_of(picture.alpha))
    assert again.icc_profile is None


def test_jpeg_lies_on_white_in_full_resolution(tmp_path: Path) -> None:
    pixels, alpha = torch.zeros(1, 3, 16, 16), torch.full((1, 1, 16, 16), 0.25)
    write_image(tmp_path / "a.jpg", Picture(pixels, alpha, SRGB))
    again = read_image(tmp_path / "a.jpg")
    assert (again.pixels - 0.75).abs().max() < 0.01
    assert again.icc_profile == SRGB
    with Image.open(tmp_path / "a.jpg") as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # no subsampling of colour


def test_all_levels_survive(tmp_path: Path) -> None:
    values = torch.arange(256).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    write_image(tmp_path / "a.png", Picture(values / 255))
    assert torch.equal(levels(Image.open(tmp_path / "a.png")).long(), values)
    write_image(tmp_path / "b.png", read_image(tmp_path / "a.png"))
    assert torch.equal(levels(Image.open(tmp_path / "b.png")).long(), values)


def test_levels_are_rounded_and_limited() -> None:
    values = torch.tensor([-0.1, 0.49 / 255, 0.51 / 255, 254.6 / 255, 1.1])
    image = to_pil(Picture(values.expand(1, 3, 1, 5)))
    assert levels(image)[0, 0, 0].tolist() == [0, 0, 1, 255, 255]


def test_to_pil_and_back() -> None:
    picture = from_pil(noise(mode="RGBA"))
    image = to_pil(Picture(picture.pixels, picture.alpha, SRGB))
    assert image.mode == "RGBA"
    assert ImageChops.difference(image, noise(mode="RGBA")).getbbox(alpha_only=False) is None
    assert from_pil(image).icc_profile == SRGB


def write_refusal(path: Path, picture: Picture | None = None, overwrite: bool = False) -> str:
    with pytest.raises(ImageError) as caught:
        write_image(path, picture or smooth(), overwrite=overwrite)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_overwriting_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"precious")
    assert "pass --overwrite" in write_refusal(path)
    assert path.read_bytes() == b"precious"
    path.chmod(0o640)
    write_image(path, smooth(), overwrite=True)
    assert torch.equal(bytes_of(read_image(path).pixels), bytes_of(smooth().pixels))
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path = tmp_path / "a.png"
    save = Image.Image.save

    def slow_save(image: Image.Image, *args: object, **options: object) -> None:
        save(image, *args, **options)
        path.write_bytes(b"precious")

    monkeypatch.setattr(Image.Image, "save", slow_save)
    if not links:
        monkeypatch.setattr(os, "link", unsupported)
    assert "pass --overwrite" in write_refusal(path)
    assert path.read_bytes() == b"precious"
    assert names(tmp_path) == ["a.png"]


def unsupported(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", unsupported)
    write_image(tmp_path / "a.png", smooth())
    assert torch.equal(bytes_of(read_image(tmp_path / "a.png").pixels), bytes_of(smooth().pixels))
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failing_save_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(_: Image.Image, file: io.BufferedWriter, *__: object, **___: object) -> None:
        file.write(b"half")
        raise error

    (tmp_path / "a.png").write_bytes(b"precious")
    monkeypatch.setattr(Image.Image, "save", fail)
    if isinstance(error, OSError):
        assert write_refusal(tmp_path / "a.png", overwrite=True) == "No space left on device"
    else:
        with pytest.raises(KeyboardInterrupt):
            write_image(tmp_path / "a.png", smooth(), overwrite=True)
    assert (tmp_path / "a.png").read_bytes() == b"precious"
    assert names(tmp_path) == ["a.png"]


def test_the_mode_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_image(tmp_path / "a.png", smooth())
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "folder.png").mkdir()
    assert write_refusal(tmp_path / "file" / "a.png") == "a file is where its folder should be"
    assert write_refusal(tmp_path / "file" / "deep" / "a.png") == "a file is where its folder should be"
    assert "is a folder" in write_refusal(tmp_path / "folder.png", overwrite=True)
    assert names(tmp_path) == ["file", "folder.png"]


@pytest.mark.parametrize("name", ["a.gif", "a", ".png", "a.png.bak"])
def test_other_suffixes(tmp_path: Path, name: str) -> None:
    assert "choose one of .png, .jpg, .jpeg, .webp, .tif, .tiff" in write_refusal(tmp_path / name)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("name", "limit"), [("a.jpg", 65500), ("a.webp", 16383)])
def test_size_limits_of_formats(tmp_path: Path, name: str, limit: int) -> None:
    message = write_refusal(tmp_path / name, Picture(torch.zeros(1, 3, 1, limit + 1)))
    assert message.startswith(f"{limit + 1}×1 pixels")
    assert str(limit) in message
    write_image(tmp_path / name, Picture(torch.zeros(1, 3, 1, limit)))
    assert read_image(tmp_path / name).pixels.shape == (1, 3, 1, limit)


def test_an_upright_picture_is_written_without_the_old_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture = read_image(saved(tmp_path, "a.png", noise(), exif=exif))
    write_image(tmp_path / "b.png", picture)
    assert torch.equal(read_image(tmp_path / "b.png").pixels, picture.pixels)


# Operations


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [((40, 20), 10, (10, 5)), ((20, 40), 80, (40, 80)), ((1000, 1), 7, (7, 1)), ((5, 3), 1, (1, 1))],
)
def test_resize_shapes(shape: tuple[int, int], size: int, expected: tuple[int, int]) -> None:
    assert resize(torch.rand(2, 4, *shape), size).shape == (2, 4, *expected)


def test_resize_averages_and_stays_in_range() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 1, 64, 64)
    assert (resize(stripes, 8) - 0.5).abs().max() < 0.02  # without antialiasing: 0 or 1
    edge = (torch.arange(16) > 7).float().expand(1, 1, 16, 16)
    larger = resize(edge, 64)  # bicubic overshoots at the edge
    assert larger.min() == 0
    assert larger.max() == 1


def test_resize_to_the_same_size_changes_nothing() -> None:
    image = torch.rand(1, 3, 9, 4)
    assert torch.equal(resize(image, 9), image)


def test_resize_refuses_nothing_left() -> None:
    with pytest.raises(ImageError, match="size 0: must be at least 1"):
        resize(torch.rand(1, 3, 4, 4), 0)


def test_keep_colors_of_itself_is_itself() -> None:
    content = torch.rand(2, 3, 8, 8)
    assert torch.allclose(keep_colors(content, content), content)
    permuted = content + torch.tensor([0.114, 0.0, -0.299]).view(1, 3, 1, 1) * 0.1  # of equal luminance
    assert torch.allclose(keep_colors(permuted, content), content, atol=1e-6)


def test_keep_colors_takes_luminance_from_one_and_chrominance_from_the_other() -> None:
    generator = torch.Generator().manual_seed(0)
    stylized = 0.4 + 0.2 * torch.rand(2, 3, 8, 8, generator=generator)
    content = 0.4 + 0.2 * torch.rand(2, 3, 8, 8, generator=generator)
    result = keep_colors(stylized, content)
    chrominance = torch.einsum("oc,bchw->bohw", CHROMINANCE, result - content)
    assert chrominance.abs().max() < 1 / 255
    gray = torch.tensor([0.299, 0.587, 0.114])
    assert torch.einsum("c,bchw->bhw", gray, result - stylized).abs().max() < 1e-6


def test_keep_colors_stays_in_range() -> None:
    content = torch.rand(1, 3, 32, 32)
    result = keep_colors(torch.rand(1, 3, 32, 32).round(), content)
    assert result.min() >= 0 and result.max() <= 1
    difference = result - content
    assert (difference.amax(1) - difference.amin(1)).max() < 1e-6, "what would leave the range keeps its colour too"


def test_match_colors_takes_mean_and_covariance_over() -> None:
    generator = torch.Generator().manual_seed(0)
    mix = torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.7, 0.2], [0.1, 0.0, 0.5]])
    image = 0.4 + 0.1 * torch.rand(1, 3, 40, 30, generator=generator)
    like = 0.3 + torch.einsum("oc,bchw->bohw", mix, 0.2 * torch.rand(1, 3, 20, 25, generator=generator))
    matched = match_colors(image, like)
    assert torch.allclose(matched.mean((0, 2, 3)), like.mean((0, 2, 3)), atol=1e-3)
    assert torch.allclose(torch.cov(matched[0].flatten(1)), torch.cov(like[0].flatten(1)), atol=1e-4)
    assert torch.allclose(match_colors(like, like), like, atol=1e-3)
    assert match_colors(torch.full((1, 3, 4, 4), 0.5), like).isfinite().all()
