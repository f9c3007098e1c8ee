"""Clips: what a frame takes over from the one before, what a cut ends, and that a clip can be continued."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from impasto.images import to_levels
from impasto.inference import Stylizer
from impasto.inference import steady as module
from impasto.inference.steady import SteadyPainter
from impasto.networks import TransformNet

pytest.importorskip("cv2", reason="the video extra is not installed")
from pictures import draw

from impasto.video.motion import Flicker, Motion, estimate

STEP = 3  # pixels that the panning clip moves with a frame


@pytest.fixture(scope="module")
def stylizer(network: TransformNet) -> Stylizer:
    return Stylizer(network, device="cpu")


@pytest.fixture(scope="module")
def gallery() -> Stylizer:
    """A trained network, whose strokes begin on its canvas."""
    return Stylizer("gallery", "great_wave", device="cpu", backend="torch")


def levels(seed: int, height: int = 96, width: int = 160) -> np.ndarray:
    """A picture with structures of several sizes, uint8 H×W×3."""
    picture = (draw(seed, height, width) + draw(seed + 1, height, width, blur=1.5)) / 2
    return to_levels(picture[None])[0].permute(1, 2, 0).numpy()


def panning(number: int, width: int = 96) -> list[np.ndarray]:
    """A window that moves over a wide picture by `STEP` pixels a frame."""
    wide = levels(1, width=width + STEP * number)
    return [np.ascontiguousarray(wide[:, STEP * at : STEP * at + width]) for at in range(number)]


def changes(frames: list[np.ndarray], painter: SteadyPainter) -> float:
    """Return e of a painted clip, by the flow of its frames."""
    measured = Flicker()
    for number, frame in enumerate(frames):
        motion = estimate(frames[number - 1], frame) if number else None
        measured.add(painter(frame).astype(np.float32) / 255, motion)
    return measured.error


def test_steady_0_is_the_stylizer(stylizer: Stylizer) -> None:
    painter = SteadyPainter(stylizer, 0)
    for frame in panning(2):
        assert (painter(frame) == np.asarray(stylizer(Image.fromarray(frame)))).all()
    assert not painter.state


def test_the_first_frame_is_the_stylizers(stylizer: Stylizer) -> None:
    frame = levels(4)
    plain = np.asarray(stylizer(Image.fromarray(frame))).astype(int)
    assert np.abs(SteadyPainter(stylizer)(frame) - plain).max() <= 1


def test_a_clip_that_stands_still_is_painted_once(stylizer: Stylizer) -> None:
    painter, frame = SteadyPainter(stylizer), levels(3)
    first = painter(frame).astype(int)
    for _ in range(3):
        assert np.abs(painter(frame) - first).max() <= 1


def test_a_moving_photo_carries_its_canvas_along(gallery: Stylizer) -> None:
    """With a share of 0.01, next to nothing is blended: what flickers less is the canvas, which is carried."""
    frames = panning(5, width=160)
    alone, carried, blended = (changes(frames, SteadyPainter(gallery, share)) for share in (0, 0.01, 0.5))
    assert carried < 0.9 * alone and blended < 0.55 * carried


def test_the_canvas_returns_to_its_place_by_a_hundredth_a_frame() -> None:
    """Carried by 2 pixels a frame: 2·0.99, then (1.98 + 2)·0.99, …, towards 2·0.99 / 0.01 = 198."""
    step = Motion(np.full((5, 7, 2), (2.0, 0.0), np.float32), np.ones((5, 7), bool))
    carried, expected = torch.zeros(5, 7, 2), 0.0
    for _ in range(1000):
        carried, expected = module._carried(carried, step), (expected + 2) * 0.99
    assert abs(expected - 198) < 0.1
    torch.testing.assert_close(carried[..., 0], torch.full((5, 7), expected), rtol=1e-4, atol=0)
    assert not carried[..., 1].any()


def test_a_cut_begins_a_new_scene(stylizer: Stylizer) -> None:
    painter, other = SteadyPainter(stylizer), 255 - levels(9, width=96)
    for frame in panning(3):
        painter(frame)
    assert (painter(other) == SteadyPainter(stylizer)(other)).all()


def test_a_fade_from_black_ends_as_the_picture_alone(stylizer: Stylizer) -> None:
    """The statistics of the black frame would paint the last one in garish patches."""
    frame, painter = levels(5), SteadyPainter(stylizer, 0.5)
    for share in np.linspace(0, 1, 9):
        last = painter((frame * share).astype(np.uint8))
    for _ in range(6):
        last = painter(frame)
    assert np.abs(last.astype(int) - SteadyPainter(stylizer)(frame)).mean() < 3


def test_a_continued_clip_is_the_uninterrupted_one(stylizer: Stylizer) -> None:
    frames, painter = panning(6), SteadyPainter(stylizer)
    whole = [painter(frame) for frame in frames]
    before = SteadyPainter(stylizer)
    for frame in frames[:3]:
        before(frame)
    after = SteadyPainter(stylizer)
    after.restore({name: value.copy() for name, value in before.state.items()})
    for frame, expected in zip(frames[3:], whole[3:], strict=True):
        assert (after(frame) == expected).all()


def test_a_long_clip_neither_fades_nor_grows_patterns(gallery: Stylizer) -> None:
    """Contrast in windows of 16 pixels stays that of frames painted alone; blurred again and again, it would fall."""

    def contrast(frame: np.ndarray) -> float:
        return float(frame.mean(2).reshape(6, 16, 6, 16).std((1, 3)).mean())

    frames, painter, alone = panning(40), SteadyPainter(gallery), SteadyPainter(gallery, 0)
    ratios = np.array([contrast(painter(frame)) / contrast(alone(frame)) for frame in frames])
    assert ratios.min() > 0.85 and ratios.max() < 1.3
    assert 0.9 < ratios[-20:].mean() / ratios[:20].mean() < 1.15


@pytest.mark.parametrize(
    "options",
    [{"size": 60}, {"stroke": 2}, {"stroke": 0.5}, {"tile": 112}, {"strength": 0.5}, {"keep_colors": True}],
    ids=str,
)  # fmt: skip
def test_options_act_as_on_photos(network: TransformNet, options: dict) -> None:
    stylizer = Stylizer(network, device="cpu", **options)
    painter, frames = SteadyPainter(stylizer), panning(2, width=150)
    plain = np.asarray(stylizer(Image.fromarray(frames[0]))).astype(int)
    painted = painter(frames[0])
    assert painted.shape == plain.shape
    assert np.abs(painted - plain).mean() < 2
    assert painter(frames[1]).shape == plain.shape


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (37, 23)])
def test_any_size_and_alpha(stylizer: Stylizer, shape: tuple[int, int]) -> None:
    painter = SteadyPainter(stylizer)
    for seed in range(3):
        frame = np.dstack([levels(seed, 64, 64), np.full((64, 64), 7 * seed, np.uint8)])[: shape[0], : shape[1]]
        painted = painter(np.ascontiguousarray(frame))
        assert painted.shape == frame.shape and (painted[..., 3] == 7 * seed).all()


def test_the_style_may_change(network: TransformNet) -> None:
    torch.manual_seed(1)
    two = TransformNet(2, width=4, residual_blocks=1)
    two.load_state_dict({
        name: value.expand_as(two.state_dict()[name]) if name.endswith(("gamma", "beta")) else value
        for name, value in network.state_dict().items()
    })  # fmt: skip
    with torch.no_grad():
        two.layers[0].norm.gamma[1] *= -1  # type: ignore[union-attr,index]
    stylizer, frame = Stylizer(two, "style1", device="cpu"), levels(6)
    painter = SteadyPainter(stylizer)
    painter(frame)
    for _ in range(8):
        last = painter(frame, torch.tensor([[0.0, 1.0]]))
    there = SteadyPainter(stylizer.bound("style2"))(frame)
    assert np.abs(last.astype(int) - there).max() <= 2
    assert np.abs(there.astype(int) - SteadyPainter(stylizer)(frame)).mean() > 5


def test_an_export_without_parts_says_that_frames_are_measured_one_by_one(
    gallery_onnx: Path, gallery: Stylizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stylizer = Stylizer(gallery_onnx, "great_wave")
    painter, torchs = SteadyPainter(stylizer), SteadyPainter(gallery)
    assert "--parts" in painter.notes[0] and not torchs.notes
    monkeypatch.setattr(gallery.painter, "takes_statistics", False)
    for frame in panning(3):
        apart = np.abs(painter(frame).astype(int) - torchs(frame)).mean()
        assert apart < 1  # the export takes bytes: the canvas moves in whole levels


@pytest.mark.parametrize("steady", [-0.1, 1.5, float("nan")])
def test_steady_out_of_range(stylizer: Stylizer, steady: float) -> None:
    with pytest.raises(ValueError, match="must be from 0"):
        SteadyPainter(stylizer, steady)
