"""One scene in several colour spaces is one picture inside, and goes back to its space: against published matrices,
Little CMS through Pillow's own functions, and numbers of the standards."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin

from impasto import commands as cli
from impasto.data.crops import center_crop
from impasto.images import colors, from_pil, open_image, read_image, write_image
from impasto.images.colors import matrix_profile
from impasto.images.large import read_scan
from impasto.inference import Stylizer
from impasto.networks import TransformNet, save_network

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
D65, D50 = (0.3127, 0.3290), (0.3457, 0.3585)
P3 = (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
ADOBE = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
PROPHOTO = (*D50, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
REC709 = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
# To XYZ under D50, as published: Lindbloom's tables; for P3, the columns of Apple's profile.
MATRICES = {
    "sRGB": [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]],
    "P3": [[0.515121, 0.291977, 0.157104], [0.241196, 0.692245, 0.066574], [-0.001053, 0.041885, 0.784073]],
    "Adobe": [[0.6097559, 0.2052401, 0.1492240], [0.3111242, 0.6256560, 0.0632197], [0.0194811, 0.0608902, 0.7448387]],
    "ProPhoto": [[0.7976749, 0.1351917, 0.0313534], [0.2880402, 0.7118741, 0.0000857], [0.0, 0.0, 0.8252100]],
}
SPACES = {  # matrix, gamma (None: of sRGB), profile, levels that 8 bits may cost
    "P3": ("P3", None, matrix_profile(P3, colors._SRGB_CURVE), 2),
    "Adobe": ("Adobe", 563 / 256, matrix_profile(ADOBE, colors._gamma(563 / 256)), 3),
    "ProPhoto": ("ProPhoto", 1.8, matrix_profile(PROPHOTO, colors._gamma(1.8)), 5),
    "linear": ("sRGB", 1.0, matrix_profile(REC709, colors._gamma(1.0)), 7),
}


def grey_profile(gamma: float) -> bytes:
    curve = struct.pack(">4s4xLHxx", b"curv", 1, round(gamma * 256))
    white = struct.pack(">4s4x3i", b"XYZ ", 0xF6D6, 0x10000, 0xD32D)
    tags = struct.pack(">L4sLL4sLL", 2, b"kTRC", 156, len(curve), b"wtpt", 156 + len(curve), len(white))
    head = struct.pack(">L4xL4s4s4s12x4s", 156 + 36, 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    head = head.ljust(68, b"\0") + white[8:]
    return head.ljust(128, b"\0") + tags + curve + white


GREY = grey_profile(1.5)


def linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def scene(height: int = 60, width: int = 80) -> np.ndarray:
    """Smooth colours inside sRGB, none of them dark: h×w×3 levels."""
    noise = np.random.default_rng(0).integers(60, 240, (6, 8, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)).clip(60, 240)


def encoded(levels: np.ndarray, space: str) -> Image.Image:
    """The scene in another space, by the published matrix."""
    matrix, gamma, profile, _ = SPACES[space]
    change = np.linalg.inv(MATRICES[matrix]) @ np.array(MATRICES["sRGB"])
    light = (linear(levels / 255) @ change.T).clip(0, 1)
    curved = (
        light ** (1 / gamma)
        if gamma
        else np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    )
    image = Image.fromarray((curved * 255).round().astype(np.uint8))
    image.info["icc_profile"] = profile
    return image


def as_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    return ImageCms.profileToProfile(image, io.BytesIO(profile), io.BytesIO(SRGB), outputMode="RGB")


def png(image: Image.Image, *chunks: tuple[bytes, bytes], **options: object) -> bytes:
    """A PNG with more chunks after the first."""
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    data = file.getvalue()
    more = b"".join(struct.pack(">L", len(d)) + n + d + struct.pack(">L", zlib.crc32(n + d)) for n, d in chunks)
    return data[:33] + more + data[33:]


def apart(pixels: torch.Tensor, levels: np.ndarray) -> float:
    return float(np.abs(pixels[0].permute(1, 2, 0).numpy() * 255 - levels).max())


@pytest.mark.parametrize("space", SPACES)
def test_a_scene_is_the_same_from_every_space(space: str) -> None:
    image, allowed = encoded(scene(), space), SPACES[space][3]
    assert np.abs(np.asarray(image).astype(int) - scene()).max() > 12  # what it was taken for
    data = png(image)
    assert apart(read_image("it", data).pixels, scene()) <= allowed
    assert apart(from_pil(image).pixels, scene()) <= allowed
    assert apart(read_scan("it", data).crop(0, 0, 60, 80), scene()) <= allowed
    crop = center_crop(open_image("it", data), 40) - center_crop(open_image("it", png(Image.fromarray(scene()))), 40)
    assert crop.abs().max() * 255 <= allowed + 1
    for mode in ("RGBA", "RGBX", "P"):
        if mode == "P":
            other = image.quantize(16)
            expected = np.asarray(
                ImageCms.profileToProfile(other.convert("RGB"), io.BytesIO(SPACES[space][2]), io.BytesIO(SRGB))
            )
        else:
            other, expected = image.convert(mode), scene()
        other.info["icc_profile"] = image.info["icc_profile"]
        assert apart(from_pil(other).pixels, expected) <= allowed, mode


@pytest.mark.parametrize(
    ("space", "suffix", "tile"),
    [("P3", "png", "never"), ("P3", "png", "112"), ("P3", "tif", "112"), ("P3", "jpg", "112"), ("P3", "webp", "never"),
     ("Adobe", "tif", "never"), ("Adobe", "png", "112"), ("ProPhoto", "jpg", "never"), ("ProPhoto", "png", "112")],
)  # fmt: skip
def test_photos_are_painted_as_in_srgb_and_written_in_their_own_space(
    network: TransformNet, tmp_path, monkeypatch, space: str, suffix: str, tile: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_network(tmp_path / "net.safetensors", network, styles=[{"name": "one"}])
    photos = {"own": encoded(scene(130, 120), space), "srgb": Image.fromarray(scene(130, 120))}
    found = {}
    for name, image in photos.items():
        image.save(f"{name}.png", icc_profile=image.info.get("icc_profile"))
        options = ["--network=net.safetensors", f"--tile={tile}", f"--output={name}_out.{suffix}", "--strength=0.3"]
        assert cli.run("infer", f"{name}.png", *options) == 0
        found[name] = Image.open(f"{name}_out.{suffix}")
    assert found["own"].info["icc_profile"] == photos["own"].info["icc_profile"]
    assert "icc_profile" not in found["srgb"].info
    difference = np.abs(np.asarray(as_srgb(found["own"], SPACES[space][2])).astype(int) - np.asarray(found["srgb"]))
    assert difference.mean() < 2 and difference.max() < (12 if suffix in ("png", "tif") else 40)


def test_what_eight_bits_of_a_space_do_not_hold_becomes_srgb(network: TransformNet) -> None:
    camera = matrix_profile(P3, colors._SRGB_CURVE, b"scnr")
    narrow = matrix_profile((*D65, 0.6, 0.34, 0.31, 0.56, 0.17, 0.1), colors._SRGB_CURVE)
    for profile in (SPACES["linear"][2], camera, narrow, GREY):
        image = Image.fromarray(scene()).convert("L" if profile is GREY else "RGB")
        image.info["icc_profile"] = profile
        assert from_pil(image).icc_profile is None
        assert "icc_profile" not in Stylizer(network, device="cpu")(image).info


@pytest.mark.parametrize("tile", ["never", 112])
def test_a_stylizer_returns_the_space_it_was_given(network: TransformNet, tile) -> None:
    image = encoded(scene(130, 120), "P3")
    image.putalpha(Image.linear_gradient("L").resize(image.size).point(lambda level: max(level, 1)))
    found = Stylizer(network, device="cpu", strength=0, tile=tile)(image)
    assert (
        found.info["icc_profile"] == SPACES["P3"][2]
        and found.getchannel("A").tobytes() == image.getchannel("A").tobytes()
    )
    assert np.abs(np.asarray(found).astype(int) - np.asarray(image)).max() <= 2


@pytest.mark.parametrize("mode", ["L", "LA", "I;16", "1"])
def test_greys_go_through_their_profile(mode: str) -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    expected = np.asarray(as_srgb(ramp, GREY))
    assert np.abs(expected[0, :, 0].astype(int) - np.arange(256)).max() > 20
    if mode == "I;16":
        image = Image.fromarray(np.arange(256, dtype=np.uint16)[None] * 257)
    elif mode == "1":
        image, expected = ramp.convert("1"), None
    else:
        image = ramp.convert(mode)
    image.info["icc_profile"] = GREY
    picture, whole = from_pil(image), read_scan("it", png(image, icc_profile=GREY)).crop(0, 0, 1, 256)
    for pixels in (picture.pixels, whole):
        assert apart(pixels, np.asarray(image.convert("RGB")) if expected is None else expected) <= 1
    assert (picture.alpha is not None) == (mode == "LA") and picture.icc_profile is None


def chrm(places: tuple[float, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8L", *(round(place * 100_000) for place in places))


def gama(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">L", round(gamma * 100_000))


def test_chunks_of_png() -> None:
    plain = Image.fromarray(scene())
    p3, adobe = (Image.fromarray(np.asarray(encoded(scene(), space))) for space in ("P3", "Adobe"))
    grey, dark = np.asarray(plain.convert("L")), Image.fromarray((linear(scene() / 255) * 255).round().astype(np.uint8))
    for data, expected, allowed in (
        (png(plain, gama(0.45455)), scene(), 0),  # how the second edition says sRGB
        (png(plain, gama(0.45455), chrm(REC709)), scene(), 0),
        (png(plain, gama(1.0), (b"sRGB", b"\0")), scene(), 0),
        (png(plain, chrm(P3)), scene(), 0),  # without a gamma, no space
        (png(plain, (b"cICP", bytes([1, 13, 0, 1]))), scene(), 0),
        (png(plain, (b"cICP", bytes([2, 2, 0, 1]))), scene(), 0),
        (png(p3, (b"cICP", bytes([12, 13, 0, 1]))), scene(), 2),
        (png(p3, (b"cICP", bytes([12, 13, 0, 1])), gama(1.0), icc_profile=SPACES["linear"][2]), scene(), 2),
        (png(adobe, gama(256 / 563), chrm(ADOBE)), scene(), 3),
        (png(dark, gama(1.0)), scene(), 7),
        (png(dark.convert("L"), gama(1.0)), np.asarray(dark.convert("L")), None),
        (png(plain.convert("L"), gama(0.45455)), grey[..., None].repeat(3, -1), 0),
    ):
        found = read_image("it", data).pixels
        if allowed is None:  # (v / 255) of linear light, by the formula
            light = expected / 255
            expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)[..., None].repeat(3, -1)
        assert apart(found, expected) <= (1 if allowed is None else allowed + 1e-4)
        assert apart(read_scan("it", data).crop(0, 0, 60, 80), expected) <= (1 if allowed is None else allowed + 1e-4)


def test_the_space_of_chunks_is_written_as_a_profile(tmp_path) -> None:
    p3 = Image.fromarray(np.asarray(encoded(scene(), "P3")))
    write_image(tmp_path / "a.png", read_image("it", png(p3, (b"cICP", bytes([12, 13, 0, 1])))))
    with Image.open(tmp_path / "a.png") as found:
        assert np.abs(np.asarray(found).astype(int) - np.asarray(p3)).max() <= 2
        own = ImageCms.ImageCmsProfile(io.BytesIO(found.info["icc_profile"])).profile
    (red, green, blue), expected = (own.red_colorant[0], own.green_colorant[0], own.blue_colorant[0]), MATRICES["P3"]
    assert np.allclose(np.stack([red, green, blue], 1), expected, atol=2e-3)


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.5807), (18, 0.7500)])  # 203 cd/m² in PQ and HLG (BT.2408)
def test_high_dynamic_range_is_clipped_at_the_white_of_a_page(transfer: int, white: float) -> None:
    levels = np.array([0, white / 2, white, 1.0]) * 255
    image = Image.fromarray(levels.round().astype(np.uint8)[None, :, None].repeat(3, -1))
    picture = read_image("it", png(image, (b"cICP", bytes([9, transfer, 0, 1]))))
    found = (picture.pixels[0, :, 0] * 255).T.tolist()
    assert found[0] == [0, 0, 0] and min(found[2]) >= 252 and found[3] == [255, 255, 255]
    assert 40 < found[1][0] < 200 and picture.icc_profile is None


def test_primaries_of_avif() -> None:
    file, p3 = io.BytesIO(), Image.fromarray(np.asarray(encoded(scene(), "P3")))
    p3.save(file, "AVIF", quality=100, subsampling="4:4:4")
    data = file.getvalue()
    at = data.index(b"colrnclx") + 8
    assert data[at : at + 4] == bytes([0, 1, 0, 13])
    as_p3 = data[:at] + bytes([0, 12]) + data[at + 2 :]
    assert apart(read_image("it", data).pixels, np.asarray(p3)) <= 4
    assert apart(read_image("it", as_p3).pixels, scene()) <= 5
    assert read_image("it", data).icc_profile is None and read_image("it", as_p3).icc_profile is not None


@pytest.mark.parametrize(
    ("space", "index", "adobe"), [(0xFFFF, "R03", True), (0xFFFF, "R98", False), (1, "R03", False)]
)
def test_cameras_mark_adobe_rgb_in_exif(space: int, index: str, adobe: bool) -> None:
    image, file = Image.fromarray(np.asarray(encoded(scene(), "Adobe"))), io.BytesIO()
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif).update({ExifTags.Base.ColorSpace: space, ExifTags.IFD.Interop: {1: index}})
    image.save(file, "JPEG", quality=100, subsampling=0, exif=exif)
    found = read_image("it", file.getvalue())
    assert apart(found.pixels, scene() if adobe else np.asarray(image)) <= 8
    assert (found.icc_profile is not None) == adobe
    assert apart(read_scan("it", file.getvalue()).crop(0, 0, 60, 80), scene() if adobe else np.asarray(image)) <= 8


@pytest.mark.parametrize("table", [(), tuple(round(65535 * (level / 255) ** 1.8) for level in range(256))])
def test_primaries_of_tiff(table: tuple[int, ...]) -> None:
    """Against the same space as an ICC profile; without a table TIFF means a gamma of 2.2."""
    image, file, tags = Image.fromarray(scene()), io.BytesIO(), TiffImagePlugin.ImageFileDirectory_v2()
    for tag, numbers in ((ExifTags.Base.WhitePoint, D50), (ExifTags.Base.PrimaryChromaticities, PROPHOTO[2:])):
        tags[tag] = tuple(TiffImagePlugin.IFDRational(round(number * 10_000), 10_000) for number in numbers)
    if table:
        tags.tagtype[ExifTags.Base.TransferFunction] = 3
        tags[ExifTags.Base.TransferFunction] = table * 3
    image.save(file, "TIFF", tiffinfo=tags)
    expected = as_srgb(image, matrix_profile(PROPHOTO, colors._gamma(1.8 if table else 2.2)))
    assert np.abs(np.asarray(expected).astype(int) - scene()).max() > 12
    assert apart(read_image("it", file.getvalue()).pixels, np.asarray(expected)) <= 2
    assert apart(read_scan("it", file.getvalue()).crop(0, 0, 60, 80), np.asarray(expected)) <= 2


def test_pictures_of_srgb_are_not_converted(monkeypatch) -> None:
    image = Image.fromarray(scene())
    assert colors.is_srgb(SRGB) and colors.is_srgb(matrix_profile(REC709, colors._SRGB_CURVE))
    monkeypatch.setattr(ImageCms, "applyTransform", lambda *_, **__: pytest.fail("converted"))
    for data in (png(image), png(image, icc_profile=SRGB)):
        picture = read_image("it", data)
        assert apart(picture.pixels, scene()) < 1e-4 and (picture.icc_profile or SRGB) == SRGB
    broken = SPACES["P3"][2][:200]
    assert apart(read_image("it", png(image, icc_profile=broken)).pixels, scene()) < 1e-4


@pytest.mark.parametrize("numbers", [[0] * 8, [0.3, 0.3] * 4, [0.3127, 0.329, *[0.5, 0.5] * 3], [40000.0] * 8])
def test_chromaticities_of_no_colours_are_passed_over(numbers: list[float]) -> None:
    data = png(Image.fromarray(scene()), gama(1.0), chrm(tuple(numbers)))
    assert apart(read_image("it", data).pixels, scene()) < 1e-4
    assert colors._of_gamma(1e-5, REC709) is None
