"""Operations with hand-written gradients or CPU tricks, to save time or memory.

Each docstring gives the plain formula, and `tests/test_kernels.py` checks the operation against it.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def reflected(x: Float[Tensor, "b c h w"], border: int) -> Float[Tensor, "b c _ _"]:
    """Equals `F.pad(x, [border] * 4, mode="reflect")`, with less memory and in x's precision."""
    return _Reflected.apply(x, border)


class _Reflected(torch.autograd.Function):
    """See `reflected`. torch's version keeps x for backward, although only its size is needed.

    On CPUs under autocast, torch's version also works in float32.
    """

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
    """Return the gradient of a reflection along one axis.

    The gradients of both borders are added to the pixels that the borders were copied from.
    """
    size = g.shape[axis] - 2 * border
    inside = g.narrow(axis, border, size).clone()
    inside.narrow(axis, 1, border).add_(g.narrow(axis, 0, border).flip(axis))
    inside.narrow(axis, size - 1 - border, border).add_(
        g.narrow(axis, border + size, border).flip(axis)
    )
    return inside


def by_columns(layer: nn.Conv2d, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ h w"]:
    """Equals `layer(x)` for a k×k convolution at stride 1 with reflection padding, in float32.

    CPU libraries compute 3 output channels as if they were 16. So run a k×1 convolution with 3·k
    outputs, then shift and sum these.

    Args:
        layer: the convolution, with a bias.
        x: features.
    """
    outputs, inputs, height, width = layer.weight.shape
    kernel = layer.weight.permute(3, 0, 1, 2).reshape(width * outputs, inputs, height, 1)
    x = reflected(x, layer.kernel_size[0] // 2)
    columns = F.conv2d(x, kernel).float()  # summing in half precision would lose digits
    across = x.shape[-1] - width + 1
    assert layer.bias is not None
    moved = (part[..., i : i + across] for i, part in enumerate(columns.split(outputs, 1)))
    return sum(moved, start=layer.bias.float()[:, None, None])


def normalized(
    x: Float[Tensor, "b c h w"], gamma: Float[Tensor, "_ c 1 1"], beta: Float[Tensor, "_ c 1 1"],
    mean: Float[Tensor, "_ c 1 1"], inverse: Float[Tensor, "_ c 1 1"], relu: bool, measured: bool,
) -> Float[Tensor, "b c h w"]:  # fmt: skip
    """Equals `(x - mean) * inverse * gamma + beta`, followed by an optional ReLU.

    Of the large tensors, only x is kept for backward.

    Args:
        x: features.
        gamma: scale of each channel.
        beta: offset of each channel.
        mean: mean of each channel.
        inverse: 1 / standard deviation of each channel.
        relu: whether to apply the ReLU.
        measured: whether mean and inverse were measured on x. The gradient then includes the path
            through them.
    """
    return _Normalized.apply(x, gamma, beta, mean, inverse, relu, measured)


class _Normalized(torch.autograd.Function):
    """See `normalized`. Autograd would keep four tensors of x's size, most of training's memory."""

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
        if ctx.measured:  # mean and variance depend on x
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
    # Not in place under torch.compile: torch 2.11 then silently loses this function's gradient.
    return y if not relu else y.relu() if torch.compiler.is_compiling() else y.relu_()


def _summed(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the sum over the pixels, B×C×1×1. The reshaping is a view if x is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2).sum(1, dtype=dtype)[..., None, None]


def square_products(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c c"]:
    """Equals `f @ f.mT` with f = `features.flatten(2)`, in float32 even under autocast.

    float64 stays float64.
    """
    with torch.autocast(features.device.type, enabled=False):
        # A view if the features are channels-last, as in the loss network.
        return _SquareProduct.apply(features.permute(0, 2, 3, 1).flatten(1, 2))


class _SquareProduct(torch.autograd.Function):
    """XᵀX with the gradient X (D + Dᵀ), a single product; autograd would sum two products.

    X is kept for backward in its own precision.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        x = at_least_float32(x)
        return x.transpose(1, 2) @ x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        (d,) = gradients
        return (at_least_float32(x) @ (d + d.transpose(1, 2))).to(x.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32, or in float64 if it is float64.

    Half precision would lose small differences and long sums.
    """
    return x if x.dtype == torch.float64 else x.float()
