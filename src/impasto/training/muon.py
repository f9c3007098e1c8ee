"""Muon, the optimizer of the transform network.

Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM = 0.95  # Jordan's value, used as Nesterov momentum
BETAS, EPS = (0.9, 0.999), 1e-8  # Adam's defaults (Kingma & Ba 2015)
ADAM_SHARE = 0.1  # Adam's learning rate as a share of Muon's: 2e-3 beside 0.02
# Jordan's quintic polynomial; five steps bring singular values to 0.7 … 1.2.
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum for convolutions, Adam for all other parameters, in one optimizer.

    A convolution's gradient is read as a matrix, out × (in·k·k). Its momentum is replaced by the
    nearest matrix with orthonormal rows, so that a step moves every direction of the weights
    equally far. Adam trains what has no such matrix: biases, γ and β, and convolutions of each
    channel by itself. It also trains the RGB layer, whose matrix has only three rows.

    `torch.optim.Muon` takes matrices only, and Lightning wants a single optimizer.

    Args:
        network: Muon trains its convolutions, except those named in `adam`. Frozen weights stay.
        learning_rate: Muon's learning rate; Adam's is `ADAM_SHARE` of it.
        adam: names of 4-dimensional weights that Adam trains.
    """

    def __init__(
        self, network: nn.Module, learning_rate: float, adam: tuple[str, ...] = ("to_rgb.weight",)
    ) -> None:
        orthogonal: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            if not parameter.requires_grad:
                continue
            matrix = parameter.ndim == 4 and parameter.shape[1] > 1 and name not in adam
            (orthogonal if matrix else rest).append(parameter)
        groups = [
            {"params": orthogonal, "lr": learning_rate, "method": "muon"},
            {"params": rest, "lr": ADAM_SHARE * learning_rate, "method": "adam"},
        ]
        super().__init__([group for group in groups if group["params"]], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; return the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [(p, p.grad) for p in group["params"] if p.grad is not None]
            if moved:
                parameters, gradients = map(list, zip(*moved, strict=True))
                step = self._muon if group["method"] == "muon" else self._adam
                step(parameters, gradients, group["lr"])
        return loss

    def _muon(
        self, parameters: list[Tensor], gradients: list[Tensor], learning_rate: float
    ) -> None:
        """Update the convolutions by their orthogonalized Nesterov momentum."""
        momenta = self._states(parameters, "momentum")
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = [update.flatten(1) for update in torch._foreach_lerp(gradients, momenta, MOMENTUM)]
        # Jordan's scale: a matrix with more rows than columns steps √(rows / columns) as far.
        steps = [
            (step * max(1, len(step) / step[0].numel()) ** 0.5).view_as(parameter)
            for step, parameter in zip(orthogonalized(ahead), parameters, strict=True)
        ]
        torch._foreach_add_(parameters, steps, alpha=-learning_rate)

    def _adam(
        self, parameters: list[Tensor], gradients: list[Tensor], learning_rate: float
    ) -> None:
        """Update the other parameters by Adam (Kingma & Ba 2015)."""
        first, second = self._states(parameters, "first"), self._states(parameters, "second")
        # One count of steps serves all parameters.
        counted = self.state[parameters[0]].setdefault("step", torch.zeros(()))
        counted += 1
        step = int(counted)
        torch._foreach_lerp_(first, gradients, 1 - BETAS[0])
        torch._foreach_mul_(second, BETAS[1])
        torch._foreach_addcmul_(second, gradients, gradients, 1 - BETAS[1])
        scale = torch._foreach_div(second, 1 - BETAS[1] ** step)
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, EPS)
        torch._foreach_addcdiv_(parameters, first, scale, -learning_rate / (1 - BETAS[0] ** step))

    def _states(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        """Return each parameter's state tensor of that name, zeros at first.

        Checkpoints store these tensors.
        """
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


def orthogonalized(matrices: list[Float[Tensor, "_ _"]]) -> list[Float[Tensor, "_ _"]]:
    """Return matrices with the same singular vectors and singular values near 1 (Newton–Schulz).

    The matrices are padded with zeros and computed as one batch, since a GPU is idle between many
    small products. Zero padding stays zero. The products are in bfloat16 on a GPU (Jordan's
    choice), and in float32 on a CPU, which may have no bfloat16.
    """
    a, b, c = NEWTON_SCHULZ
    wide = [matrix.mT if len(matrix) > matrix.shape[1] else matrix for matrix in matrices]
    rows, columns = (max(matrix.shape[axis] for matrix in wide) for axis in (0, 1))
    dtype = torch.bfloat16 if wide[0].is_cuda else torch.float32
    x = torch.zeros(len(wide), rows, columns, device=wide[0].device, dtype=dtype)
    for slot, matrix in zip(x, wide, strict=True):
        slot[: len(matrix), : matrix.shape[1]] = matrix
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    found = [
        part[: len(matrix), : matrix.shape[1]].to(matrix.dtype)
        for part, matrix in zip(x, wide, strict=True)
    ]
    return [
        part.mT if len(matrix) > matrix.shape[1] else part
        for part, matrix in zip(found, matrices, strict=True)
    ]
