"""Motion between frames: flow, the trusted mask, warping, cuts and flicker."""

import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import draw
from PIL import Image

cv2 = pytest.importorskip("cv2", reason="the video extra is not installed")

from impasto.video.motion import Flicker, Motion, chained, estimate, scene_motion, temporal_error, warped  # noqa: E402


def frame(seed: int, height: int = 180, width: int = 320, blur: float = 3.0) -> np.ndarray:
    drawn = draw(seed, height, width, blur).permute(1, 2, 0)
    return (drawn * 255).round().to(torch.uint8).numpy()


def still(height: int, width: int, trusted: bool = True) -> Motion:
    return Motion(np.zeros((height, width, 2), np.float32), np.full((height, width), trusted))


def read(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    picture = Image.open(path).convert("RGB")
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS) if size else picture)


def frames(path: Path, count: int, step: int = 1) -> list[np.ndarray]:
    """The first frames of a clip, every `step`-th, scaled to 320×180."""
    clip, found = cv2.VideoCapture(str(path)), []
    for number in range(count * step):
        there, read = clip.read()
        if not there:
            break
        if number % step == 0:
            small = cv2.resize(read, (320, 180), interpolation=cv2.INTER_AREA)
            found.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    return found


# --- flow


@pytest.mark.parametrize(("x", "y"), [(5, -3), (-8, 0), (0, 6), (0, 0)])
def test_a_picture_moved_by_whole_pixels_has_that_flow_and_is_warped_exactly(x: int, y: int) -> None:
    canvas = frame(1, 220, 360)
    first, second = canvas[20:200, 20:340], canvas[20 + y : 200 + y, 20 + x : 340 + x]
    motion = estimate(first, second)
    inner = (slice(12, -12), slice(12, -12))
    assert np.abs(motion.flow[inner] - (x, y)).max() < 0.4
    assert np.abs(motion.flow[inner] - (x, y)).mean() < 0.02
    assert motion.trusted[inner].mean() > 0.99
    exact = np.broadcast_to(np.float32([x, y]), motion.flow.shape)
    for order in ("linear", "bicubic"):
        moved = warped(first.astype(np.float32), np.ascontiguousarray(exact), order)
        np.testing.assert_allclose(moved[inner], second[inner], atol=1e-3)


def test_what_comes_in_from_outside_is_not_trusted() -> None:
    canvas = frame(2, 180, 360)
    motion = estimate(canvas[:, :320], canvas[:, 12:332])  # the last 12 columns are new
    assert motion.trusted[10:-10, 12:290].mean() > 0.99
    assert motion.trusted[:, -10:].mean() < 0.1


def test_what_was_covered_is_not_trusted() -> None:
    background, thing = frame(3), frame(4)[40:120, 60:160]
    first, second = background.copy(), background.copy()
    first[50:130, 100:200] = thing
    second[50:130, 116:216] = thing  # uncovers 16 columns at its left
    motion = estimate(first, second)
    assert motion.trusted[60:120, 102:114].mean() < 0.15
    assert motion.trusted[60:120, 130:200].mean() > 0.9  # the thing itself
    assert motion.trusted[:, :80].mean() > 0.98
    assert np.abs(motion.flow[70:110, 140:190] - (-16, 0)).max() < 1


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 200), (11, 40), (15, 200), (33, 31), (321, 7)])
def test_any_size_has_finite_motion(size: tuple[int, int]) -> None:
    for first, second in [
        (np.zeros((*size, 3), np.uint8), np.zeros((*size, 3), np.uint8)),
        (frame(5, 400, 300)[: size[0], : size[1]], frame(6, 400, 300)[: size[0], : size[1]]),
    ]:
        motion = estimate(first, second)
        assert motion.flow.shape == (*size, 2)
        assert motion.flow.dtype == np.float32
        assert motion.trusted.shape == size
        assert np.isfinite(motion.flow).all()
        painting = first.astype(np.float32) / 255
        for order in ("linear", "bicubic"):
            moved = warped(painting, motion.flow, order)
            assert moved.shape == painting.shape
            assert np.isfinite(moved).all()
        scene_motion(first, second)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_frames_stand_still(value: int) -> None:
    flat = np.full((90, 160, 3), value, np.uint8)
    motion = estimate(flat, flat)
    assert np.abs(motion.flow).max() < 1e-3
    assert motion.trusted.all()


@pytest.mark.parametrize(("scene", "error", "share"), [("alley_1", 0.25, 0.93), ("cave_2", 0.92, 0.85),
                                                        ("market_5", 4.3, 0.5)])  # fmt: skip
