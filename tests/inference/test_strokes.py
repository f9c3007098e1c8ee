"""Strokes relative to the picture: the enlarged painting against Pillow's resampling, its parts against the whole."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from impasto import commands as cli
from impasto.images import Picture, from_pil, read_image, resize, to_pil, write_image
from impasto.images.large import scan
from impasto.inference import Stylizer
from impasto.inference.strokes import BORDER, STROKE_SIDE, Enlarged, painted_side
from impasto.networks import TransformNet, save_network

SHAPE = (203, 301)


def smooth(height: int, width: int, channels: int = 3) -> Tensor:
    """Smooth colours in [0, 1], without detail."""
    small = torch.rand(1, channels, 4, 5)
    return torch.nn.functional.interpolate(small, (height, width), mode="bicubic").clamp(0.1, 0.9)


@pytest.mark.parametrize(
    ("stroke", "longer", "side"),
    [("auto", 500, 500), ("auto", STROKE_SIDE, STROKE_SIDE), ("auto", 4000, STROKE_SIDE), ("pixels", 4000, 4000),
     (1.0, 4000, STROKE_SIDE), (2, 4000, STROKE_SIDE // 2), (2.0, 500, 250), (0.5, 4000, 2 * STROKE_SIDE),
     (10, 3, 1)],
)  # fmt: skip
def test_the_side_at_which_a_photo_is_painted(stroke, longer: int, side: int) -> None:
    assert painted_side(stroke, longer) == side


def test_without_detail_it_is_the_painting_as_pillow_enlarges_it() -> None:
    """Pillow's BICUBIC is the same cubic, of Catmull and Rom. At the border it takes fewer pixels, we repeat them."""
    inside = slice(12, -12)
    painting, photo = torch.rand(1, 3, 41, 60), torch.full((1, 3, 41, 60), 0.5)
    found = Enlarged.of(painting, photo, SHAPE).part(torch.full((1, 3, *SHAPE), 0.5), (0, 0))
    for channel, expected in zip(found[0], painting[0], strict=True):
        image = Image.fromarray(expected.numpy(), "F").resize(SHAPE[::-1], Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(image).clip(0, 1) - channel.numpy())[inside, inside].max() < 1e-4


def test_parts_are_those_of_the_whole() -> None:
    large = Enlarged.of(torch.rand(1, 3, 41, 60), torch.rand(1, 3, 41, 60), SHAPE)
    photo = torch.rand(1, 3, *SHAPE)
    whole = large.part(photo, (0, 0))
    part = large.part(photo[..., 50:120, 90:301], (50, 90))
    inside = (..., slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    torch.testing.assert_close(part[inside], whole[..., 50:120, 90:301][inside], rtol=0, atol=1e-6)


def test_edges_of_the_photo_are_as_crisp_as_the_photo_is() -> None:
    """A painting in the photo's lights and darks, of other colours, that has the photo's edge where it was small."""
    photo = torch.zeros(1, 3, 400, 400) + 0.2
    photo[..., 203:] = 0.8
    small = resize(photo, 50)
    painting = small * torch.tensor([0.5, 0.9, 0.3]).view(1, 3, 1, 1)
    large = Enlarged.of(painting, small, (400, 400))
    crisp, soft = large.part(photo, (0, 0)), large.part(resize(small, 400), (0, 0))
    steepest = [float((x[..., 1:] - x[..., :-1]).abs().max()) for x in (crisp, soft)]
    assert steepest[0] > 0.4 and steepest[1] < 0.15  # of the 0.54 that the painting's own step has


def test_noise_of_the_photo_is_left_out() -> None:
    photo = smooth(400, 400)
    small = resize(photo, 50)
    large = Enlarged.of(small, small, (400, 400))
    noisy = (photo + 0.01 * torch.randn_like(photo)).clamp(0, 1)
    assert (large.part(noisy, (0, 0)) - large.part(photo, (0, 0))).std() < 0.001


@pytest.mark.parametrize("stroke", [4.0, 0.5])
def test_the_picture_is_what_the_network_paints_at_that_size(network: TransformNet, stroke: float) -> None:
    content = smooth(160, 240)
    stylizer = Stylizer(network, stroke=stroke, device="cpu")
    painted = resize(Stylizer(network, stroke="pixels", device="cpu")(resize(content, round(240 / stroke))), 240)
    found = stylizer(content)
    assert found.shape == content.shape
    assert (found - painted).abs().mean() < 0.01
    assert (found - Stylizer(network, stroke="pixels", device="cpu")(content)).abs().mean() > 0.02
    assert torch.equal(Stylizer(network, stroke=stroke, strength=0.0, device="cpu")(content), content)


def test_small_pictures_are_painted_as_they_are(network: TransformNet) -> None:
    content = torch.rand(1, 3, 90, 130)
    assert torch.equal(*(Stylizer(network, stroke=stroke, device="cpu")(content) for stroke in ("auto", "pixels")))


@pytest.mark.parametrize("options", [{}, {"keep_colors": True, "strength": 0.6}])
def test_rows_of_a_large_photo_are_those_of_the_whole(network: TransformNet, options: dict) -> None:
    picture = Picture(smooth(160, 240), torch.rand(1, 1, 160, 240).round())
    stylizer = Stylizer(network, stroke=4.0, device="cpu", **options)
    rows = np.concatenate(list(stylizer.rows(scan(to_pil(picture)))))
    expected = np.asarray(to_pil(stylizer.stylize(from_pil(to_pil(picture)))))
    visible = expected[..., 3] > 0
    assert np.array_equal(rows[..., 3], expected[..., 3])
    apart = np.abs(rows[..., :3].astype(int) - expected[..., :3])[visible]
    assert apart.mean() < 0.5 and apart.max() <= 6  # a scan is scaled down in 8 bit, by averaging first


def test_the_command_names_results_by_it(network: TransformNet, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    save_network("n.safetensors", network)
    write_image("a.png", Picture(smooth(80, 120)))
    for stroke in ("auto", "2", "pixels"):
        assert cli.run("infer", "a.png", "--network", "n.safetensors", "--stroke", stroke, "--device", "cpu") == 0
    names = {path.name for path in (tmp_path / "stylized").iterdir()}
    assert names == {"a_n.png", "a_n_stroke-2.png", "a_n_stroke-pixels.png"}
    auto, pixels = (read_image(f"stylized/a_n{end}.png").pixels for end in ("", "_stroke-pixels"))
    assert torch.equal(auto, pixels)
    for stroke, message in (("0", "stroke 0"), ("-1", "stroke -1"), ("nan", "stroke nan"), ("large", "--stroke large")):
        capsys.readouterr()
        assert cli.run("infer", "a.png", "--network", "n.safetensors", "--stroke", stroke) == 2
        assert f"{message}" in capsys.readouterr().err
