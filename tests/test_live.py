"""Painting a camera or a clip live: frozen networks, keys, the window and recordings."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from impasto.commands import run
from impasto.commands.live import Keys
from impasto.networks import TransformNet, load_network, save_network

pytest.importorskip("onnxruntime", reason="the export extra is not installed")

STYLES = ["wave", "night", "scream"]


def random_network(num_styles: int = 3, **shape: Any) -> TransformNet:
    torch.manual_seed(0)
    network = TransformNet(num_styles, 4, 2, **shape).eval()
    for name, parameter in network.named_parameters():
        if name.endswith(("gamma", "beta")):
            torch.nn.init.normal_(parameter, std=0.5)
    network.metadata = {"styles": [{"name": name} for name in STYLES[:num_styles]]}
    return network


def frame(height: int = 75, width: int = 94, bright: float = 0.5) -> np.ndarray:
    """Waves and noise; their mean is `bright`."""
    noise = np.random.default_rng(0).normal(0, 0.05, (height, width, 3))
    waves = 0.2 * np.sin(np.arange(width) / 7)[None, :, None] * np.array([1, 0.5, -1])
    return ((bright + waves + noise).clip(0, 1) * 255).astype(np.uint8)


def painted_by_torch(network: TransformNet, code: torch.Tensor, picture: np.ndarray, moments: Any = None) -> np.ndarray:
    content = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        stylized = network(content, code, moments=moments)[0].permute(1, 2, 0)
    return (stylized * 255).round().numpy()


SHAPES: list[dict[str, Any]] = [
    {}, {"upsampling": "bilinear"}, {"upsampling": "bilinear_smoothed", "canvas": 0.0},
    {"patch": 4, "kernel": 3, "separable": True, "padding": "zeros", "margin": 16},
    {"patch": 2, "kernel": 5, "separable": True, "margin": 8}, {"patch": 4, "kernel": 5, "padding": "zeros"},
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_frozen_network_paints_what_the_network_does(shape: dict[str, Any]) -> None:
    from impasto.inference.frozen import FrozenPainter
    from impasto.networks.layers import Moments

    network, first, code = random_network(**shape), frame(), torch.tensor([[0.2, 0.5, 0.3]])
    frozen = FrozenPainter(network, code, first)
    found = frozen(first)
    assert found.shape == first.shape and found.dtype == np.uint8
    wanted = painted_by_torch(network, code, first)
    assert np.abs(found - wanted).max() <= 1 and wanted.std() > 3
    # The next frame gets the statistics of the first, not its own.
    second = frame(bright=0.4)
    wanted = painted_by_torch(network, code, second, Moments(frozen.statistics))
    assert np.abs(frozen(second) - wanted).max() <= 1
    assert np.abs(wanted - painted_by_torch(network, code, second)).max() > 1


def test_what_cannot_be_frozen_is_said() -> None:
    from impasto.inference.frozen import FrozenPainter
    from impasto.inference.live import LivePainter

    with pytest.raises(ValueError, match="a filter of grain: it cannot be frozen"):
        FrozenPainter(random_network(grain=2.0), torch.ones(1, 3) / 3, frame())
    with pytest.raises(ValueError, match="frames of 94×36: sides must be above 36 pixels"):
        FrozenPainter(random_network(), torch.ones(1, 3) / 3, frame(36))
    with pytest.raises(ValueError, match="adaptive instance norm; `impasto live` needs another"):
        LivePainter("adain")
    with pytest.raises(ValueError, match="no styles of its own"):
        LivePainter("any")
    with pytest.raises(ValueError, match="strength 2: must be from 0"):
        LivePainter(random_network(), "wave", 2)


def test_it_is_frozen_anew_for_another_style_size_or_light_only() -> None:
    from impasto.inference.live import LivePainter

    painter = LivePainter(random_network(), "wave")
    first = painter(frame())
    frozen = painter._frozen
    np.testing.assert_array_equal(painter(frame()), first)
    painter(frame(bright=0.52))
    assert painter._frozen is frozen
    for change in (frame(bright=0.6), frame(80)):
        painter(change)
        assert painter._frozen is not frozen
        frozen = painter._frozen
    painter.set_style({"wave": 0.5, "night": 0.5})
    wanted = painted_by_torch(painter.network, torch.tensor([[0.5, 0.5, 0.0]]), frame())
    assert np.abs(painter(frame()) - wanted).max() <= 1
    painter.strength = 0.25
    assert np.abs(painter(frame()) - (0.25 * wanted + 0.75 * frame())).max() <= 1
    painter.strength = 0.0
    np.testing.assert_array_equal(painter(frame()), frame())


def test_keys() -> None:
    keys = Keys(STYLES, "wave", 1.0)
    assert (keys.style(), keys.text()) == ("wave", "wave   strength 1")
    keys.pressed("Right")
    assert keys.changed and keys.style() == {"wave": 0.75, "night": 0.25}
    assert keys.text() == "wave 0.75, night 0.25   strength 1"
    for _ in range(3):
        keys.pressed("Right")
    assert keys.style() == "night"
    keys.pressed("3")
    keys.pressed("Right")
    assert keys.style() == {"scream": 0.75, "wave": 0.25}
    keys.pressed("1")
    keys.pressed("Left")
    assert keys.style() == {"scream": 0.25, "wave": 0.75}
    keys.changed = False
    for key in ("9", "0", "x", "Shift_L"):
        keys.pressed(key)
    assert not keys.changed and keys.style() == {"scream": 0.25, "wave": 0.75}
    for key, wanted in (("Up", 1.0), ("Down", 0.9), *[("Down", 0.0)] * 12):
        keys.pressed(key)
        assert keys.strength == wanted or wanted == 0.0
    assert keys.strength == 0.0
    keys.pressed("r")
    assert keys.recording and keys.text().endswith("recording")
    keys.pressed("r")
    keys.pressed("Escape")
    assert keys.ended and not keys.recording
    assert Keys(STYLES, "wave=0.5,night=0.5", 1.0).style() == "wave=0.5,night=0.5"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    shape = {"patch": 4, "kernel": 3, "separable": True, "padding": "zeros", "margin": 16}
    made = random_network(**shape)
    return save_network(tmp_path / "small.safetensors", made, styles=made.metadata["styles"])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Two seconds of 96×72, in which a square moves."""
    av = pytest.importorskip("av", reason="the video extra is not installed")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 72, "yuv420p"
        for number in range(50):
            pixels = frame(72, 96)
            pixels[20:40, number : number + 20] = (200, 30, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))
    return tmp_path / "clip.mp4"


