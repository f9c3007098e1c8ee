"""The reference for clips: frames that start from the painting before and stay near to it."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from heeding import HEEDING
from pictures import draw
from PIL import Image

pytest.importorskip("cv2", reason="the video extra is not installed")

from impasto.choices import ClipOptions, LossOptions, OptimizeOptions
from impasto.commands import run
from impasto.images import read_image, resize
from impasto.perceptual.loss import PerceptualLoss
from impasto.reference import Anchor, optimize_image
from impasto.reference_video import OnClipStep, optimize_clip
from impasto.video.motion import Flicker, estimate

ROOT = Path(__file__).parents[1]
PAINTING = ROOT / "configs" / "paintings" / "currents.jpg"
STILL = OptimizeOptions(steps=1, optimizer="adam", learning_rate=1e-9)  # leaves what it starts from


@pytest.fixture(scope="module")
def loss() -> PerceptualLoss:
    return PerceptualLoss(LossOptions(network="compact", style_strength=10.0))


@pytest.fixture(scope="module")
def painting() -> torch.Tensor:
    return resize(read_image(PAINTING).pixels, 64)


def levels(picture: torch.Tensor) -> np.ndarray:
    return (picture.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


@pytest.fixture(scope="module")
def moved() -> np.ndarray:
    """Three frames of a pan by (2, 1) pixels over a drawn picture."""
    canvas = levels(draw(1, 60, 90, 2.0))
    return np.stack([canvas[at : at + 36, 2 * at : 2 * at + 48] for at in range(3)])


def flat(*values: float) -> list[np.ndarray]:
    return [np.full((48, 64, 3), value, np.float32) for value in values]


# --- the term


def test_the_anchor_by_hand() -> None:
    image = torch.zeros(1, 3, 2, 2)
    mask = torch.tensor([[[[1.0, 0.0], [0.5, 0.0]]]])
    picture = torch.full((1, 3, 2, 2), 0.2)
    assert Anchor(image, mask, 7.0).distance(picture) == pytest.approx(0.04 * 1.5 / 4)


def test_an_anchor_holds_a_picture_where_its_mask_is(loss, painting) -> None:
    content = draw(2, 32, 40, 2.0)[None]
    mask = torch.zeros(1, 1, 32, 40)
    mask[..., :20] = 1
    log: list[dict[str, float]] = []
    image = optimize_image(
        content, [painting], loss, OptimizeOptions(steps=15), start=content,
        anchor=Anchor(content, mask, 1e4), on_step=lambda step, image, terms: log.append(terms),
    )  # fmt: skip
    change = (image - content).abs().mean((0, 1, 2))
    assert change[:18].mean() < 0.1 * change[22:].mean()
    assert log[0]["temporal"] == 0 and 0 < log[-1]["temporal"] < 1e-4
    last = log[-1]
    total = last["content"] + 10 * last["style"] + 0.1 * last["tv"] + 1e4 * last["temporal"]
    assert last["loss"] == pytest.approx(total, rel=1e-4)


def test_a_start_is_what_the_first_step_sees(loss, painting) -> None:
    content, start = draw(3, 32, 40)[None], draw(4, 32, 40)[None]
    seen: list[torch.Tensor] = []
    options = OptimizeOptions(steps=1, coarse=[24])
    image = optimize_image(
        content, [painting], loss, options, start=start, on_step=lambda step, image, terms: seen.append(image)
    )
    torch.testing.assert_close(seen[0], start, rtol=0, atol=1e-5)
    assert len(seen) == 2 and image.shape == content.shape


# --- the clip


def test_the_term_makes_a_clip_steady_at_about_the_same_loss(loss, painting, moved) -> None:
    motions = [None, *(estimate(first, second) for first, second in pairwise(moved))]

    def tried(clip: ClipOptions | None) -> tuple[float, float]:
        """e and the mean loss without the temporal term."""
        totals: dict[int, float] = {}

        def note(number: int, frame: int, step: int, terms: dict[str, float]) -> None:
            totals[frame] = terms["content"] + 10 * terms["style"] + 0.1 * terms["tv"]

        options, flicker = OptimizeOptions(steps=24), Flicker()
        if clip is None:  # each frame by itself
            found = [next(optimize_clip(frame[None], [painting], loss, options, on_step=note)) for frame in moved]
        else:
            found = list(optimize_clip(moved, [painting], loss, options, clip, on_step=note))
        for image, motion in zip(found, motions, strict=True):
            flicker.add(image, motion)
        return flicker.error, sum(totals.values()) / len(totals)

    alone, started, held = (
        tried(clip)
        for clip in (None, ClipOptions(steps=8, temporal_weight=0.0), ClipOptions(steps=8, temporal_weight=300.0))
    )
    assert held[0] < 0.7 * started[0] < 0.7 * alone[0]
    assert held[1] < 1.08 * started[1]


@pytest.mark.parametrize("reach", [[1], [1, 2]])
def test_looking_further_back_brings_back_what_was_covered(reach, loss, painting) -> None:
    """A thing comes in at column 70 and goes on to 86. Columns 70 to 86 were seen two frames ago."""
    scene, thing = levels(draw(5, 120, 200, 3.0)), levels(draw(6, 80, 90, 3.0))
    frames = np.stack([scene] * 3)
    frames[1, 20:100, 70:160] = thing
    frames[2, 20:100, 86:176] = thing
    before = draw(7, 120, 200).permute(1, 2, 0).numpy()
    painted = {(0, 0): before, (0, 1): np.ones_like(before)}
    *_, last = optimize_clip(frames, [painting], loss, STILL, ClipOptions(steps=1, reach=reach), painted=painted)
    uncovered = (slice(30, 90), slice(72, 84))
    photo = scene[uncovered].astype(np.float32) / 255
    from_photo, from_before = (
        (np.abs(last[uncovered] - expected).max(-1) < 0.05).mean() for expected in (photo, before[uncovered])
    )
    if reach == [1]:
        assert from_photo > 0.9 and from_before < 0.05
    else:  # the flow from two frames ago can be trusted in most of it
        assert from_before > 0.5
    np.testing.assert_allclose(last[8:-8, 8:50], 1, atol=1e-3)  # never covered: the frame just before


def test_a_later_pass_blends_with_the_frame_after(loss, painting) -> None:
    """Frames that stand still, and flat paintings: 0.2, 0.4 and 1.0, gone through from the last."""
    frames = np.stack([levels(draw(8, 48, 64, 2.0))] * 3)
    painted = {(0, at): image for at, image in enumerate(flat(0.2, 0.4, 1.0))}
    clip = ClipOptions(steps=1, passes=2, blend=0.25)
    found = list(optimize_clip(frames, [painting], loss, STILL, clip, painted=painted))
    for image, value in zip(found, (0.2 + 0.25 * 0.35, 0.4 + 0.25 * 0.6, 1.0), strict=True):
        np.testing.assert_allclose(image, value, atol=1e-3)
    assert set(painted) == {(1, 0), (1, 1), (1, 2)}


def test_each_scene_begins_anew(loss, painting, moved) -> None:
    """The first frame after a cut is painted as the photo it is."""
    other = levels(draw(9, 36, 48, 3.0))
    frames = np.stack([moved[0], moved[1], other])
    steps: dict[int, int] = {}
    options, clip = OptimizeOptions(steps=6), ClipOptions(steps=3, reach=[1, 2])
    *_, last = optimize_clip(
        frames, [painting], loss, options, clip, on_step=lambda number, frame, step, terms: steps.update({frame: step})
    )
    assert steps == {0: 6, 1: 3, 2: 6}
    photos = torch.cat([draw(number, 36, 48)[None] for number in (20, 21)])
    both = np.stack([moved[0], other])
    *_, after = optimize_clip(both, [painting], loss, options, clip, photos=photos)
    alone = next(optimize_clip(other[None], [painting], loss, options, clip, photos=photos))
    np.testing.assert_array_equal(after, alone)
    assert last.shape == alone.shape


@pytest.mark.parametrize("stop", [(0, 0), (0, 2), (1, 1)])
def test_an_interrupted_run_goes_on_to_the_same_paintings(stop, loss, painting, moved) -> None:
    options, clip = OptimizeOptions(steps=3), ClipOptions(steps=2, passes=2, reach=[1, 2])
    photos = loss.photo_statistics(torch.stack([draw(number, 36, 48) for number in (20, 21)]))

    def painting_of(painted: dict[tuple[int, int], np.ndarray], on_step: OnClipStep) -> list[np.ndarray]:
        return list(
            optimize_clip(moved, [painting], loss, options, clip, photos=photos, painted=painted, on_step=on_step)
        )

    whole = painting_of({}, lambda *_: None)
    painted: dict[tuple[int, int], np.ndarray] = {}

    def interrupt(number: int, frame: int, step: int, terms: dict[str, float]) -> None:
        if (number, frame, step) == (*stop, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        painting_of(painted, interrupt)
    done = set(painted)
    repeated: set[tuple[int, int]] = set()
    found = painting_of(painted, lambda number, frame, *_: repeated.add((number, frame)))
    assert not done & repeated
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "clip.steps 0"),
        ({"passes": 0}, "clip.passes 0: from 1"),
        ({"temporal_weight": -1.0}, "clip.temporal_weight -1.0"),
        ({"blend": 1.5}, "clip.blend 1.5: from 0"),
        ({"reach": []}, r"clip.reach \[\]: numbers that grow"),
        ({"reach": [2, 1]}, r"clip.reach \[2, 1\]"),
        ({"reach": [0, 1]}, r"clip.reach \[0, 1\]"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        ClipOptions(**options)


# --- the command

QUICK = (str(PAINTING), "--size=48", "--style-size=48", "--loss.network=compact", "--steps=3", "--clip.steps=2")


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: np.ndarray) -> Path:
    pytest.importorskip("av", reason="the video extra is not installed")
    monkeypatch.chdir(tmp_path)
    Path("clip").mkdir()
    for number, frame in enumerate(moved):
        Image.fromarray(frame).save(f"clip/{number}.png")
    return tmp_path


def pictures(clip: str) -> list[np.ndarray]:
    from impasto.video.reading import open_clip

    return [frame.pixels for frame in open_clip(clip).frames()]


def test_the_command_paints_a_clip(playground: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("optimize", "clip", *QUICK, "--output=out/a.mp4") == 0
    said = capsys.readouterr()
    assert said.out.startswith("done: out/a.mp4, 3 frames, e 0.0")
    assert [path.name for path in Path("out").iterdir()] == ["a.mp4"]
    found = pictures("out/a.mp4")
    assert [frame.shape for frame in found] == [(36, 48, 3)] * 3
    photo = np.asarray(Image.open("clip/0.png").resize((48, 36))).astype(float)
    assert np.abs(found[0] - photo).mean() > 3
    assert run("optimize", "out/a.mp4", *QUICK, "--clip.duration=0.05", "--output=b.gif") == 0
    assert len(pictures("b.gif")) == 2
    assert run("optimize", "b.gif", *QUICK, "--output=frames.png") == 0  # one picture
    assert run("optimize", "clip", *QUICK, "--output=out/a.mp4") == 2
    assert "out/a.mp4: exists already" in capsys.readouterr().err


def test_kept_colours_of_a_clip(playground: Path) -> None:
    assert run("optimize", "clip", *QUICK, "--output=frames", "--colors=luminance") == 0
    for number, frame in enumerate(pictures("frames")):
        photo = resize(read_image(f"clip/{number}.png").pixels, 48)[0].permute(1, 2, 0).numpy()
        difference = frame / 255 - photo
        assert (difference.max(-1) - difference.min(-1)).max() < 2.5 / 255


def test_a_command_that_was_killed_goes_on(playground: Path, capsys: pytest.CaptureFixture) -> None:
    given = ("clip", *QUICK, "--clip.passes=2", "--clip.steps=5")
    assert run("optimize", *given, "--output=whole") == 0
    command = [sys.executable, str(ROOT / "scripts" / "optimize.py"), *given, "--output=parts"]
    stored = Path(".parts.parts/paintings")
    for sent, number in ((signal.SIGKILL, "0_000000"), (signal.SIGINT, "1_000002")):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
                              **HEEDING) as process:  # fmt: skip
            for _ in range(1200):
                if (stored / f"{number}.npy").exists():
                    break
                time.sleep(0.02)
            process.send_signal(sent)
            _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "of 3 frames are painted; the same command goes on" in said
    assert not Path("parts").exists()
    capsys.readouterr()
    assert run("optimize", *given, "--clip.blend=0.4", "--output=parts") == 2
    assert "parts: an interrupted run with another clip" in capsys.readouterr().err
    assert run("optimize", *given, "--output=parts") == 0
    for whole, part in zip(pictures("whole"), pictures("parts"), strict=True):
        np.testing.assert_array_equal(whole, part)
    assert not stored.parent.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("clip", "--snapshots=3"), "snapshots [3]: are of a photo; clip is a clip"),
        (("clip", "--output=clip"), "clip: is the clip given, never written over"),
        (("clip", "--output=a.avi"), "a.avi: '.avi' cannot be written"),
        (("clip", "--clip.start=9"), "--start 9: beyond the end of clip"),
        (("none.mp4",), "none.mp4: no such"),
        (("text.mp4",), "text.mp4: not a video"),
        (("clip", "--size=8"), "the loss network needs at least"),
    ],
)
def test_mistakes_are_one_line(options, message, playground: Path, capsys: pytest.CaptureFixture) -> None:
    Path("text.mp4").write_text("no video")
    before = sorted(Path().rglob("*"))
    assert run("optimize", *options[:1], *QUICK, *options[1:]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    assert [path for path in sorted(Path().rglob("*")) if path.is_file()] == [path for path in before if path.is_file()]


def test_the_preset_is_read(playground: Path) -> None:
    preset = ROOT / "configs" / "optimize" / "video.yaml"
    assert run("optimize", "clip", *QUICK, "--config", str(preset), "--steps=1", "--clip.steps=1", "--output=a") == 0
    assert len(pictures("a")) == 3
