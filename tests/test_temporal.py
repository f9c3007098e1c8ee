"""Temporal training: pairs of frames with exact motion, the terms that compare their paintings, and runs with them."""

import math
import subprocess
from pathlib import Path

import pytest
import torch
from pictures import draw, smoke_pictures
from test_training import ENVIRONMENT, NoLoss, command, fit, losses, terms

from impasto.choices import LossOptions
from impasto.commands import run
from impasto.data.moved import BORDER, MARGIN, moved, shifted
from impasto.networks import TransformNet, load_network, save_network
from impasto.networks.preprocess import canvas
from impasto.networks.transform import TRAINING_MARGIN
from impasto.perceptual.target import StyleTarget
from impasto.perceptual.temporal import feature_error, luminance_change, temporal_error
from impasto.training.objective import Objective
from impasto.video.warping import positions, warped

NOTHING = StyleTarget({}, {}, {})


@pytest.fixture(autouse=True)
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smoke_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)


def constant_flow(right: float, down: float, *size: int) -> torch.Tensor:
    return torch.tensor([float(right), float(down)])[None, :, None, None].expand(1, 2, *size)


def everywhere(*size: int) -> torch.Tensor:
    return torch.ones(1, 1, *size, dtype=torch.bool)


def objective(**weights: float) -> Objective:
    """The temporal terms alone: of the perceptual loss, nothing is left."""
    made = Objective(LossOptions("compact", balance="fixed"), torch.device("cpu"), **weights)
    made.loss = NoLoss()
    return made


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames without noise."""
    monkeypatch.setattr("impasto.data.moved.NOISE", 0.0)


# The terms.


def test_flow_names_the_place_in_the_first_frame() -> None:
    """Right, then down: the second frame's (row 0, column 1) shows the first's (row 1, column 3)."""
    picture = torch.arange(20.0).reshape(1, 1, 4, 5)
    assert positions(constant_flow(2, 1, 4, 5))[0, :, 0, 1].tolist() == [3, 1]
    assert float(warped(picture, constant_flow(2, 1, 4, 5))[0, 0, 0, 1]) == pytest.approx(8)
    assert float(warped(picture, constant_flow(0.25, 0.5, 4, 5))[0, 0, 1, 2]) == pytest.approx(7 + 0.25 + 2.5)


def test_the_error_is_the_mean_over_trusted_values() -> None:
    before, after = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    after[0, :, 0, 0], after[0, :, 1, 1] = torch.tensor([0.3, 0.0, 0.6]), 9.0
    trusted = torch.tensor([[[[True, True], [False, False]]]])
    still = torch.zeros(1, 2, 2, 2)
    assert float(temporal_error(before, after, still, trusted)) == pytest.approx((0.09 + 0.36) / (3 * 2))
    assert float(temporal_error(before, after, still, ~everywhere(2, 2))) == 0


def test_a_painting_that_moves_with_its_photo_has_no_error() -> None:
    picture = draw(1)[None]
    here, there = picture[..., :64, :64], picture[..., 3:67, 2:66]
    inside = everywhere(64, 64).clone()
    inside[..., 61:, :] = inside[..., 62:] = False
    flow = constant_flow(2, 3, 64, 64)
    assert float(temporal_error(here, there, flow, inside)) < 1e-10
    assert float(temporal_error(here, here, flow, inside)) > 1e-4


def test_what_the_light_changes_is_no_error() -> None:
    """A frame lighter by 0.1 asks for a painting lighter by 0.1; without the change that would be an error of 0.01."""
    photo, painting, still = draw(1)[None], draw(2)[None], torch.zeros(1, 2, 96, 128)
    change = luminance_change(photo, photo + 0.1, still)
    assert torch.allclose(change, torch.tensor(0.1), atol=1e-5)
    assert float(temporal_error(painting, painting + 0.1, still, everywhere(96, 128), change)) < 1e-9
    assert float(temporal_error(painting, painting + 0.1, still, everywhere(96, 128))) == pytest.approx(0.01, rel=1e-4)
    green = photo.clone()
    green[:, 1] += 0.1
    assert torch.allclose(luminance_change(photo, green, still), torch.tensor(0.07152), atol=1e-5)


def test_gradients_reach_both_paintings() -> None:
    generator = torch.Generator().manual_seed(0)
    before, after = (torch.rand(2, 3, 5, 6, generator=generator, dtype=torch.float64).requires_grad_() for _ in "ab")
    flow = (2 * torch.rand(2, 2, 5, 6, generator=generator, dtype=torch.float64) - 1) * 1.3
    trusted = torch.rand(2, 1, 5, 6, generator=generator) > 0.3
    assert torch.autograd.gradcheck(lambda a, b: temporal_error(a, b, flow, trusted), (before, after))


def test_features_lie_where_the_network_puts_them() -> None:
    """Features that are their own place in pixels: moved by (4, 8) pixels, they differ by just that."""
    rows, columns = (4.0 * torch.arange(side) - 8 for side in (20, 24))
    places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))[None]
    flow, trusted = constant_flow(4, 8, 64, 80), everywhere(64, 80).clone()
    trusted[..., 52:, :] = trusted[..., 72:] = False
    moved_places = places + flow[..., :1, :1]
    assert float(feature_error(places, moved_places, flow, trusted, 8)) < 1e-10
    error = float(feature_error(places, places, flow, trusted, 8))
    assert error == pytest.approx(float(feature_error(7 * places, 7 * places, flow, trusted, 8))), "of any scale"
    rows, columns = rows[2:18], columns[2:22]
    variance = (rows.var(correction=0) + columns.var(correction=0)) / 2
    assert error == pytest.approx((4**2 + 8**2) / 2 / (2 * float(variance)), rel=1e-4)


def test_a_network_hands_over_its_features() -> None:
    """Centred on every fourth pixel: a bump in the photo raises them most at its own place."""
    network, kept = TransformNet(1, 4, 1, canvas=0.0), []
    photo = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    bump = photo.clone()
    bump[..., 32, 16] += 5
    with torch.no_grad():
        painted = network(photo, margin=TRAINING_MARGIN, kept=kept)
        network(bump, margin=TRAINING_MARGIN, kept=kept)
        assert torch.equal(painted, network(photo, margin=TRAINING_MARGIN))
    assert [tuple(of.shape) for of in kept] == [(1, 16, 20, 16)] * 2
    change = (kept[1] - kept[0]).square().sum(1)[0]
    row, column = divmod(int(change.argmax()), 16)
    assert abs(row - (32 + 8) // 4) <= 1 and abs(column - (16 + 8) // 4) <= 1


# The pairs.


def own_places(number: int, side: int) -> torch.Tensor:
    """Photos whose red and green say where each pixel is; blue is 0.5, so that a change of brightness is known."""
    along = torch.arange(side) / (2 * side) + 0.2
    right, down = torch.meshgrid(along, along, indexing="xy")
    return torch.stack([right, down, torch.full_like(right, 0.5)]).expand(number, -1, -1, -1)


@pytest.mark.parametrize("side", [80, 192])
def test_the_flow_is_exact(side: int, quiet: None) -> None:
    """Decoded from the colours of the frames, for camera and layer alike."""
    margin = min(MARGIN, side // 8)
    photos = own_places(6, side)
    pair = moved(photos, photos, 3, margin)
    assert pair.first.shape == pair.second.shape == (6, 3, side - 2 * margin, side - 2 * margin)
    gain = 2 * pair.second[:, 2:]
    assert (gain - 1).abs().max() <= 0.0501 and gain.std() > 0.005
    places = (pair.second[:, :2] / gain - 0.2) * 2 * side - margin
    trusted = pair.trusted.expand(-1, 2, -1, -1)
    # In pixels; torch's bicubic filter moves a slope by up to 0.05.
    assert (places - positions(pair.flow))[trusted].abs().max() < 0.06
    assert pair.trusted.float().mean() > 0.15
    inside = positions(pair.flow)[trusted]
    assert inside.min() >= BORDER - 0.01 and inside.max() <= side - 2 * margin - 1 - BORDER + 0.01
    assert not pair.trusted[..., :BORDER, :].any() and not pair.trusted[..., -BORDER:].any()


def test_warping_the_first_frame_gives_the_second_where_trusted(quiet: None) -> None:
    photos = torch.stack([draw(seed, 128, 128, blur=4.0) for seed in range(6)])
    pair = moved(photos, photos.roll(1, 0), 5, MARGIN)
    guess = warped(pair.first, pair.flow)
    for second, first, trusted in zip(pair.second, guess, pair.trusted, strict=True):
        a, b = first[:, trusted[0]], second[:, trusted[0]]
        gain = float((a * b).sum() / a.square().sum())
        assert abs(gain - 1) <= 0.051 and (gain * a - b).abs().max() < 0.01


def test_a_pasted_layer_hides_and_uncovers(quiet: None) -> None:
    """A white layer on black: where a frame shows another layer than the frame before, nothing is trusted."""
    black = torch.zeros(8, 3, 160, 160)
    pair = moved(black, black + 1, 1, MARGIN)
    layer = pair.second[:, :1] > 0.5
    assert 0.05 < layer.float().mean() < 0.4 and bool((layer & pair.trusted).flatten(1).any(1).any())
    before = warped(pair.first, pair.flow)[:, :1]
    assert (before[pair.trusted & layer] > 0.999).all() and (before[pair.trusted & ~layer] == 0).all()
    uncovered = ~layer & (before > 0.5)
    assert int(uncovered.sum()) > 100 and not (uncovered & pair.trusted).any()
    rim = (pair.second[:, :1] > 0.01) & (pair.second[:, :1] < 0.94)
    assert not (rim & pair.trusted).any()


def test_the_second_frame_has_noise() -> None:
    pair = moved(torch.full((40, 3, 96, 96), 0.5), torch.full((40, 3, 96, 96), 0.5), 1, 8)
    noise = 255 * pair.second.std((1, 2, 3))
    assert noise.max() < 2.1 and noise.mean() == pytest.approx(1, rel=0.3) and pair.first.std() == 0


def test_motions_are_those_of_a_camera() -> None:
    """Shifts up to 12 pixels, turns up to 3°, sizes from 0.95 to 1.05, and a field of a few pixels; by the seed."""
    photos = draw(1, 160, 160).expand(32, -1, -1, -1)
    pair, again, other = (moved(photos, photos, seed, MARGIN) for seed in (2, 2, 3))
    assert torch.equal(pair.second, again.second) and torch.equal(pair.flow, again.flow)
    assert (pair.flow - other.flow).abs().mean() > 1
    middle = pair.flow[:, :, 60:68, 60:68].mean((2, 3))
    assert 10 < middle.abs().max() < 12 + 4 * 1.5 and middle.abs().mean() == pytest.approx(6, rel=0.25)
    ends = pair.flow[..., :, -1] - pair.flow[..., :, 0]  # of a row: its growth, and its turn
    assert ends[:, 0].mean(1).abs().mean() / 127 == pytest.approx(0.025, rel=0.5)
    assert ends[:, 1].mean(1).abs().mean() / 127 == pytest.approx(math.radians(1.5), rel=0.5)


# The objective.


def test_less_contrast_does_not_lower_the_term(quiet: None) -> None:
    """It is a fraction: 1 for paintings that have nothing to do with each other, at any contrast."""
    noise = torch.Generator().manual_seed(0)

    def paint(contrast: float) -> float:
        made = objective(temporal_weight=1.0)
        fractions, _ = made(
            lambda content, code, origin: 0.5 + contrast * torch.randn(content.shape, generator=noise),
            torch.zeros(1, 3, 192, 192), torch.ones(1, 1), NOTHING, step=0,
        )  # fmt: skip
        return float(fractions["temporal"])

    # Bilinear sampling between pixels takes up to 3/4 of the power of white noise from one of the two.
    assert 0.6 < paint(0.2) < 1 and paint(0.05) == pytest.approx(paint(0.2), rel=0.05)


@pytest.mark.parametrize("step", [0, 4, 8])
def test_the_shift_is_a_special_case(step: int) -> None:
    """The number of before: mean squared difference of the part that both show, 8 pixels from its border."""
    network = TransformNet(1, 4, 1)
    content = torch.stack([draw(seed, 68, 68) for seed in range(5)])
    fractions, total = objective(shift_weight=3.0, canvas=3.0)(
        lambda content, code, origin: network(content, code, TRAINING_MARGIN, origin),
        content, torch.ones(1, 1), NOTHING, step,
    )  # fmt: skip
    down, right, pairs = 1 + step % 3, 1 + step // 3 % 3, slice(step % 4, None, 4)
    code = torch.ones(1, 1)
    with torch.no_grad():
        here = network(content[..., :64, :64], code, TRAINING_MARGIN)[pairs]
        moved_photo = content[pairs, :, down : down + 64, right : right + 64]
        there = network(moved_photo, code, TRAINING_MARGIN, (down, right))
    first, second = here[..., down:, right:], there[..., : 64 - down, : 64 - right]
    expected = float((first - second)[..., 8:-8, 8:-8].square().mean())
    assert float(fractions["shift"]) == pytest.approx(expected, rel=1e-3)
    assert float(total) == pytest.approx(3 * expected, rel=1e-3)


def test_a_shifted_pair_is_whole_pixels() -> None:
    photos = draw(1, 68, 68)[None]
    pair = shifted(photos, 64, 3, 1)
    assert torch.equal(pair.second, photos[..., 3:67, 1:65]) and pair.origin == (3, 1)
    assert (warped(pair.first, pair.flow) - pair.second)[pair.trusted.expand(1, 3, -1, -1)].abs().max() < 1e-4
    assert int(pair.trusted.sum()) == (64 - 16 - 3) * (64 - 16 - 1)


def test_the_canvas_moves_with_the_photo(quiet: None) -> None:
    content, code = torch.full((4, 3, 192, 192), 0.5), torch.ones(1, 1)

    def paint(content: torch.Tensor, code: torch.Tensor, origin: tuple[int, int]) -> torch.Tensor:
        rows, columns = (start + torch.arange(160) for start in origin)
        return content + canvas(rows, columns, 6.0)

    def term(carried: float) -> float:
        return float(objective(temporal_weight=1.0, canvas=carried)(paint, content, code, NOTHING, 1)[1])

    # Warped bilinearly between pixels, waves of 12 pixels and more lose a little.
    assert term(6.0) < 2e-3 and term(0.0) > 0.3


@pytest.mark.parametrize("photos", [1, 3, 6])
def test_each_photo_is_painted_in_its_own_style(photos: int, quiet: None) -> None:
    """Paintings lighter by the style: the second frame has the code of its first, and no error is left."""
    codes = torch.arange(1.0, photos + 1)[:, None] / 10
    seen = []

    def paint(content: torch.Tensor, code: torch.Tensor, origin: tuple[int, int]) -> torch.Tensor:
        seen.append(content)
        return content + code[:, :, None, None]

    for step in range(photos):
        content = torch.full((photos, 3, 96, 96), 0.5)
        made = objective(temporal_weight=2.0)
        with torch.no_grad():
            fractions, total = made(paint, content, codes, NOTHING, step)
        # What is left is the change of light, which these paintings do not follow.
        assert float(fractions["temporal"]) < 0.03**2 and float(total) == pytest.approx(
            2 * float(fractions["temporal"])
        )
    firsts, seconds = seen[::2], seen[1::2]
    assert all(len(first) == photos for first in firsts)
    assert all(len(second) == math.ceil(photos / 4) or photos > 4 for second in seconds)


def test_a_few_steps_lower_the_terms() -> None:
    torch.manual_seed(0)
    network, made = TransformNet(1, 4, 1), objective(temporal_weight=1.0, feature_weight=0.1, canvas=3.0)
    content = torch.stack([draw(seed, 96, 96, blur=2.0) for seed in range(2)])
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    seen: list[dict[str, float]] = []
    for _ in range(15):
        fractions, total = made(
            lambda content, code, origin, kept: network(content, code, TRAINING_MARGIN, origin, kept=kept),
            content, torch.ones(1, 1), NOTHING, step=0,
        )  # fmt: skip
        seen.append({name: float(value) for name, value in fractions.items()})
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert seen[-1]["temporal"] < 0.7 * seen[0]["temporal"] and seen[-1]["feature"] < 0.9 * seen[0]["feature"]


# Runs.

STEADY = ("--model.temporal_weight", "10", "--model.feature_weight", "0.5", "--data.crop", "64",
          "--previews.every_n_steps", "0")  # fmt: skip


def test_the_terms_are_part_of_the_loss_and_a_run_resumes_bit_for_bit() -> None:
    assert fit("--run", "whole", *STEADY) == 0
    expected = losses("whole")
    row = {name: float(value) for name, value in expected[6].items() if value}
    parts = row["train/content"] + row["train/style"] + 0.1 * row["train/tv"]
    parts += 10 * row["train/temporal"] + 0.5 * row["train/feature"]
    assert row["train/temporal"] > 0 and row["train/feature"] > 0
    assert row["train/loss"] == pytest.approx(parts, rel=1e-4)
    training = load_network("whole/smoke.safetensors").metadata["training"]
    assert (training["temporal_weight"], training["feature_weight"]) == (10, 0.5)
    checkpoint = "whole/checkpoints/step-000004.ckpt"
    assert fit("--run", "resumed", *STEADY, "--ckpt_path", checkpoint) == 0
    found = losses("resumed")
    assert list(found) == [5, 6] and all(terms(found[step]) == terms(expected[step]) for step in found)


def test_a_run_learns_from_clips_too_and_resumes_bit_for_bit() -> None:
    """In every second step, of the pairs that a moving camera gave; the other steps are as without clips."""
    from clips import make, pan  # needs av

    pytest.importorskip("cv2", reason="the video extra is not installed")
    make(Path("pan.mp4"), (128, 96), range(12), pictures=pan)
    clips = (*STEADY, "--data.clips", "pan.mp4")
    assert fit("--run", "without", *STEADY) == fit("--run", "whole", *clips) == 0
    expected, without = losses("whole"), losses("without")
    assert terms(expected[1]) == terms(without[1]) and terms(expected[2]) != terms(without[2])
    training = load_network("whole/smoke.safetensors").metadata["training"]
    assert training["clips"] == ["pan.mp4"]
    assert fit("--run", "resumed", *clips, "--data.num_workers=2",
               "--ckpt_path", "whole/checkpoints/step-000004.ckpt") == 0  # fmt: skip
    found = losses("resumed")
    assert list(found) == [5, 6] and all(terms(found[step]) == terms(expected[step]) for step in found)


def test_runs_in_half_precision_in_two_processes() -> None:
    options = ("--trainer.precision", "bf16-mixed", "--trainer.devices", "2", "--trainer.strategy", "ddp",
               "--data.batch_size", "1", "--trainer.max_steps", "2", "--trainer.val_check_interval", "2")  # fmt: skip
    done = subprocess.run(command(*STEADY, "--run", "r", *options), env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    row = losses("r")[2]
    assert 0 < float(row["train/temporal"]) < 2 and 0 < float(row["train/feature"]) < 2


def test_any_painting_learns_it_too() -> None:
    assert run("train-any", "fit", "--config", str(Path(__file__).parents[1] / "configs" / "arbitrary_cpu.yaml"),
               "--data.photos=smoke/photos", "--data.crop=64", "--data.batch_size=2", "--data.num_workers=0",
               "--model.paintings=[smoke/painting.png]", "--model.views=1", "--model.style_size=96", "--model.basis=2",
               "--model.width=4", "--model.residual_blocks=1", "--model.start_from=null", "--model.gap_photos=2",
               "--model.shift_weight=0", "--model.temporal_weight=5", "--model.feature_weight=1", "--run=any",
               "--minutes=null", "--trainer.max_steps=1", "--trainer.log_every_n_steps=1",
               "--trainer.precision=32-true", "--previews.every_n_steps=0") == 0  # fmt: skip
    assert float(losses("any")[1]["train/temporal"]) > 0


@pytest.mark.parametrize(("options", "message"), [
    (("--model.temporal_weight", "-1"), "temporal_weight -1.0, feature_weight 0.0: must be at least 0"),
    (("--model.feature_weight", "-2"), "temporal_weight 0.0, feature_weight -2.0: must be at least 0"),
    (("--model.temporal_weight", "5", "--model.shift_weight", "3"), "shift_weight 3.0 beside temporal_weight"),
    (("--data.clips", "clip.mp4"), "--data.clips: acts only with --model.temporal_weight or --model.feature_weight"),
    (("--model.temporal_weight", "5", "--data.clips", "clip.mp4"), "clip.mp4: no such"),
    (("--model.temporal_weight", "5", "--model.start_from", "grainy.safetensors"), "removes 2 grey levels"),
])  # fmt: skip
def test_mistakes_are_one_line(options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture) -> None:
    save_network(Path("grainy.safetensors"), TransformNet(1, 4, 1, grain=2.0))
    assert fit(*options) == 2
    error = capsys.readouterr().err
    said = [line for line in error.splitlines() if line.startswith("impasto train:")]
    assert len(said) == 1 and message in said[0] and "Traceback" not in error


def test_features_of_a_frozen_network_learn_nothing(capsys: pytest.CaptureFixture) -> None:
    options = ("--model.paintings=[smoke/painting.png]", "--model.method=adain", "--model.feature_weight=1")
    assert run("train-any", "fit", "--data.photos=smoke/photos", *options) == 2
    assert "feature_weight 1.0: must be 0 with method adain" in capsys.readouterr().err
