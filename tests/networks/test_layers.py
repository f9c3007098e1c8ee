"""Conditional instance norm against torch's own, and mixtures."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from impasto.networks.layers import (
    ConditionalInstanceNorm,
    ConvNormRelu,
    Moments,
    ResidualBlock,
    smoothed,
)


def random_norm(channels: int, num_styles: int) -> ConditionalInstanceNorm:
    norm = ConditionalInstanceNorm(channels, num_styles)
    nn.init.normal_(norm.gamma)
    nn.init.normal_(norm.beta)
    return norm


def test_one_style_is_torchs_affine_instance_norm() -> None:
    norm = random_norm(5, 1)
    reference = nn.InstanceNorm2d(5, affine=True)
    reference.weight.data, reference.bias.data = norm.gamma.data[0], norm.beta.data[0]
    x = torch.randn(3, 5, 7, 9) * 4 + 2
    torch.testing.assert_close(norm(x, torch.ones(1, 1)), reference(x), rtol=1e-5, atol=1e-5)


def test_mixture_is_linear_in_gamma_and_beta() -> None:
    norm = random_norm(4, 3)
    x = torch.randn(1, 4, 6, 6)
    parts = [norm(x, torch.eye(3)[i : i + 1]) for i in range(3)]
    weights = torch.tensor([[0.2, 0.5, 0.3]])
    torch.testing.assert_close(norm(x, weights), sum(w * part for w, part in zip(weights[0], parts, strict=True)))


def test_each_picture_of_a_batch_has_its_own_style() -> None:
    norm = random_norm(4, 2)
    x = torch.randn(2, 4, 5, 5)
    together = norm(x, torch.eye(2))
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], norm(x[i : i + 1], torch.eye(2)[i : i + 1]))


def test_statistics_are_float32_under_autocast() -> None:
    """A mean of 4,096 half-precision values near 30, whose steps are 0.125, to a thousandth."""
    norm = random_norm(4, 1)
    x = (torch.randn(1, 4, 64, 64) + 30).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        variance, mean = Moments()(x)
        found = norm(x, torch.ones(1, 1))
    assert found.dtype == torch.bfloat16 and variance.dtype == mean.dtype == torch.float32
    exact = torch.var_mean(x.double(), dim=(2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(mean.double(), exact[1], rtol=0, atol=1e-3)
    torch.testing.assert_close(variance.double(), exact[0], rtol=1e-3, atol=0)


def test_a_constant_picture_stays_finite() -> None:
    assert torch.isfinite(random_norm(2, 1)(torch.full((1, 2, 1, 1), 0.7), torch.ones(1, 1))).all()


@pytest.mark.parametrize("block", [ConvNormRelu(4, 4, 3, 2), ResidualBlock(4, 2)])
def test_gradients(block: nn.Module) -> None:
    torch.manual_seed(0)
    block = block.double()
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    style = torch.tensor([[0.3, 0.7], [1.0, 0.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: block(x, style), x)
    gammas = [p for name, p in block.named_parameters() if "norm" in name]
    assert torch.autograd.gradcheck(lambda *_: block(x, style), gammas)


def test_the_gradient_of_a_part_leaves_the_given_moments() -> None:
    norm, x = random_norm(3, 1).double(), torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    statistics = torch.rand(1, 6, dtype=torch.float64) + 0.5
    assert torch.autograd.gradcheck(lambda x: norm(x, torch.ones(1, 1).double(), Moments(statistics)), x)


def test_a_layer_keeps_two_tensors_of_its_size_for_the_gradient() -> None:
    """What its convolution reads, and what it gives; under autocast in half precision."""
    kept: dict[int, int] = {}

    def pack(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    layer, x = ConvNormRelu(8, 8, 3, 1), torch.rand(1, 8, 64, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), torch.autocast("cpu", torch.bfloat16):
        layer(layer(x, torch.ones(1, 1)), torch.ones(1, 1))
    assert sum(kept.values()) < 4.4 * x.numel() * 2


def test_upsampling_is_a_binomial_filter() -> None:
    """One pixel becomes 1 5 10 10 5 1 (sixteenths) both ways: doubled, then four times the mean of neighbours."""
    picture = torch.zeros(1, 2, 5, 5)
    picture[:, 1, 2, 2] = 1
    doubled = smoothed(F.interpolate(picture, scale_factor=2, mode="bilinear"))
    line = torch.tensor([0, 0, 1, 5, 10, 10, 5, 1, 0, 0]) / 16
    assert torch.allclose(doubled[0, 1], torch.outer(line, line), atol=1e-6) and not doubled[0, 0].any()
    assert torch.allclose(smoothed(torch.full((1, 3, 2, 7), 0.3)), torch.tensor(0.3))
