"""A trained network whose paintings a smaller one learns to imitate."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from impasto.networks import TransformNet, load_network
from impasto.networks.transform import TRAINING_MARGIN


class Teacher:
    """Paints what the network in training should paint (distillation, Hinton et al. 2015).

    Departure: there, a student learns a teacher's probabilities. Here it learns its pixels, beside
    the perceptual loss. In a short trial, a small network then lost less of the content at the same
    style (checkpoints/notebook.md).

    It is no nn.Module, so that checkpoints leave it out and no optimizer finds its weights.

    Args:
        name: a published name or a file.
        styles: names of the student's styles, in order.
        weight: weight of `error` in the loss, above 0.

    Raises:
        ValueError: there is no such network, it lacks a style, or the weight is out of range.
    """

    def __init__(self, name: str, styles: Sequence[str], weight: float = 1.0) -> None:
        if not 0 < weight < float("inf"):
            raise ValueError(f"teacher_weight {weight}: must be above 0")
        self.name, self.weight = Path(name).stem, weight
        self.network: TransformNet = load_network(name)
        if missing := [style for style in styles if style not in self.network.styles]:
            known = ", ".join(self.network.styles) or "none by name"
            raise ValueError(
                f"teacher {name}: does not know {', '.join(missing)}; its styles: {known}"
            )
        self._codes = torch.cat([self.network.encode_style(style) for style in styles])

    def to(self, device: torch.device) -> "Teacher":
        """Move it to a device."""
        self.network = self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._codes = self._codes.to(device)
        return self

    def error(
        self,
        stylized: Float[Tensor, "b 3 h w"],
        content: Float[Tensor, "b 3 h w"],
        code: Float[Tensor, "b n"],
    ) -> Float[Tensor, ""]:
        """Return the mean absolute difference of paintings from the teacher's, as a fraction.

        The fraction is 1 for paintings that are as varied as the teacher's, and unrelated to them.

        Args:
            stylized: the student's paintings, in [0, 1].
            content: the photos.
            code: the student's codes.
        """
        with torch.no_grad():
            wanted = self.network(content, code @ self._codes, TRAINING_MARGIN).float()
            varied = (wanted - wanted.mean((2, 3), keepdim=True)).abs().mean()
        # Differences of independent values are √2 times as wide as the values (exact if normal).
        return (stylized.float() - wanted).abs().mean() / (2**0.5 * varied).clamp(min=1e-3)