def test_the_flow_is_near_the_true_one(shared: Path, scene: str, error: float, share: float) -> None:
    """Sintel's true flow leads from the first frame to the second, so the pair is swapped here."""
    folder = shared / "data" / "video" / "sintel_true_flow"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    first, second = (read(folder / f"{scene}_{number}.png") for number in (2, 3))
    true = np.load(folder / f"{scene}_flow.npz")["flow"].astype(np.float32)
    motion = estimate(second, first)
    distance = np.linalg.norm(motion.flow - true, axis=-1)
    assert distance[motion.trusted].mean() < error
    assert motion.trusted.mean() > share
    occluded = read(folder / f"{scene}_occluded.png")[..., 0] > 0
    assert motion.trusted[occluded].mean() < 0.8 * motion.trusted.mean()


@pytest.mark.parametrize(("scene", "error"), [("alley_1", 0.8), ("cave_2", 0.8), ("market_5", 0.9)])
def test_the_fine_flow_is_nearer_to_the_true_one(shared: Path, scene: str, error: float) -> None:
    folder = shared / "data" / "video" / "sintel_true_flow"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    first, second = (read(folder / f"{scene}_{number}.png") for number in (2, 3))
    true = np.load(folder / f"{scene}_flow.npz")["flow"].astype(np.float32)
    plain, fine = estimate(second, first), estimate(second, first, fine=True)
    off = [np.linalg.norm(each.flow - true, axis=-1)[each.trusted].mean() for each in (plain, fine)]
    assert off[1] < error * off[0]
    assert fine.trusted.mean() > 0.95 * plain.trusted.mean()


def test_the_fine_flow_is_in_pixels_of_the_frames() -> None:
    canvas = frame(1, 220, 360)
    motion = estimate(canvas[20:200, 20:340], canvas[17:197, 25:345], fine=True)
    assert motion.flow.shape == (180, 320, 2)
    assert np.abs(motion.flow[12:-12, 12:-12] - (5, -3)).max() < 0.4
    assert estimate(canvas[:1, :5], canvas[:1, :5], fine=True).flow.shape == (1, 5, 2)


def test_motions_add_up_where_both_can_be_trusted() -> None:
    """By 2 pixels, then by 3: 5. A pixel at the right came from outside; one leads to a doubtful pixel."""
    first, second = still(4, 12), still(4, 12)
    first.flow[..., 0], second.flow[..., 0] = 2, 3
    first.trusted[1, 7] = second.trusted[2, 1] = False
    both = chained(first, second)
    assert (both.flow == (5, 0)).all()
    expected = np.ones((4, 12), bool)
    expected[:, 9:] = expected[1, 7 - 3] = expected[2, 1] = False
    assert (both.trusted == expected).all()


def test_the_number_of_threads_does_not_change_the_motion() -> None:
    first, second = frame(7), np.roll(frame(7), (3, 4), (0, 1))
    before, found = cv2.getNumThreads(), []
    try:
        for number in (1, 2, 3):
            cv2.setNumThreads(number)
            found.append(estimate(first, second))
    finally:
        cv2.setNumThreads(before)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].flow, other.flow)
        np.testing.assert_array_equal(found[0].trusted, other.trusted)


# --- warping


def test_a_warp_repeats_the_border() -> None:
    image = np.arange(4, dtype=np.float32).reshape(1, 4, 1).repeat(3, 0)
    flow = np.zeros((3, 4, 2), np.float32)
    flow[..., 0] = -2
    for order in ("linear", "bicubic"):
        np.testing.assert_allclose(warped(image, flow, order)[1, :, 0], [0, 0, 0, 1], atol=1e-6)


