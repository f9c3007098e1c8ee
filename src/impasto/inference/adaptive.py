"""Strength that adapts to the photo: the share of its content that a painting may lose.

How strength could follow from the photo is the second open question of arXiv 2501.09420. Here the
content lost is measured on a small copy. The strength is the largest at which no more than the
allowed share is lost.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from impasto.networks.styles import Number
from impasto.perceptual.features import FeatureNetwork

LAYER = "relu4_2"  # of the content, as in Gatys et al. 2016
PIXELS = 384 * 288  # of the small copy of the photo
# Content that a painting may lose by default. Of 16 photos, `starry_night` of `gallery` at full
# strength loses more of 3: a cheetah and a cat before blurred ground, and hills in mist.
ALLOWED = 0.5
TOLERANCE = 0.01  # of the content lost
_PAINTINGS = 6
_STEP = 0.01  # of strengths, so that a chosen one can be given as a number
_LEAST_SIDE = 32  # pixels; smaller copies are continued at their edges for the loss network


@dataclass(frozen=True)
class Choice:
    """A strength chosen for a photo, and why.

    Args:
        strength: from 0 (the photo) to 1.
        lost: content lost at that strength, as `content_lost` measures it.
        full: content lost at strength 1.
        allowed: content that might be lost.
    """

    strength: float
    lost: float
    full: float
    allowed: float

    def __str__(self) -> str:
        if self.strength == 1:
            return f"strength 1: content lost {self.full:.2f}, allowed {self.allowed:g}"
        full = f"at full strength {self.full:.2f}"
        if self.strength == 0 < self.allowed:
            return (
                f"left as it is: every strength tried lost more content than allowed, "
                f"{self.allowed:g}; {full}"
            )
        return (
            f"strength {self.strength:g}: content lost {self.lost:.2f}, "
            f"allowed {self.allowed:g}; {full}"
        )


def allowed_loss(strength: Number | str) -> float | None:
    """Return the content that a painting may lose; None where the strength is a number.

    Args:
        strength: a number from 0 to 1, `auto`, or `auto:` with the content that may be lost.

    Raises:
        ValueError: anything else.
    """
    if isinstance(strength, str):
        word, colon, text = strength.partition(":")
        try:
            allowed = float(text) if colon else ALLOWED
        except ValueError:
            allowed = math.nan
        if word == "auto" and 0 <= allowed < math.inf:
            return allowed
    elif 0 <= strength <= 1:
        return None
    raise ValueError(
        f"strength {strength}: must be from 0 (the photo) to 1 (fully stylized), auto, or auto:0.4 "
        "(the content that may be lost, from 0)"
    )


def content_lost(
    stylized: Float[Tensor, "1 c h w"], photo: Float[Tensor, "1 c h w"]
) -> Float[Tensor, ""]:
    """Return the content lost: 0 for the photo itself, about 1 for unrelated places of it.

    That is ‖F(stylized) − F(photo)‖² / (2 · H·W · σ²), the content term of Gatys et al. 2016
    (eq. 1) as a fraction. σ² is the variance of the photo's features over its places, summed over
    channels: two places drawn at random differ by 2·σ² on average. There is no upper bound.

    Args:
        stylized: features of the painting.
        photo: features of the photo.
    """
    variance = photo.var((2, 3), correction=0).sum().clamp(min=1e-12)  # 0 where places are equal
    return (stylized - photo).square().sum(1).mean() / (2 * variance)


def chosen(lost: Callable[[float], float], allowed: float) -> Choice:
    """Return the largest strength that loses no more than is allowed, from at most six tries.

    The search is regula falsi with the Illinois rule (Dowell and Jarratt 1971). If every strength
    tried loses more than is allowed, the choice is 0, the photo.

    Args:
        lost: returns the content lost at a strength above 0; it grows with the strength.
        allowed: the content that may be lost, from 0.
    """
    full = lost(1.0)
    if full <= allowed:
        return Choice(1.0, full, full, allowed)
    best = Choice(0.0, 0.0, full, allowed)
    low, high = (0.0, -allowed), (1.0, full - allowed)  # strength, and content lost beyond allowed
    side = 0
    for _ in range(_PAINTINGS - 1 if allowed else 0):
        share = -low[1] / (high[1] - low[1])
        strength = round(low[0] + share * (high[0] - low[0]), 2)
        strength = min(max(strength, round(low[0] + _STEP, 2)), round(high[0] - _STEP, 2))
        if not low[0] < strength < high[0]:
            break
        found = lost(strength)
        beyond = found - allowed
        if beyond <= TOLERANCE:
            best = Choice(strength, found, full, allowed)
        if abs(beyond) <= TOLERANCE:
            break
        # An end that stays for a second time counts half, or the other end would only creep.
        if beyond < 0:
            low, high = (strength, beyond), (high[0], high[1] / 2 if side < 0 else high[1])
        else:
            high, low = (strength, beyond), (low[0], low[1] / 2 if side > 0 else low[1])
        side = -1 if beyond < 0 else 1
    return best


@cache
def _network(device: torch.device) -> FeatureNetwork:
    return FeatureNetwork("compact", [LAYER]).to(device)


def features(picture: Float[Tensor, "1 3 _ _"]) -> Float[Tensor, "1 c h w"]:
    """Return the features of a picture, RGB in [0, 1], in which its content is measured."""
    height, width = picture.shape[-2:]
    missing = (0, max(0, _LEAST_SIDE - width), 0, max(0, _LEAST_SIDE - height))
    found: Tensor = _network(picture.device)(pad(picture, missing, "replicate"))[LAYER]
    return found