def test_a_clip_comes_at_its_own_pace_and_what_is_late_is_left_out(clip: Path) -> None:
    from impasto.video.camera import newest_frames

    began = time.perf_counter()
    shown = sum(picture.shape == (60, 80, 3) for picture in newest_frames(str(clip), 80))
    assert 1.9 < time.perf_counter() - began < 4 and 10 < shown <= 50
    frames = newest_frames(str(clip), 96)
    number = 0
    for number, _ in enumerate(frames, 1):  # noqa: B007
        time.sleep(0.25)
    assert number < 12


def test_a_recording_has_the_frames_at_their_times(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="the video extra is not installed")
    from impasto.video.writing.recording import recording

    with recording(tmp_path / "a" / "live.mp4", (94, 75)) as record:
        for bright in (0.3, 0.5, 0.7):
            record(frame(bright=bright))
            time.sleep(0.2)
    with av.open(str(tmp_path / "a" / "live.mp4")) as container:
        found = [(each.to_ndarray(format="rgb24"), each.time) for each in container.decode(video=0)]
        stream = container.streams.video[0].codec_context
    assert [picture.shape for picture, _ in found] == [(75, 94, 3)] * 3
    times = np.diff([at for _, at in found])
    assert (times > 0.19).all() and (times < 0.6).all()
    for (picture, _), bright in zip(found, (0.3, 0.5, 0.7), strict=True):
        assert np.abs(picture.mean() - frame(bright=bright).mean()) < 2
    assert (stream.colorspace, stream.color_primaries, stream.color_range) == (1, 1, 1)
    with pytest.raises(ValueError, match="exists"), recording(tmp_path / "a" / "live.mp4", (94, 75)):
        pass


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[str]:
    """A screen without a monitor, by Xvfb."""
    pytest.importorskip("tkinter", reason="this Python has no Tk")
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb is not installed")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "640x480x24", "-nolisten", "tcp"],
        pass_fds=[write], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as answer:
        number = answer.readline().strip()
    yield f":{number}"
    server.kill()
    server.wait()