def test_half_a_pixel_by_hand() -> None:
    """Catmull-Rom's weights at one half are (−1, 9, 9, −1) / 16."""
    image = np.zeros((5, 9, 1), np.float32)
    image[2, 4] = 16
    flow = np.zeros((5, 9, 2), np.float32)
    flow[..., 0] = 0.5
    np.testing.assert_allclose(warped(image, flow)[2, :, 0], [0, 0, -1, 9, 9, -1, 0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(warped(image, flow, "linear")[2, :, 0], [0, 0, 0, 8, 8, 0, 0, 0, 0], atol=1e-4)


def test_bicubic_follows_catmull_rom_in_any_direction() -> None:
    """Against a direct sum over 16 neighbours."""

    def kernel(t: np.ndarray) -> np.ndarray:
        t = np.abs(t)
        return np.where(t < 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))

    image = draw(8, 30, 40, 2.0).permute(1, 2, 0).numpy()
    flow = np.random.default_rng(0).uniform(-1, 1, (30, 40, 2)).astype(np.float32)
    found = warped(image, flow)
    for y, x in [(8, 9), (15, 20), (20, 31)]:
        at_x, at_y = x + flow[y, x, 0], y + flow[y, x, 1]
        weights = np.outer(kernel(np.arange(30) - at_y), kernel(np.arange(40) - at_x))
        np.testing.assert_allclose(found[y, x], np.tensordot(weights, image, 2), atol=0.01)


def test_repeated_warps_neither_fade_nor_grow() -> None:
    """A hundred moves by 0.3 pixels and back. OpenCV's cubic kernel ends at 5 times the contrast, linear at 0.4."""
    image = frame(9, blur=2.0).astype(np.float32) / 255
    flow = np.zeros((*image.shape[:2], 2), np.float32)
    moved = image
    for number in range(100):
        flow[...] = 0.3 if number % 2 else -0.3
        moved = warped(moved, flow)
    inner = (slice(20, -20), slice(20, -20))
    contrast = moved[inner].std() / image[inner].std()
    assert 0.85 < contrast < 1.0


def test_more_channels_than_four() -> None:
    image = np.random.default_rng(0).random((20, 30, 7), np.float32)
    flow = np.full((20, 30, 2), 0.4, np.float32)
    for order in ("linear", "bicubic"):
        alone = [warped(image[..., channel : channel + 1], flow, order) for channel in range(7)]
        np.testing.assert_allclose(warped(image, flow, order), np.concatenate(alone, -1), atol=1e-6)


# --- cuts


def test_real_clips_have_the_cuts_they_have(shared: Path) -> None:
    folder = shared / "data" / "video"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    people, rabbit = frames(folder / "vtest.avi", 12, 8), frames(folder / "cutBunny.mp4", 240)
    car = [read(file, (320, 180)) for file in sorted(folder.glob("davis_car_shadow/*.jpg"))[::3]]
    joined = [*people, *rabbit[:200:20], *car, *rabbit[228:]]
    starts = [at for at in range(1, len(joined)) if scene_motion(*joined[at - 1 : at + 1]) is None]
    ends = np.cumsum([len(people), 10, len(car), 7])  # the rabbit's clip has a cut before frame 235
    assert starts == list(ends)


def test_pans_fades_and_flashes_are_no_cuts() -> None:
    canvas = frame(10, 200, 400, 6.0)
    here = canvas[10:190, 10:330]
    assert scene_motion(here, canvas[10:190, 40:360]) is not None  # a tenth of the width
    assert scene_motion(here, (here * 0.7).astype(np.uint8)) is not None
    assert scene_motion(here, np.minimum(here.astype(int) + 90, 255).astype(np.uint8)) is not None
    other = frame(11, 180, 320, 6.0)
    fade = [((1 - share) * here + share * other).astype(np.uint8) for share in np.linspace(0, 1, 8)]
    assert all(scene_motion(*pair) for pair in pairwise(fade))
    assert scene_motion(here, other) is None
    assert scene_motion(np.zeros_like(here), other) is None


# --- what flickers


def test_the_temporal_error_by_hand() -> None:
    first, second = np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.float32)
    second[0, 0] = (0.3, 0, 0)
    assert temporal_error(first, second, still(4, 4)) == pytest.approx(0.09 / 48)
    half = still(4, 4)
    half.trusted[0, 0] = False
    assert temporal_error(first, second, half) == 0
    assert math.isnan(temporal_error(first, second, still(4, 4, trusted=False)))


def test_a_painting_that_moves_along_does_not_flicker() -> None:
    painting = frame(12).astype(np.float32) / 255
    flow = np.zeros((180, 320, 2), np.float32)
    flow[..., 0] = 7
    moved = np.roll(painting, -7, 1)
    trusted = np.ones((180, 320), bool)
    trusted[:, -7:] = False
    assert temporal_error(painting, moved, Motion(flow, trusted)) < 1e-8
    assert temporal_error(painting, painting, Motion(flow, trusted)) > 1e-3


def test_flicker_of_unrelated_frames_is_one_and_of_a_still_0() -> None:
    noise, steady = Flicker(), Flicker()
    rng = np.random.default_rng(0)
    same = rng.random((60, 80, 3), np.float32)
    for number in range(6):
        motion = still(60, 80) if number else None
        noise.add(rng.random((60, 80, 3), np.float32), motion)
        steady.add(same, motion)
    assert noise.flicker == pytest.approx(1, abs=0.02)
    assert noise.error == pytest.approx(math.sqrt(1 / 6), abs=0.01)  # √2 · the deviation 1/√12
    assert steady.error == steady.flicker == 0


def test_flicker_skips_cuts_and_averages_squares() -> None:
    black, white = np.zeros((8, 8, 3), np.float32), np.ones((8, 8, 3), np.float32)
    found = Flicker()
    found.add(black)
    assert math.isnan(found.error)
    found.add(white)  # after a cut
    found.add(white, still(8, 8))
    found.add(black, still(8, 8, trusted=False))
    assert found.error == 0
    found.add(white * 0.6, still(8, 8))
    assert found.error == pytest.approx(math.sqrt(0.36 / 2))


# --- without OpenCV


def test_without_opencv_the_message_names_the_extra() -> None:
    code = """
import sys
sys.modules["cv2"] = None
import numpy as np
from impasto.video.motion import estimate
try:
    estimate(np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.uint8))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("pip install 'impasto[video]'\n")
    assert len(done.stdout.splitlines()) == 1
