"""The objective of training: the perceptual loss of each photo in its style, and the shift term."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from impasto.choices import LossOptions
from impasto.networks.preprocess import Origin
from impasto.perceptual.loss import PerceptualLoss
from impasto.perceptual.target import StyleTarget, moved_error

# With `shift_weight`, every fourth photo is painted twice. Crops are then 4 pixels smaller, so that
# the second crop of such a photo can lie 1 to 3 pixels further down and right.
SHIFTED_EVERY = 4  # photos
SHIFT_MARGIN = 4  # pixels

# (photos B×3×H×W, style codes B×N, position in a larger picture) → pictures B×3×H×W
Paint = Callable[[Tensor, Tensor, Origin], Tensor]


class Objective:
    """The loss of a batch.

    It is no nn.Module, so that checkpoints leave its loss network out and DDP does not wrap it.

    Args:
        options: options of the perceptual loss.
        paintings: one painting for each of N styles, 1×3×H×W in [0, 1], on the device to use.
        photos: P×3×H×W in [0, 1], on which the balance is measured. None if `balance` is given,
            or if the options fix the weights.
        balance: result of `balance()` in an earlier part of a resumed run.
        shift_weight: weight of the squared difference between the painting of a shifted photo and
            the shifted painting.
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
        """Compile the loss of training steps, in a mode of torch.compile."""
        self._compiled = torch.compile(self.loss.forward, mode=mode)

    def balance(self) -> dict[str, Any]:
        """Return what a resumed run needs for the same loss.

        Returns:
            The measured gaps (`StyleTarget.gaps`), and the weights that `balance: dynamic` moves.
        """
        return {"gaps": self.target.gaps(), "dynamic": self.loss.dynamic.tolist()}

    def __call__(
        self, paint: Paint, content: Float[Tensor, "b 3 h w"], index: Int[Tensor, " b"], step: int
    ) -> tuple[dict[str, Tensor], Float[Tensor, ""]]:
        """Return the loss terms of a batch without their weights, and their weighted sum.

        Args:
            paint: the network.
            content: photos in [0, 1].
            index: number of the style that each photo learns.
            step: number of the training step; it decides which photos are shifted, and how far.

        Returns:
            The terms with a weight above 0, by name, detached; and the scalar to minimize.
        """
        down, right = 1 + step % 3, 1 + step // 3 % 3
        # Other photos are painted twice in every step, so that the shift term sees all styles.
        pairs = slice(step % min(SHIFTED_EVERY, len(content)), None, SHIFTED_EVERY)
        code = F.one_hot(index, self.number_of_styles).to(content)
        if self.shift_weight:
            size = content.shape[-1] - SHIFT_MARGIN
            moved = content[pairs, :, down : down + size, right : right + size]
            content = content[:, :, :size, :size]
            # The canvas moves with the photo. Otherwise its strokes would count as locked.
            there = paint(moved, code[pairs], (down, right))
            stylized = torch.cat([here := paint(content, code, (0, 0)), there])
            content, index = torch.cat([content, moved]), torch.cat([index, index[pairs]])
        else:
            stylized = paint(content, code, (0, 0))
        # In validation, which has no gradients, torch.compile would compile the loss again.
        judge = self._compiled if self._compiled and torch.is_grad_enabled() else self.loss
        weighted = judge(stylized, content, self.target.select(index))
        weights = {**self.loss.current, "shift": self.shift_weight}
        if self.shift_weight:
            weighted["shift"] = self.shift_weight * moved_error(here[pairs], there, down, right)
        asked = {**self.loss.options.asked, "shift": self.shift_weight}
        fractions = {
            name: term.detach() / weights[name] for name, term in weighted.items() if asked[name]
        }
        return fractions, torch.stack(list(weighted.values())).sum()
