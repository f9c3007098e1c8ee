"""Targets of the perceptual loss, and the balance of its terms: gaps and GradNorm.

A gap is the error of ordinary photos, by which a term is divided to become a fraction. Module
`perceptual.gaps` measures gaps.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from impasto.kernels import at_least_float32

Key = tuple[float, str]  # (scale, layer)
ByKey = dict[Key, Tensor]

# GradNorm (Chen et al. 2018): exponent α of its asymmetric experiment, and rate of its weights.
GRADNORM_ALPHA = 1.5
GRADNORM_RATE = 0.025


@dataclass(frozen=True)
class StyleTarget:
    """N styles that outputs are compared with. Dictionaries have the keys (scale, layer).

    Args:
        grams: Gram matrices N×C×C of the styles.
        style_gaps: E[MSE(G(photo), A)] for each style, N: the distance from photos to the style.
            1 if the balance is `fixed`.
        content_gaps: E[MSE(F(photo_i), F(photo_j))] over unrelated photos, a scalar. 1 if the
            balance is `fixed`.
        masks: N×1×H×W in [0, 1]; each style applies where its mask is 1. None: everywhere.
        shares: weights N of the masked styles, with sum 1; None without masks.
    """

    grams: ByKey
    style_gaps: ByKey
    content_gaps: ByKey
    masks: Tensor | None = None
    shares: Tensor | None = None

    def select(self, index: Int[Tensor, " b"]) -> "StyleTarget":
        """Return the target of a batch whose sample i learns style `index[i]`, without masks."""
        return StyleTarget(
            {key: gram[index] for key, gram in self.grams.items()},
            {key: gap[index] for key, gap in self.style_gaps.items()},
            self.content_gaps,
        )

    def gaps(self) -> dict[str, dict[str, list[float]]]:
        """Return the gaps as JSON: lists by part ("style", "content") and "scale/layer".

        {"style": {"1.0/relu1_1": [one number per style], …}, "content": {…: [one number]}}
        """
        parts = {"style": self.style_gaps, "content": self.content_gaps}
        return {
            part: {
                f"{scale}/{layer}": gap.reshape(-1).tolist() for (scale, layer), gap in gaps.items()
            }
            for part, gaps in parts.items()
        }


@dataclass(frozen=True)
class ContentTarget:
    """Features that outputs should keep.

    Args:
        features: features by term (content, secondary, combined), then by (scale, layer).
    """

    features: dict[str, ByKey]


def read_gaps(gaps: dict[str, list[float]], like: ByKey) -> ByKey:
    """Return one part of `StyleTarget.gaps` as tensors, on the device of `like`."""
    device = next(iter(like.values())).device
    keys = [text.split("/") for text in gaps]
    return {
        (float(scale), layer): torch.tensor(gap, device=device)
        for (scale, layer), gap in zip(keys, gaps.values(), strict=True)
    }


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared error of each sample of a batch, B."""
    return (at_least_float32(a) - at_least_float32(b)).square().flatten(1).mean(1)


@torch.no_grad()
def gradnorm(weights: Tensor, norms: Tensor, fractions: Tensor, asked: Tensor) -> Tensor:
    """Return the weights of T terms after one step of GradNorm.

    Chen et al. 2018, eq. 2 and algorithm 1, with three departures:
    - The initial loss L(0) is 1, the value of a fraction before anything is learned. Section 3.2 of
      the paper allows a theoretical value. The measured content loss would be 0 in a run that
      starts from the content.
    - The user's weights scale the gradient norms to aim at.
    - The caller takes gradients at the picture, not at the last shared layer, because training and
      the reference have only the picture in common.

    Args:
        weights: current weights, T.
        norms: norm of each unweighted term's gradient, T.
        fractions: unweighted terms, T; 1 at first.
        asked: the user's weights, T. The new weights have the same sum.
    """
    rates = (fractions / fractions.mean().clamp(min=1e-12)) ** GRADNORM_ALPHA
    aim = (weights * norms).mean() * rates * asked / asked.mean()
    # sign(w·g − aim)·g is the gradient of |w·g − aim|. Dividing by the mean norm removes its unit.
    step = torch.sign(weights * norms - aim) * norms / norms.mean().clamp(min=1e-12)
    moved = (weights - GRADNORM_RATE * step).clamp(min=1e-3)
    return moved * asked.sum() / moved.sum()
