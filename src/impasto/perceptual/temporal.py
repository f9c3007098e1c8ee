"""The temporal terms of two frames, painted one after the other (ReCoNet, Gao et al. 2018).

Flow is backward flow in pixels, as in `impasto.video.warping`: right then down, to the first frame.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from impasto.kernels import at_least_float32
from impasto.video.warping import warped

LUMINANCE = (0.2126, 0.7152, 0.0722)  # weights of R, G, B (ITU-R BT.709), as in ReCoNet


def temporal_error(
    before: Float[Tensor, "b c h w"],
    after: Float[Tensor, "b c h w"],
    flow: Float[Tensor, "_ 2 h w"],
    trusted: Bool[Tensor, "_ 1 h w"],
    change: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, ""]:
    """Return Σ M ‖after − W(before) − change‖² / (C ΣM), a scalar; 0 where no pixel is trusted.

    ReCoNet's eqs. 5 and 6. W is bilinear, as there, and the gradient goes through it to `before`.

    Args:
        before: paintings of the first frames; or their features.
        after: paintings of the second frames.
        flow: backward flow.
        trusted: M, pixels that both frames show.
        change: the change that the frames' own brightness asks for (`luminance_change`); None: 0.
    """
    moved = warped(at_least_float32(before), flow)
    difference = at_least_float32(after) - moved
    if change is not None:
        difference = difference - change
    mask = trusted.expand(len(before), -1, -1, -1).to(difference)
    total = (mask * difference.square()).sum()
    # Departure: ReCoNet divides by all pixels, so that a pair with more occlusion counts less.
    return total / (before.shape[1] * mask.sum()).clamp(min=1)


def luminance_change(
    first: Float[Tensor, "b 3 h w"],
    second: Float[Tensor, "b 3 h w"],
    flow: Float[Tensor, "_ 2 h w"],
) -> Float[Tensor, "b 1 h w"]:
    """Return ΔY, the change of the frames' relative luminance along the flow (ReCoNet, eq. 6)."""
    weights = first.new_tensor(LUMINANCE)[:, None, None]
    before, after = ((frame * weights).sum(1, keepdim=True) for frame in (first, second))
    return after - warped(before, flow)


def feature_error(
    before: Float[Tensor, "b c h w"],
    after: Float[Tensor, "b c h w"],
    flow: Float[Tensor, "_ 2 y x"],
    trusted: Bool[Tensor, "_ 1 y x"],
    margin: int,
) -> Float[Tensor, ""]:
    """Return the temporal error of a network's features, as a fraction: 1 for unrelated ones.

    ReCoNet's eq. 4. Departure: it is divided by twice the variance of the features. Otherwise,
    smaller features would lower it, and the next instance norm would enlarge them again.

    Args:
        before: features of the first frames, at a quarter of the frames' resolution.
        after: features of the second frames.
        flow: backward flow of the frames.
        trusted: pixels that both frames show.
        margin: the padding of the frames, in pixels, a multiple of 4.
    """
    # Feature (i, j) is centred on pixel (4·i, 4·j) of the padded frame.
    flow, trusted = flow[..., ::4, ::4] / 4, trusted[..., ::4, ::4]
    (height, width), skipped = flow.shape[-2:], margin // 4
    before, after = (
        at_least_float32(of[..., skipped : skipped + height, skipped : skipped + width])
        for of in (before, after)
    )
    error = temporal_error(before, after, flow, trusted)
    return error / (2 * contrast(before, after))


def contrast(
    before: Float[Tensor, "b c h w"], after: Float[Tensor, "b c h w"]
) -> Float[Tensor, ""]:
    """Return the mean variance of the channels of pictures or features, over all pixels.

    Twice this is the squared difference of unrelated pixels.
    """
    both = torch.cat([at_least_float32(before), at_least_float32(after)])
    return both.var((2, 3), correction=0).mean().clamp(min=1e-4)
