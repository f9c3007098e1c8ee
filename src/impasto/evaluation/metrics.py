"""Metrics of a stylized picture: how close it is to its photo and to its painting.

All pictures are 1×3×H×W in [0, 1].
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from impasto.data.files import located
from impasto.perceptual.features import FeatureNetwork
from impasto.perceptual.loss import gram_matrix

Picture = Float[Tensor, "1 3 _ _"]
Features = Callable[[Tensor], Mapping[str, Tensor]]

# Layers of VGG16 (Zhang et al. 2018).
LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
LPIPS_WEIGHTS = "package:torchmetrics/functional/image/lpips_models/vgg.pth"


def ssim(image: Picture, content: Picture) -> float:
    """Return the structural similarity (Wang et al. 2004), the mean over the channels.

    The window is a Gaussian of 11 pixels with σ = 1.5. 1 means that the pictures are the same.
    """
    return float(
        torch.as_tensor(structural_similarity_index_measure(image, content, data_range=1.0))
    )


def psnr(image: Picture, content: Picture) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite if the pictures are the same."""
    return float(peak_signal_noise_ratio(image, content, data_range=1.0))


@torch.no_grad()
def gram_difference(image: Picture, style: Picture, features: Features) -> float:
    """Return the Gram matrix difference (GMD); 0 means the same Gram matrices.

    It is the mean over the layers of ‖G(image) − G(style)‖ / ‖G(style)‖, with Frobenius norms.
    The division gives every layer the same influence, however Gram matrices are normalized.

    Args:
        image: the stylized picture.
        style: the painting, of any size.
        features: returns the features of a picture by layer, B×C×H'×W' each.
    """
    found, wanted = features(image), features(style)
    parts = []
    for layer, value in wanted.items():
        asked = gram_matrix(value)
        parts.append((gram_matrix(found[layer]) - asked).norm() / asked.norm())
    return float(torch.stack(parts).mean())


def tone(image: Picture, style: Picture) -> float:
    """Return the contrast of the picture as a share of the painting's; 1 means the same contrast.

    It is the ratio of the standard deviations of a channel, averaged over the three channels.
    A perceptual loss does not measure it: one network reached only half of the painting's
    contrast, at a lower loss than others.
    """
    return float((image.std((2, 3)) / style.std((2, 3)).clamp(min=1e-6)).mean())


def grain(image: Picture, style: Picture) -> float:
    """Return the amplitude of the finest patterns as a share of the painting's; 1 means the same.

    The finest patterns are those with periods from 2 to 3.5 pixels.
    """
    return _finest(image) / max(_finest(style), 1e-12)


def _finest(image: Picture) -> float:
    """Return the RMS amplitude of the grey picture's spectrum at periods from 2 to 3.5 pixels.

    The picture is multiplied by a Hann window; the power is divided by that of the window.
    """
    grey = image.mean((0, 1))
    window = torch.outer(
        *(torch.hann_window(side, periodic=False, device=image.device) for side in grey.shape)
    )
    power = torch.fft.fft2(
        (grey - grey.mean()) * window
    ).abs().square() / window.square().sum().clamp(min=1e-12)
    down, across = (torch.fft.fftfreq(side, device=image.device) for side in grey.shape)
    frequency = torch.hypot(down[:, None], across[None])
    inside = (frequency >= 1 / 3.5) & (frequency <= 1 / 2)
    return float(power[inside].mean().sqrt()) if inside.any() else 0.0


def grid_pattern(paint: Callable[[Tensor, tuple[int, int]], Tensor], content: Picture) -> float:
    """Return how much of the stylized picture is locked to the pixel grid, in grey levels (1/255).

    Such patterns do not move with the photo. The photo is shifted by 0 to 3 pixels down and right:
    16 shifts, all positions on the 4×4 grid of a network that halves the size twice. The result is
    the RMS difference between the 16 stylized pictures, over the same part of the photo, and their
    mean.

    Args:
        paint: stylizes a crop of the photo, 1×3×H×W in [0, 1]; it also gets the place where the
            crop begins, in pixels (down, right).
        content: the photo.
    """
    h, w = (side - 3 for side in content.shape[-2:])
    moves = [(down, right) for down in range(4) for right in range(4)]
    painted = [
        paint(content[..., 3 - y :, 3 - x :], (3 - y, 3 - x))[..., y : y + h, x : x + w]
        for y, x in moves
    ]
    mean = torch.stack(painted).mean(0)
    return 255 * float(torch.stack([(one - mean).square().mean() for one in painted]).mean().sqrt())


class Lpips:
    """LPIPS, the learned perceptual distance (Zhang et al. 2018, VGG, version 0.1).

    0 means that the pictures are the same. torchmetrics' own class always downloads VGG16; this one
    takes the file that `find_weights` finds. The channel weights are those torchmetrics ships.

    Args:
        weights: file or folder of VGG16's weights; None: wherever `find_weights` looks.
        device: where it computes.
    """

    def __init__(self, weights: str | None = None, device: torch.device | str = "cpu") -> None:
        self.features = FeatureNetwork("vgg16", LPIPS_LAYERS, weights).to(device)
        self.channels = list(torch.load(located(LPIPS_WEIGHTS), device, weights_only=True).values())

    @torch.no_grad()
    def __call__(self, image: Picture, content: Picture) -> float:
        a, b = self.features(image), self.features(content)
        total = torch.zeros(())
        for layer, weights in zip(LPIPS_LAYERS, self.channels, strict=True):
            difference = F.normalize(a[layer], dim=1) - F.normalize(b[layer], dim=1)
            total = total + (difference.square() * weights).sum(1).mean().cpu()
        return float(total)
