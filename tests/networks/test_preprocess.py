"""The grain filter against scipy's, and the canvas by its spectrum."""

import pytest
import torch
from scipy import signal

from impasto.data.files import located
from impasto.images import read_image, resize
from impasto.networks.preprocess import canvas, canvas_at, without_grain


def test_without_grain_is_scipys_wiener_filter_away_from_the_border() -> None:
    photo = resize(read_image(located("package:skimage/data/camera.png")).pixels, 96)
    expected = signal.wiener(photo[0, 0].double().numpy(), 7, noise=(2 / 255) ** 2)
    found = without_grain(photo, 2.0)[0]
    torch.testing.assert_close(found[0, 3:-3, 3:-3], torch.tensor(expected)[3:-3, 3:-3].float(), rtol=0, atol=1e-4)
    assert (found - photo[0]).abs().max() > 1 / 255


def test_without_grain_takes_noise_and_leaves_edges_and_hues() -> None:
    noise = torch.randn(1, 3, 64, 64) * 2 / 255 / 3
    assert without_grain(0.5 + noise, 2.0).sub(0.5).abs().max() < 1 / 255
    edge = torch.zeros(1, 3, 32, 32)
    edge[:, 0, :, 16:] = 1.0
    torch.testing.assert_close(without_grain(edge, 2.0), edge, rtol=0, atol=1e-3)
    assert without_grain(torch.full((1, 3, 1, 1), 0.3), 2.0).flatten().tolist() == pytest.approx([0.3] * 3)


def test_canvas_is_faint_has_waves_of_12_to_40_pixels_and_is_the_same_for_every_photo() -> None:
    whole = canvas(torch.arange(480), torch.arange(480), 6.0)
    assert whole.std().item() == pytest.approx(6 / 255, rel=0.05)
    power = torch.fft.fft2(whole * torch.outer(torch.hann_window(480), torch.hann_window(480))).abs().square()
    frequency = torch.fft.fftfreq(480)
    frequency = torch.hypot(frequency[:, None], frequency[None])  # waves in a pixel
    inside = (frequency > 1 / 42) & (frequency < 1 / 11.5)
    assert power[inside].sum() > 0.99 * power.sum()
    torch.testing.assert_close(
        canvas(torch.arange(300, 370), torch.arange(20, 110), 6.0), whole[300:370, 20:110], rtol=0, atol=1e-5
    )


def test_the_canvas_at_whole_positions_is_the_canvas_and_between_them_it_is_its_curve() -> None:
    rows, columns = torch.arange(-5, 40), torch.arange(3, 90)
    down, right = torch.meshgrid(rows.double(), columns.double(), indexing="ij")
    whole = canvas(rows, columns, 6.0)
    torch.testing.assert_close(canvas_at(down, right, 6.0).float(), whole, rtol=0, atol=1e-5)
    # Half a pixel further, the cubic through four neighbours comes near: the shortest wave has 12 pixels.
    between = canvas_at(down, right + 0.5, 6.0)[:, 1:-2].float()
    left, right_of, far_left, far_right = whole[:, 1:-2], whole[:, 2:-1], whole[:, :-3], whole[:, 3:]
    torch.testing.assert_close(
        between, (9 * (left + right_of) - far_left - far_right) / 16, rtol=0, atol=6 / 255 * 0.02
    )
