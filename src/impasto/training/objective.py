"""The objective of training: the perceptual loss of each photo in its style, and the shift term."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

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
        device: where the loss network runs.
        shift_weight: weight of the squared difference between the painting of a shifted photo and
            the shifted painting.
    """

    def __init__(
        self, options: LossOptions, device: torch.device, shift_weight: float = 0.0
    ) -> None:
        self.shift_weight = shift_weight
        self.loss = PerceptualLoss(options).to(device)
        self._compiled: Callable[..., dict[str, Tensor]] | None = None

    def compile(self, mode: str) -> None:
        """Compile the loss of training steps, in a mode of torch.compile."""
        self._compiled = torch.compile(self.loss.forward, mode=mode)

    def __call__(
        self,
        paint: Paint,
        content: Float[Tensor, "b 3 h w"],
        code: Float[Tensor, "_ n"],
        target: StyleTarget,
        step: int,
    ) -> tuple[dict[str, Tensor], Float[Tensor, ""]]:
        """Return the loss terms of a batch without their weights, and their weighted sum.

        Args:
            paint: the network.
            content: photos in [0, 1].
            code: code of the style that each photo learns, B×N or 1×N.
            target: target of each photo's style.
            step: number of the training step; it decides which photos are shifted, and how far.

        Returns:
            The terms with a weight above 0, by name, detached; and the scalar to minimize.
        """
        down, right = 1 + step % 3, 1 + step // 3 % 3
        # Other photos are painted twice in every step, so that the shift term sees all styles.
        pairs = slice(step % min(SHIFTED_EVERY, len(content)), None, SHIFTED_EVERY)
        code = code.to(content).expand(len(content), -1)
        if self.shift_weight:
            size = content.shape[-1] - SHIFT_MARGIN
            moved = content[pairs, :, down : down + size, right : right + size]
            content = content[:, :, :size, :size]
            # The canvas moves with the photo. Otherwise its strokes would count as locked.
            there = paint(moved, code[pairs], (down, right))
            stylized = torch.cat([here := paint(content, code, (0, 0)), there])
            each = torch.arange(len(content), device=content.device)
            target = target.select(torch.cat([each, each[pairs]]))
            content = torch.cat([content, moved])
        else:
            stylized = paint(content, code, (0, 0))
        # In validation, which has no gradients, torch.compile would compile the loss again.
        judge = self._compiled if self._compiled and torch.is_grad_enabled() else self.loss
        weighted = judge(stylized, content, target)
        weights = {**self.loss.current, "shift": self.shift_weight}
        if self.shift_weight:
            weighted["shift"] = self.shift_weight * moved_error(here[pairs], there, down, right)
        asked = {**self.loss.options.asked, "shift": self.shift_weight}
        fractions = {
            name: term.detach() / weights[name] for name, term in weighted.items() if asked[name]
        }
        return fractions, torch.stack(list(weighted.values())).sum()
