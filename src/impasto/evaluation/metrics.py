"""How near a stylized picture is to its photo, and to its painting: pure functions of pictures in [0, 1]."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from impasto.data.files import located
from impasto.perceptual.features import FeatureNetwork
from impasto.perceptual.loss import gram_matrix

Picture = Float[Tensor, "1 3 _ _"]
Features = Callable[[Tensor], Mapping[str, Tensor]]

LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")  # of VGG16 (Zhang et al. 2018)
LPIPS_WEIGHTS = "package:torchmetrics/functional/image/lpips_models/vgg.pth"


def ssim(image: Picture, content: Picture) -> float:
    """Structural similarity (Wang et al. 2004; window of 11, σ 1.5), mean over the channels; 1 is the same."""
    return float(torch.as_tensor(structural_similarity_index_measure(image, content, data_range=1.0)))


def psnr(image: Picture, content: Picture) -> float:
    """Peak signal to noise ratio in dB; infinite for the same picture."""
    return float(peak_signal_noise_ratio(image, content, data_range=1.0))


@torch.no_grad()
def gram_difference(image: Picture, style: Picture, features: Features) -> float:
    """GMD: ‖G(image) − G(style)‖ / ‖G(style)‖ (Frobenius), mean over the layers `features` gives; 0 is the same.

    By the norm of the style's own matrix, so that no layer and no normalization of the Gram matrix outweighs another.
    """
    found, wanted = features(image), features(style)
    parts = []
    for layer, value in wanted.items():
        asked = gram_matrix(value)
        parts.append((gram_matrix(found[layer]) - asked).norm() / asked.norm())
    return float(torch.stack(parts).mean())


def tone(image: Picture, style: Picture) -> float:
    """Standard deviation of the picture's channels as a share of the painting's, mean of the three; 1 is as full.

    A perceptual loss does not see it: one network came to half of the painting's tones at a lower loss than others.
    """
    return float((image.std((2, 3)) / style.std((2, 3)).clamp(min=1e-6)).mean())


def grain(image: Picture, style: Picture) -> float:
    """Amplitude of the finest patterns, of periods from 2 to 3.5 pixels, as a share of the painting's; 1 is as fine."""
    return _finest(image) / max(_finest(style), 1e-12)


def _finest(image: Picture) -> float:
    """Root of the mean power of the grey picture, under a Hann window, per pixel, at periods from 2 to 3.5 pixels."""
    grey = image.mean((0, 1))
    window = torch.outer(*(torch.hann_window(side, periodic=False, device=image.device) for side in grey.shape))
    power = torch.fft.fft2((grey - grey.mean()) * window).abs().square() / window.square().sum().clamp(min=1e-12)
    down, across = (torch.fft.fftfreq(side, device=image.device) for side in grey.shape)
    frequency = torch.hypot(down[:, None], across[None])
    inside = (frequency >= 1 / 3.5) & (frequency <= 1 / 2)
    return float(power[inside].mean().sqrt()) if inside.any() else 0.0


def grid_pattern(paint: Callable[[Tensor, tuple[int, int]], Tensor], content: Picture) -> float:
    """What is locked to the pixel grid instead of moving with the photo: RMS in grey levels (1/255).

    Between the painting of a photo and the mean of the paintings of it moved by 0 to 3 pixels each way: every place on
    the 4 × 4 grid of a network that halves the size twice. `paint` is given where in the photo the picture lies.
    """
    h, w = (side - 3 for side in content.shape[-2:])
    moves = [(down, right) for down in range(4) for right in range(4)]
    painted = [paint(content[..., 3 - y :, 3 - x :], (3 - y, 3 - x))[..., y : y + h, x : x + w] for y, x in moves]
    mean = torch.stack(painted).mean(0)
    return 255 * float(torch.stack([(one - mean).square().mean() for one in painted]).mean().sqrt())


class Lpips:
    """Learned perceptual distance to a photo (Zhang et al. 2018, VGG, version 0.1); 0 is the same.

    Ours, because torchmetrics' insists on downloading the VGG16 that `find_weights` may have; its weights of the
    channels are those that torchmetrics ships.
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
