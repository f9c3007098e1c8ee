"""Metrics against independent references and hand-worked answers."""

import pytest
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image.lpips import _LPIPS

from impasto.evaluation.metrics import Lpips, grain, gram_difference, grid_pattern, psnr, ssim, tone


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    photo = torch.rand(1, 3, 40, 56, generator=generator)
    return (photo + 0.2 * torch.randn(photo.shape, generator=generator)).clamp(0, 1), photo


def test_ssim_agrees_with_scikit_image(pair) -> None:
    image, photo = pair
    arrays = [picture[0].permute(1, 2, 0).double().numpy() for picture in pair]
    expected = structural_similarity(
        *arrays, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(image, photo) == pytest.approx(expected, abs=5e-3)  # they treat the border differently
    assert ssim(photo, photo) == pytest.approx(1.0)


def test_psnr_by_hand() -> None:
    grey = torch.full((1, 3, 4, 4), 0.5)
    assert psnr(grey + 0.1, grey) == pytest.approx(20.0, abs=1e-3)  # 10 · log10(1 / 0.01)


def test_gram_difference_by_hand() -> None:
    """Channels (1, 2) and (3, 4) against twice as much: the Gram matrix is four times as large."""
    style = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 2, 1, 2).repeat(1, 2, 1, 1)[:, :3]

    def itself(image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"relu1_1": image}

    assert gram_difference(style, style, itself) == 0
    assert gram_difference(2 * style, style, itself) == pytest.approx(3.0)
    assert gram_difference(0 * style, style, itself) == pytest.approx(1.0)


def test_tone_by_hand() -> None:
    """Half the contrast around another grey is half the tone."""
    style = torch.tensor([0.2, 0.8]).repeat(3, 8, 4)[None]
    assert tone(style, style) == pytest.approx(1.0)
    assert tone(0.4 + 0.5 * (style - 0.5), style) == pytest.approx(0.5)
    assert tone(torch.full_like(style, 0.5), style) == 0


def waves(period: float, amplitude: float, size: int = 128) -> torch.Tensor:
    return (0.5 + amplitude * torch.cos(2 * torch.pi * torch.arange(size) / period)).repeat(1, 3, size, 1)


def test_grain_is_the_amplitude_of_waves_of_two_to_three_and_a_half_pixels() -> None:
    style = waves(2.5, 0.1)
    assert grain(style, style) == pytest.approx(1.0)
    assert grain(waves(2.5, 0.2), style) == pytest.approx(2.0, rel=0.02)
    assert grain(waves(8, 0.4), style) < 0.01 and grain(torch.full_like(style, 0.5), style) < 0.01


def test_grain_does_not_depend_on_the_size_of_the_pictures() -> None:
    noise = torch.rand(1, 3, 384, 320, generator=torch.Generator().manual_seed(0))
    assert grain(noise[..., :192, :256], noise) == pytest.approx(1.0, rel=0.05)


def test_lpips_agrees_with_torchmetrics(pair) -> None:
    """Over the same random VGG16, since the real one is not everywhere at hand."""
    ours, theirs = Lpips("random"), _LPIPS(net="vgg", pnet_rand=True)
    convolutions = [value for name, value in ours.features.network.named_parameters()]
    slices = [value for name, value in theirs.net.named_parameters()]
    assert len(convolutions) == len(slices) == 26
    for mine, value in zip(convolutions, slices, strict=True):
        value.data.copy_(mine)
    image, photo = pair
    with torch.no_grad():
        expected = float(theirs.eval()(image, photo, normalize=True))
    assert expected > 0.01 and ours(image, photo) == pytest.approx(expected, rel=1e-3)
    assert ours(photo, photo) == 0


def test_what_is_locked_to_the_grid_by_hand() -> None:
    """Dots every 4 pixels, a tenth above the rest: σ = 0.1 · √(1/16 · 15/16) of the range; what moves along is none."""
    content = torch.rand(1, 3, 19, 27, generator=torch.Generator().manual_seed(0))

    def dotted(photo: torch.Tensor, _: tuple[int, int]) -> torch.Tensor:
        painted = 0.5 * photo
        painted[..., ::4, ::4] += 0.1
        return painted

    assert grid_pattern(dotted, content) == pytest.approx(255 * 0.1 * (15 / 256) ** 0.5, rel=1e-3)
    assert grid_pattern(lambda photo, _: photo.square(), content) < 1e-3