PRESSING = """
import sys
from impasto.commands import run, window

class Pressed(window.Window):
    shown = 0

    def show(self, picture, text):
        super().show(picture, text)
        print(text, flush=True)
        Pressed.shown += 1
        for number, key in ((3, "2"), (4, "Right"), (5, "Down"), (6, "r"), (12, "r"), (14, "q")):
            if Pressed.shown == number:
                self._root.focus_force()
                self._root.event_generate(f"<KeyPress-{key}>")
        if Pressed.shown == 8:
            import PIL.ImageGrab
            PIL.ImageGrab.grab(xdisplay=None).save("screen.png")

window.Window = Pressed
sys.exit(run("live", *sys.argv[1:]))
"""


def test_the_window_shows_what_is_painted_and_keys_act(screen: str, clip: Path, network: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    command = [sys.executable, "-c", PRESSING, str(clip), "--network", str(network), "--size", "96"]
    environment = {**os.environ, "DISPLAY": screen, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    file = lines.pop(12)  # printed when the recording has ended
    assert file == "stylized/live_1.mp4"
    assert lines[0].endswith("frames/s   wave   strength 1")
    assert lines[7].endswith("night 0.75, scream 0.25   strength 0.9   recording") and len(lines) == 14
    with av.open(str(tmp_path / file)) as container:
        recorded = [each.to_ndarray(format="rgb24") for each in container.decode(video=0)]
    assert len(recorded) == 6 and recorded[0].shape == (72, 96, 3)
    shot = np.asarray(Image.open(tmp_path / "screen.png").convert("RGB")).astype(int)
    # The screen was photographed with the third recorded frame, at its upper edge.
    wanted = recorded[2].astype(int)
    differences = [np.abs(shot[:72, x : x + 96] - wanted).mean() for x in range(640 - 96)]
    assert min(differences) < 8 < np.median(differences)


def test_without_a_screen_the_page_is_named(
    clip: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DISPLAY", ":77777")
    assert run("live", str(clip), "--network", str(network)) == 2
    error = capsys.readouterr().err
    assert "no window can be opened here (couldn't connect to display" in error and "impasto demo" in error


def test_a_network_for_any_painting_is_refused(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("live", str(clip), "--network", "any") == 2
    assert capsys.readouterr().err.endswith("has no styles of its own; `impasto live` needs another\n")


def test_frames_of_a_camera_come_and_its_end_is_said(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV reads a clip in place of a camera, which most machines of tests lack."""
    cv2 = pytest.importorskip("cv2", reason="the video extra is not installed")
    from impasto.video.camera import newest_frames

    opened = cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: opened(str(clip)))
    found = []
    with pytest.raises(ValueError, match="camera 7: gives no frames; is another program using it"):
        for picture in newest_frames("7", 48):
            found.append(picture.astype(int))
    wanted = np.asarray(Image.fromarray(frame(72, 96)).resize((48, 36), Image.Resampling.BILINEAR)).astype(int)
    assert found
    for picture in found:  # the square moves in rows 10 to 20
        assert picture.shape == (36, 48, 3) and np.abs(picture[22:] - wanted[22:]).mean() < 12
        assert picture[12:18].max() > 180 and np.abs(picture[22:, :, 0] - wanted[22:, :, 2]).mean() > 20


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["nowhere.mp4"], "nowhere.mp4"), (["--size", "10"], "size 10, threads 0: size from 64"),
        (["99"], "camera 99: cannot be opened; give the number of another one, or a clip"),
        (["--network", "any"], "camera 0: cannot be opened"), (["--styl", "a"], "did you mean --style?"),
    ],
)  # fmt: skip
def test_mistakes_are_a_line(options: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2", reason="the video extra is not installed")
    assert run("live", *options) == 2
    error = capfd.readouterr().err
    assert said in error and error.count("\n") == 1, error


def test_the_readmes_command_paints_a_clip(screen: str, clip: Path, tmp_path: Path) -> None:
    (line,) = re.findall(r"^python (scripts/live.py clip.*)$", (ROOT / "scripts/README.md").read_text(), re.MULTILINE)
    for name in ("scripts", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, *shlex.split(line)]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "DISPLAY": screen}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_published_network_is_for_real_time() -> None:
    network = load_network("realtime")
    assert (network.patch, network.num_styles, network.arguments["separable"]) == (4, 4, True)
