"""Each hand-written kernel against its plain formula: values, and gradients in float64."""

import pytest
import torch
from torch.nn import functional as F

from impasto.kernels import by_columns, normalized, reflected, square_products
from impasto.networks.layers import Convolution


@pytest.mark.parametrize("border", [1, 3])
def test_reflection_is_torchs_with_its_gradient(border: int) -> None:
    """A border may be wider than half the picture: then a pixel goes to both sides."""
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(reflected(x, border), F.pad(x, [border] * 4, mode="reflect"), rtol=0, atol=0)
    assert torch.autograd.gradcheck(lambda x: reflected(x, border), x)


def test_by_columns_is_the_convolution_with_its_gradients() -> None:
    torch.manual_seed(0)
    module, x = Convolution(5, 3, 9), torch.randn(2, 5, 12, 17, requires_grad=True)
    wanted, found = module(x), by_columns(module, x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    upstream, of = torch.randn_like(wanted), [x, *module.parameters()]
    for a, b in zip(*(torch.autograd.grad(y, of, upstream) for y in (found, wanted)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert by_columns(module, x).dtype == torch.float32
        torch.testing.assert_close(by_columns(module, x), wanted, rtol=0, atol=0.02)


@pytest.mark.parametrize("relu", [False, True])
def test_normalized_is_its_formula_with_its_gradients(relu: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    gamma, beta = (torch.randn(2, 3, 1, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    upstream = torch.randn_like(x)

    def plain() -> torch.Tensor:
        variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        y = (x - mean) * torch.rsqrt(variance + 1e-5) * gamma + beta
        return y.relu() if relu else y

    def ours() -> torch.Tensor:
        with torch.no_grad():
            variance, mean = torch.var_mean(x, dim=(2, 3), correction=0, keepdim=True)
        return normalized(x, gamma, beta, mean, torch.rsqrt(variance + 1e-5), relu, measured=True)

    torch.testing.assert_close(ours(), plain())
    for a, b in zip(*(torch.autograd.grad(f(), [x, gamma, beta], upstream) for f in (ours, plain)), strict=True):
        torch.testing.assert_close(a, b)


def test_square_products_are_a_matrix_product_with_its_gradient() -> None:
    features = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    flat = features.flatten(2)
    torch.testing.assert_close(square_products(features), flat @ flat.mT)
    assert torch.autograd.gradcheck(square_products, features)
    with torch.autocast("cpu", torch.bfloat16):
        assert square_products(features.float()).dtype == torch.float32
