"""Hand-written gradients and CPU tricks: faster or smaller than the plain formula that each docstring gives.

`tests/test_kernels.py` holds each to its formula.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def reflected(x: Float[Tensor, "b c h w"], border: int) -> Float[Tensor, "b c _ _"]:
    """Equals `F.pad(x, [border] * 4, mode="reflect")`, with less memory and, on CPUs, in the precision of x."""
    return _Reflected.apply(x, border)


class _Reflected(torch.autograd.Function):
    """torch's own keeps x for the gradient, which needs its size only. On CPUs under autocast it works in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, border: int) -> Tensor:
        ctx.border = border
        with torch.autocast(x.device.type, enabled=False):
            return F.pad(x, [border] * 4, mode="reflect")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (g,) = gradients
        return _folded(_folded(g, ctx.border, 2), ctx.border, 3), None


def _folded(g: Tensor, border: int, axis: int) -> Tensor:
    """The inside of g, to which the borders at both ends of the axis are added where they came from."""
    size = g.shape[axis] - 2 * border
    inside = g.narrow(axis, border, size).clone()
    inside.narrow(axis, 1, border).add_(g.narrow(axis, 0, border).flip(axis))
    inside.narrow(axis, size - 1 - border, border).add_(
        g.narrow(axis, border + size, border).flip(axis)
    )
    return inside


def by_columns(layer: nn.Conv2d, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ h w"]:
    """Equals a convolution of k×k after `reflected`, at stride 1, in float32.

    CPU libraries compute 3 output channels as if they were 16. So a k×1 convolution with 3·k outputs is
    run, and its outputs are shifted and summed.
    """
    outputs, inputs, height, width = layer.weight.shape
    kernel = layer.weight.permute(3, 0, 1, 2).reshape(width * outputs, inputs, height, 1)
    x = reflected(x, layer.kernel_size[0] // 2)
    columns = F.conv2d(x, kernel).float()  # half precision would lose in the sum
    across = x.shape[-1] - width + 1
    assert layer.bias is not None
    moved = (part[..., i : i + across] for i, part in enumerate(columns.split(outputs, 1)))
    return sum(moved, start=layer.bias.float()[:, None, None])


def normalized(
    x: Float[Tensor, "b c h w"], gamma: Float[Tensor, "_ c 1 1"], beta: Float[Tensor, "_ c 1 1"],
    mean: Float[Tensor, "_ c 1 1"], inverse: Float[Tensor, "_ c 1 1"], relu: bool, measured: bool,
) -> Float[Tensor, "b c h w"]:  # fmt: skip
    """Equals `(x - mean) * inverse * gamma + beta`, then a ReLU if asked for; only x is kept for the gradient.

    Args:
        x: features.
        gamma: scale of each channel.
        beta: offset of each channel.
        mean: of each channel.
        inverse: 1 / standard deviation of each channel.
        relu: whether a ReLU follows.
        measured: whether mean and inverse were measured on x, so that the gradient passes through them too.
    """
    return _Normalized.apply(x, gamma, beta, mean, inverse, relu, measured)


class _Normalized(torch.autograd.Function):
    """See `normalized`. Autograd would keep x in four forms, which were most of the memory of training."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gamma: Tensor,
        beta: Tensor,
        mean: Tensor,
        inverse: Tensor,
        relu: bool,
        measured: bool,
    ) -> Tensor:
        scale = gamma * inverse
        shift = (beta - mean * scale).to(x.dtype)
        ctx.save_for_backward(x, gamma, mean, inverse, scale.to(x.dtype), shift)
        ctx.relu, ctx.measured = relu, measured
        return _scaled(x, scale.to(x.dtype), shift, relu)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, mean, inverse, scale, shift = ctx.saved_tensors
        (g,) = gradients
        if ctx.relu:
            g = g * (_scaled(x, scale, shift, False) > 0)
        total = _summed(g, mean.dtype)
        along = (_summed(g * x, mean.dtype) - mean * total) * inverse  # Σ g · (x − mean) / std
        of_x = g * scale
        if ctx.measured:  # mean and variance move with x
            slope = -gamma * inverse.square() * along / x.shape[2:].numel()
            offset = -gamma * inverse * total / x.shape[2:].numel() - slope * mean
            of_x = of_x.addcmul_(x, slope.to(x.dtype)).add_(offset.to(x.dtype))
        return (
            of_x,
            along.sum_to_size(gamma.shape),
            total.sum_to_size(gamma.shape),
            None,
            None,
            None,
            None,
        )


def _scaled(x: Tensor, scale: Tensor, shift: Tensor, relu: bool) -> Tensor:
    y = torch.addcmul(shift, x, scale)
    # Not in place where it is compiled: torch 2.11 then loses the gradient of this function, without a word.
    return y if not relu else y.relu() if torch.compiler.is_compiling() else y.relu_()


def _summed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Over the pixels, which a view has in one axis where x is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(1, dtype=dtype)[..., None, None]


def square_products(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """Equals `f @ f.mT` for f = `features.flatten(2)`, in float32 at least, also under autocast."""
    with torch.autocast(features.device.type, enabled=False):
        # A view where the features are channels-last, as those of the loss network are.
        return _SquareProduct.apply(features.permute(0, 2, 3, 1).flatten(1, 2))


class _SquareProduct(torch.autograd.Function):
    """XᵀX, whose gradient X (D + Dᵀ) takes one product; autograd's own takes two, and adds them up. X is kept in the
    precision it has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        x = exact(x)
        return x.transpose(1, 2) @ x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        (d,) = gradients
        return (exact(x) @ (d + d.transpose(1, 2))).to(x.dtype)


def exact(x: Tensor) -> Tensor:
    """Half precision to float32, where small differences and long sums would be lost; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()
