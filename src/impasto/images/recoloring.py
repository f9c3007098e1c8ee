"""The colours of one picture on another (Gatys et al. 2016)."""

import torch
from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "b 3 h w"]


def keep_colors(stylized: Images, content: Images) -> Images:
    """Return images with the luminance of `stylized` and the colour of `content`, all in [0, 1].

    This is the luminance-only transfer of Gatys et al. 2016. Replacing Y in YIQ, and keeping I and
    Q, adds the same difference to R, G and B. The difference is limited so that all three stay in
    [0, 1].
    """
    luminance = stylized.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    difference = ((stylized - content) * luminance).sum(dim=1, keepdim=True)
    return content + difference.clamp(
        -content.amin(1, keepdim=True), 1 - content.amax(1, keepdim=True)
    )


def match_colors(
    image: Float[Tensor, "1 3 _ _"], like: Float[Tensor, "1 3 _ _"]
) -> Float[Tensor, "1 3 _ _"]:
    """Return `image` with the mean and covariance of the colours of `like`, clipped to [0, 1].

    This is the histogram matching of Gatys et al. 2016.
    """
    colors, wanted = image[0].flatten(1), like[0].flatten(1)
    change = torch.eye(3).to(colors)
    for part, power in ((colors, -0.5), (wanted, 0.5)):
        values, vectors = torch.linalg.eigh(
            torch.cov(part, correction=min(1, part.shape[1] - 1)) + 1e-5 * torch.eye(3).to(part)
        )
        change = vectors * values.pow(power) @ vectors.T @ change
    matched = change @ (colors - colors.mean(1, keepdim=True)) + wanted.mean(1, keepdim=True)
    return matched.reshape(image.shape).clamp(0, 1)
