"""What training minimizes: the perceptual loss against the targets of its styles, and the shift term."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from impasto.choices import LossOptions
from impasto.perceptual.loss import PerceptualLoss
from impasto.perceptual.target import StyleTarget, moved_error

MOVED = 4  # with `shift_weight`, every fourth photo comes a second time, moved by less than 4 pixels each way

Paint = Callable[[Tensor, Tensor], Tensor]  # photos B×3×H×W and codes of their styles B×N, to pictures


class Objective:
    """The loss of a batch. A plain object: no checkpoint holds its loss network, and DDP does not wrap it.

    Args:
        options: of the perceptual loss.
        paintings: one for each style, 1×3×H×W in [0, 1], on the device to work on.
        photos: P×3×H×W in [0, 1], on which the balance is measured; None where it is given, or fixed.
        balance: what `balance` gave in an earlier part of the run.
        shift_weight: weight of the squared difference between a moved photo's painting and the moved painting.
    """

    loss: PerceptualLoss
    target: StyleTarget

    def __init__(
        self,
        options: LossOptions,
        paintings: Sequence[Float[Tensor, "1 3 _ _"]],
        photos: Float[Tensor, "p 3 h w"] | None = None,
        balance: dict[str, Any] | None = None,
        shift_weight: float = 0.0,
    ) -> None:
        self.shift_weight, self.number_of_styles = shift_weight, len(paintings)
        self.loss = PerceptualLoss(options).to(paintings[0].device)
        self._compiled: Callable[..., dict[str, Tensor]] | None = None
        if balance is None:
            self.target = self.loss.style_target(paintings, photos)
        else:
            self.loss.dynamic.copy_(torch.tensor(balance["dynamic"]))
            self.target = self.loss.style_target(paintings, gaps=balance["gaps"])

    def compile(self, mode: str) -> None:
        """Compiles the loss for training steps."""
        self._compiled = torch.compile(self.loss.forward, mode=mode)

    def balance(self) -> dict[str, Any]:
        """What a resumed run needs for the same loss: the measured gaps, and weights that `dynamic` has moved."""
        return {"gaps": self.target.gaps(), "dynamic": self.loss.dynamic.tolist()}

    def __call__(
        self, paint: Paint, content: Float[Tensor, "b 3 h w"], index: Int[Tensor, " b"], step: int
    ) -> tuple[dict[str, Tensor], Float[Tensor, ""]]:
        """The terms without their weights, for people to read, and the weighted sum, to minimize.

        Args:
            paint: the network.
            content: photos in [0, 1].
            index: the style that each of them learns.
            step: of the training, which decides how photos are moved.
        """
        down, right = 1 + step % 3, 1 + step // 3 % 3
        pairs = slice(step % min(MOVED, len(content)), None, MOVED)  # other photos, and so other styles, in every step
        if self.shift_weight:
            size = content.shape[-1] - MOVED
            moved = content[pairs, :, down : down + size, right : right + size]
            content, index = torch.cat([content[:, :, :size, :size], moved]), torch.cat([index, index[pairs]])
        stylized = paint(content, F.one_hot(index, self.number_of_styles).to(content))
        # Only steps with a gradient: validation photos have another size, for which the loss would be compiled again.
        judge = self._compiled if self._compiled and torch.is_grad_enabled() else self.loss
        weighted = judge(stylized, content, self.target.select(index))
        weights = {**self.loss.current, "shift": self.shift_weight}
        if self.shift_weight:
            here, there = stylized[: len(stylized) - len(moved)][pairs], stylized[len(stylized) - len(moved) :]
            weighted["shift"] = self.shift_weight * moved_error(here, there, down, right)
        asked = {**self.loss.options.asked, "shift": self.shift_weight}
        fractions = {name: term.detach() / weights[name] for name, term in weighted.items() if asked[name]}
        return fractions, torch.stack(list(weighted.values())).sum()
