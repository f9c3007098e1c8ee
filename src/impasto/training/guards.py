"""Guards of a training: the loss and the weights stay finite, and every weight learns."""

import torch
from torch import Tensor, nn


class NonFiniteLoss(ValueError):
    """The loss, or a weight of the network, is NaN or infinite."""


class FiniteLosses:
    """Collects the loss terms of training steps, and checks them together.

    Reading a loss waits for the GPU. So they are checked at every logging step, and before a
    checkpoint is written.
    """

    def __init__(self) -> None:
        self._unchecked: list[tuple[int, dict[str, Tensor]]] = []

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """Keep the terms of a step for the next check. "loss" is their sum."""
        self._unchecked.append((step, terms))

    def check(self) -> None:
        """Raise NonFiniteLoss if the loss of a step since the last check is NaN or infinite."""
        unseen, self._unchecked = self._unchecked, []
        if not unseen or torch.stack([terms["loss"] for _, terms in unseen]).isfinite().all():
            return
        step, terms = next((step, terms) for step, terms in unseen if not terms["loss"].isfinite())
        bad = next(name for name, value in terms.items() if not value.isfinite())
        raise NonFiniteLoss(
            f"step {step}: the {bad} term is {float(terms[bad])}; training stopped, and "
            "checkpoints are of earlier steps. Go on from the last, or begin anew, with a lower "
            "--model.learning_rate or --trainer.precision 32-true"
        )


def check_weights(network: nn.Module, step: int) -> None:
    """Raise NonFiniteLoss if a weight is NaN or infinite after a step."""
    for name, value in network.named_parameters():
        if not torch.isfinite(value).all():
            raise NonFiniteLoss(
                f"step {step}: {name} is no longer finite; the last checkpoint was left as it is. "
                "Go on from it with a lower --model.learning_rate"
            )


def check_gradients(network: nn.Module, compiled: str) -> None:
    """Raise ValueError if some weight of the network gets no gradient.

    Compiled by torch 2.11, the network once lost its gradient, and a run learned nothing.

    Args:
        network: the network after a backward pass.
        compiled: how it was compiled, as an option, for the message.
    """
    weights = {
        name: p.grad
        for name, p in network.named_parameters()
        if p.requires_grad and p.ndim > 1 and "beta" not in name
    }
    if without := [
        name for name, gradient in weights.items() if gradient is None or not gradient.any()
    ]:
        raise ValueError(
            f"no gradient reaches {len(without)} of {len(weights)} weights, such as "
            f"{without[0]} (torch {torch.__version__}, {compiled}): "
            "train with --model.compile false"
        )
