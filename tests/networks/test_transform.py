"""The transform network: sizes, range, styles, parts of a larger picture."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import OLD_NETWORK

from impasto.networks import TransformNet, load_network
from impasto.networks.layers import Moments
from impasto.networks.preprocess import canvas, without_grain
from impasto.networks.transform import MARGIN

SIZES = [(side, side) for side in (1, 2, 3, 5, 31, 97)] + [(98, 131), (513, 257), (1000, 3)]


SMALL: list[dict[str, Any]] = [  # for real time
    {"patch": 2, "kernel": 3, "separable": True, "padding": "zeros", "margin": 16},
    {"patch": 4, "kernel": 3, "separable": True, "padding": "zeros", "margin": 16},
    {"patch": 4, "kernel": 5, "margin": 8},
    {"kernel": 3, "separable": True},
]
FORMAT_1 = {"canvas": 6.0, "grain": 2.0, "upsampling": "bilinear_smoothed"}


def small(num_styles: int = 1, **before: Any) -> TransformNet:
    torch.manual_seed(0)
    network = TransformNet(num_styles, width=4, residual_blocks=1, **before).eval()
    for parameter in network.parameters():  # γ and β of the styles differ
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize("shape", [{}, *SMALL], ids=str)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_same_size_out_as_in(height: int, width: int, shape: dict[str, Any]) -> None:
    content = torch.rand(1, 3, height, width)
    with torch.no_grad():
        stylized = small(**shape)(content)
    assert stylized.shape == content.shape
    assert torch.isfinite(stylized).all() and stylized.min() >= 0 and stylized.max() <= 1


@pytest.mark.parametrize("before", [{}, FORMAT_1], ids=["plain", "format 1"])
def test_padding_is_by_reflection_a_margin_and_up_to_a_multiple_of_four(before: dict[str, Any]) -> None:
    network, content = small(**before), torch.rand(1, 3, 38, 41)
    for margin in (0, MARGIN):
        beneath = canvas(torch.arange(38), torch.arange(41), 6.0 if before else 3.0)
        x = (without_grain(content, 2.0) if before else content) + beneath
        x = torch.nn.functional.pad(x, (margin, margin + 3, margin, margin + 2), mode="reflect")
        for layer in network.layers:
            x = layer(x, torch.ones(1, 1))
        expected = torch.sigmoid(network.to_rgb(x))[..., margin : margin + 38, margin : margin + 41]
        torch.testing.assert_close(network(content, margin=margin), expected)


def test_a_photo_of_one_colour_is_painted_too() -> None:
    with torch.no_grad():
        painted = load_network("starry_night")(torch.zeros(1, 3, 128, 128))
    assert painted.std() > 10 / 255


@pytest.mark.parametrize("shape", [(1, 1), (5, 3)])
@pytest.mark.parametrize("name", ["starry_night", OLD_NETWORK], ids=str)
def test_rounding_does_not_decide_a_small_picture(name: str | Path, shape: tuple[int, int]) -> None:
    """Even of one colour: float32 paints what float64 does."""
    network, content = load_network(name), torch.full((1, 3, *shape), 0.4)
    with torch.no_grad():
        painted = network(content)
        exact = network.double()(content.double())
    assert (painted - exact).abs().max() < 1e-4


def test_one_hot_mixture_is_that_style_and_a_batch_may_mix() -> None:
    network, content = small(3), torch.rand(3, 3, 24, 24)
    with torch.no_grad():
        together = network(content, torch.eye(3))
        for i in range(3):
            alone = network(content[i : i + 1], torch.eye(3)[i : i + 1])
            torch.testing.assert_close(together[i : i + 1], alone)
        broadcast = network(content, torch.tensor([[0.5, 0.5, 0.0]]))
    assert not torch.allclose(together, broadcast)


def test_johnsons_network_has_johnsons_size() -> None:
    """1.68 M parameters: 9·9·3·32+32 … counted layer by layer, with two per channel for each norm."""
    convolutions = [(9, 3, 32), (3, 32, 64), (3, 64, 128), *[(3, 128, 128)] * 10, (3, 128, 64), (3, 64, 32), (9, 32, 3)]
    expected = sum(k * k * a * b + b for k, a, b in convolutions) + sum(2 * b for _, _, b in convolutions[:-1])
    assert sum(parameter.numel() for parameter in TransformNet().parameters()) == expected


@pytest.mark.parametrize("shape", [{}, *SMALL], ids=str)
def test_a_part_with_the_moments_of_the_whole_equals_the_whole(shape: dict[str, Any]) -> None:
    """Inside the part, further from its edge than `reach`."""
    network, content = small(2, **shape), torch.rand(1, 3, 160, 96)
    style = torch.tensor([[0.4, 0.6]])
    with torch.no_grad():
        moments = Moments()
        whole = network(content, style, moments=moments)
        torch.testing.assert_close(network(content, style, moments=Moments(moments.statistics)), whole)
        part = network(content[..., 32:, :], style, origin=(32, 0), moments=Moments(moments.statistics))
        alone = network(content[..., 32:, :], style, origin=(32, 0))
    edge = network.reach
    torch.testing.assert_close(part[..., edge:, :], whole[..., 32 + edge :, :], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone[..., edge:, :], whole[..., 32 + edge :, :], atol=1e-3)


@pytest.mark.parametrize("residual_blocks", [0, 2])
@pytest.mark.parametrize("before", [{}, {"upsampling": "bilinear"}, FORMAT_1, *SMALL], ids=str)
def test_reach_is_as_far_as_a_pixel_sees(residual_blocks: int, before: dict[str, Any]) -> None:
    """What changes one painted pixel, by the gradient, lies within `reach`, and at most three pixels short of it."""
    network = TransformNet(width=4, residual_blocks=residual_blocks, **before)
    content = torch.rand(1, 3, 160, 160)
    moments = Moments()
    network(content, moments=moments)
    farthest = 0
    for pixel in range(80, 84):  # of the four places on the grid of a quarter of the resolution
        content = content.detach().requires_grad_()
        painted = network(content, moments=Moments(moments.statistics.detach()))
        painted[0, :, pixel, pixel].sum().backward()
        assert content.grad is not None
        rows = content.grad[0].abs().sum((0, 2)).nonzero()
        farthest = max(farthest, pixel - int(rows.min()), int(rows.max()) - pixel)
    assert network.reach - 4 < farthest <= network.reach


def test_a_square_of_pixels_begins_alike_and_is_the_folded_convolution() -> None:
    """The last convolution, by hand: pixel (i, j) of a square is channel 3 · (4 · i + j) … of the square's position."""
    network, content = small(patch=4, kernel=3, canvas=0.0), torch.rand(1, 3, 16, 24)
    first, last = network.layers[0].convolution, network.to_rgb
    folded = torch.nn.functional.pixel_unshuffle(torch.nn.functional.pad(content, [4] * 4, mode="reflect"), 4)
    weight = first.weight.reshape(16, 3, 3, 4, 3, 4).permute(0, 1, 3, 5, 2, 4).reshape(16, 48, 3, 3)
    torch.testing.assert_close(first(content), torch.nn.functional.conv2d(folded, weight, first.bias))
    kept: list[torch.Tensor] = []
    painted = network(content, margin=0, kept=kept)
    features = last(kept[0])
    for i, j in ((0, 0), (1, 3), (3, 2)):
        here = features[:, [16 * colour + 4 * i + j for colour in range(3)]]
        torch.testing.assert_close(painted[..., i::4, j::4], torch.sigmoid(here))
    new = TransformNet(1, 4, 1, patch=4, kernel=3).to_rgb
    assert torch.equal(new.weight, new.weight[::16].repeat_interleave(16, 0)) and torch.equal(
        new.bias, new.bias[::16].repeat_interleave(16)
    )
    assert new.weight[0].std() > 0 and not torch.equal(new.weight[0], new.weight[16])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="none given, this network needs 2 weights"):
        small(2)(torch.rand(1, 3, 8, 8))
    with pytest.raises(ValueError, match="3 given, this network needs 2 weights"):
        small(2)(torch.rand(1, 3, 8, 8), torch.ones(1, 3))
    with pytest.raises(ValueError, match="width 0: must be at least 1"):
        TransformNet(width=0)
    with pytest.raises(ValueError, match="margin 6: must be 0 or a multiple of 4"):
        TransformNet(margin=6)
