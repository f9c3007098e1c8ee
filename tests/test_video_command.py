"""`impasto video`: clips come out as long as they went in, killed runs continue, and mistakes are said in a line."""

import io
import random
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from clips import make, needs_ffmpeg, seen, streams
from pictures import draw
from PIL import Image, ImageCms

from impasto import commands as cli
from impasto.commands import clips
from impasto.images import to_levels
from impasto.images.cicp import PRIMARIES
from impasto.images.colors import _SRGB_CURVE, matrix_profile
from impasto.inference import Stylizer
from impasto.inference.steady import SteadyPainter
from impasto.networks import TransformNet, save_network
from impasto.video.reading import open_clip

av = pytest.importorskip("av", reason="the video extra is not installed")
pytest.importorskip("cv2", reason="the video extra is not installed")

NETWORK = ("--network", "two.safetensors")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory, with two.safetensors (night and wave) and clip.mp4 of 100 frames; nothing published."""
    monkeypatch.setattr("impasto.networks.files.CHECKPOINTS", (tmp_path / "checkpoints",))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = TransformNet(2, width=4, residual_blocks=1)
    for key, parameter in network.named_parameters():
        if key.endswith(("gamma", "beta")):
            torch.nn.init.normal_(parameter)
    save_network(tmp_path / "two.safetensors", network, styles=[{"name": "night"}, {"name": "wave"}])
    film(tmp_path / "clip.mp4", 100)
    return tmp_path


def film(path: Path, count: int, side: tuple[int, int] = (64, 48)) -> Path:
    """A window that pans over a picture, in H.264, at uneven times."""
    wide = to_levels(draw(3, side[1], side[0] + count, blur=3.0)[None])[0].permute(1, 2, 0).numpy()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height = side
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(wide[:, number : number + side[0]]), "rgb24")
            frame.pts, frame.time_base = 40 * number + 7 * (number % 3), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decoded(path: Path | str) -> list[tuple[Fraction, np.ndarray]]:
    """The time of every frame, and its pixels."""
    clip = open_clip(Path(path))
    return [(frame.pts * clip.time_base, frame.pixels) for frame in clip.frames()]


def light(frame: np.ndarray) -> np.ndarray:
    """The luminance, which H.264 keeps at full resolution."""
    return frame @ np.array([0.2126, 0.7152, 0.0722])


@pytest.fixture
def video(folder, capsys):
    """Runs the command; returns status, output lines, error lines."""

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        status = cli.run("video", *map(str, arguments))
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err + shown.out
        return status, shown.out.splitlines(), shown.err.splitlines()

    return run


def test_frames_times_and_size_are_the_clips(video) -> None:
    status, lines, _ = video("clip.mp4", *NETWORK, "--style", "wave")
    assert (status, lines) == (0, ["stylized/clip_two_wave.mp4  64×48, 100 frames"])
    before, after = decoded(Path("clip.mp4")), decoded(Path("stylized/clip_two_wave.mp4"))
    assert [time for time, _ in after] == [time for time, _ in before]
    painter = SteadyPainter(Stylizer("two.safetensors", "wave", device="cpu"))
    expected = [painter(frame) for _, frame in before[:20]]
    for (_, frame), painting in zip(after, expected, strict=False):
        assert np.abs(light(frame) - light(painting)).mean() < 4


@needs_ffmpeg
def test_a_clip_in_display_p3_is_painted_in_srgb_and_written_in_p3(video) -> None:
    green = lambda number, width, height: np.full((height, width, 3), (60, 170 + 9 * number, 70), np.uint8)  # noqa: E731
    make(Path("p3.mp4"), times=range(6), tags=(12, 13, 1, 1), pictures=green)
    assert video("p3.mp4", *NETWORK, "--style", "wave", "--keep-colors", "--strength", 0.5, "-o", "out.mp4") == (
        0, ["out.mp4  64×48, 6 frames"], ["p3.mp4: its wide colours are converted to those of sRGB"],
    )  # fmt: skip
    told = streams(Path("out.mp4"))[0]
    assert [told[f"color_{name}"] for name in ("primaries", "transfer", "space", "range")] == [
        "smpte432", "iec61966-2-1", "bt709", "tv",
    ]  # fmt: skip
    painter = SteadyPainter(Stylizer("two.safetensors", "wave", strength=0.5, keep_colors=True, device="cpu"))
    paintings = [painter(frame) for _, frame in decoded("p3.mp4")]
    profile = ImageCms.ImageCmsProfile(io.BytesIO(matrix_profile(PRIMARIES[12], _SRGB_CURVE)))
    in_p3 = [
        np.asarray(ImageCms.profileToProfile(Image.fromarray(painting), ImageCms.createProfile("sRGB"), profile))
        for painting in paintings
    ]
    stored = seen(Path("out.mp4"), filters="scale=in_color_matrix=bt709:in_range=tv")
    shown = [frame for _, frame in decoded("out.mp4")]
    expected, found, srgb, again = (np.array(each).mean((1, 2)) for each in (in_p3, stored, paintings, shown))
    assert np.abs(found - expected).max() < 3 and np.abs(found - srgb).max() > 60 and np.abs(again - srgb).max() < 6


def test_part_size_rate_and_quality(video) -> None:
    status, lines, _ = video("clip.mp4", *NETWORK, "-s", "wave", "--start", 1, "--duration", 1, "--fps", 10,
                             "--size", 32, "--crf", 30, "-o", "small.mkv")  # fmt: skip
    assert (status, lines) == (0, ["small.mkv  32×24, 10 frames"])
    assert [time for time, _ in decoded(Path("small.mkv"))] == [Fraction(number, 10) for number in range(10)]


def test_animations_and_folders_of_frames(video) -> None:
    frames = [Image.fromarray(frame) for _, frame in decoded(Path("clip.mp4"))[:4]]
    frames[0].save("dance.gif", save_all=True, append_images=frames[1:], duration=[50, 70, 90, 110], loop=0)
    Path("frames").mkdir()
    for number, frame in enumerate(frames):
        frame.save(f"frames/{number}.png")
    assert video("dance.gif", *NETWORK, "-s", "wave")[0] == 0
    with Image.open("stylized/dance_two_wave.gif") as result:
        durations = [result.seek(number) or result.info["duration"] for number in range(result.n_frames)]  # type: ignore[func-returns-value]
        assert durations == [50, 70, 90, 110] and result.info["loop"] == 0
    assert video("frames", *NETWORK, "-s", "wave")[0] == 0
    assert len(list(Path("stylized/frames_two_wave").iterdir())) == 4


@pytest.mark.parametrize(
    ("second", "weights"),
    [(0.0, (1, 0)), (1.0, (0.75, 0.25)), (4.0, (0, 1)), (5.0, (0, 1)), (6.0, (0.5, 0.5)), (9.0, (0.5, 0.5))],
)
def test_styles_change_from_one_time_to_the_next(second: float, weights: tuple[float, float]) -> None:
    """From night at 0 to wave at 4; from 5 on to equal parts of both at 6."""
    job = clips.Painted.__new__(clips.Painted)
    job.times = clips.style_times("0:night, 4:wave, 5: wave, 6:night=0.5,wave=0.5")
    assert [style for _, style in job.times] == ["night", "wave", "wave", "night=0.5,wave=0.5"]
    job.codes = [torch.tensor([code]) for code in ((1.0, 0.0), (0.0, 1.0), (0.0, 1.0), (0.5, 0.5))]
    assert job.code(second).tolist() == [list(weights)]


def test_a_clip_in_changing_styles(video) -> None:
    status, lines, _ = video("clip.mp4", *NETWORK, "-s", "0:night, 1:wave", "--duration", 1.2, "--steady", 0)
    assert status == 0 and lines[0].startswith("stylized/clip_two_night-to-wave_steady-0_for-1.2s.mp4")
    first, last = decoded(Path("stylized/clip_two_night-to-wave_steady-0_for-1.2s.mp4"))[::28]
    for (_, frame), style, source in ((first, "night", 0), (last, "wave", 28)):
        photo = Image.fromarray(decoded(Path("clip.mp4"))[source][1])
        painting = np.asarray(Stylizer("two.safetensors", style, device="cpu")(photo))
        assert np.abs(light(frame) - light(painting)).mean() < 5


def test_a_preview_is_a_picture_of_some_frames(video) -> None:
    status, lines, _ = video("clip.mp4", *NETWORK, "-s", "wave", "--preview", 3)
    assert status == 0 and lines == ["stylized/clip_two_wave_preview.png  3 of 100 frames"]
    with Image.open("stylized/clip_two_wave_preview.png") as sheet:
        assert sheet.width > 3 * 64
    assert not Path("stylized/clip_two_wave.mp4").exists()
    assert "exists already" in video("clip.mp4", *NETWORK, "-s", "wave", "--preview", 3)[2][-1]


def test_killed_at_three_moments_it_continues_to_the_same_frames(folder, video) -> None:
    whole = film(folder / "long.mp4", 160)
    assert video(whole, *NETWORK, "-s", "wave", "-o", "whole.mp4")[0] == 0
    command = [sys.executable, "-c", "import sys; from impasto.commands import run; sys.exit(run(*sys.argv[1:]))",
               "video", str(whole), *NETWORK, "-s", "wave", "-o", "killed.mp4"]  # fmt: skip
    parts, killed = Path(".killed.mp4.parts"), 0
    for wanted in (1, 2, 3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(parts.glob("*.safetensors")) if parts.exists() else []) < wanted:
            time.sleep(0.005)
        time.sleep(random.random() / 10)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    status, _, errors = video(whole, *NETWORK, "-s", "wave", "-o", "killed.mp4")
    assert status == 0 and "painted earlier" in " ".join(errors)
    for one, other in zip(decoded(Path("whole.mp4")), decoded(Path("killed.mp4")), strict=True):
        assert one[0] == other[0] and (one[1] == other[1]).all()
    assert not parts.exists()


def test_a_second_run_of_the_same_command_is_refused(folder, video) -> None:
    holding = (
        "import sys, time; from pathlib import Path; from impasto.writing import lock_folder\n"
        "lock_folder(Path('.twice.mp4.parts')); print('has it', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", holding], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "has it\n"
        status, lines, errors = video("clip.mp4", *NETWORK, "-s", "wave", "-o", "twice.mp4")
        first.kill()
    assert (status, lines) == (2, []) and len(errors) == 1
    assert errors[0].startswith(f"impasto video: twice.mp4: process {first.pid} on ")
    assert errors[0].endswith("is writing it: wait until it ends, or choose another --output")
    assert video("clip.mp4", *NETWORK, "-s", "wave", "-o", "twice.mp4", "--duration", 0.2)[0] == 0, "it was killed"


def test_ctrl_c_says_where_it_continues(video, monkeypatch) -> None:
    calls = iter(range(60))
    paint = SteadyPainter.__call__

    def interrupted(*arguments: object) -> np.ndarray:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return paint(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(SteadyPainter, "__call__", interrupted)
        status, _, errors = video("clip.mp4", *NETWORK, "-s", "wave")
    assert status == 130
    assert errors == ["interrupted: 60 of 100 frames painted; the same command continues after frame 48"]
    status, lines, errors = video("clip.mp4", *NETWORK, "-s", "wave")
    assert status == 0 and lines[0].endswith("100 frames") and "continuing after 48 frames" in errors[0]


def test_a_cut_off_clip_is_painted_as_far_as_it_goes(video) -> None:
    with av.open("clip.mp4") as source, av.open("clip.ts", "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
    data = Path("clip.ts").read_bytes()
    Path("cut.ts").write_bytes(data[: len(data) // 2])
    status, lines, errors = video("cut.ts", *NETWORK, "-s", "wave")
    there = int(lines[0].split()[-2])
    assert 30 < there < 100 and len(decoded(Path("stylized/cut_two_wave.mp4"))) == there
    assert status in (0, 1) and (status == 0 or "cut.ts" in errors[-1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.mp4",), "missing.mp4"),
        (("two.safetensors",), "two.safetensors"),
        (("clip.mp4", "--steady", 2), "steady 2.0: must be from 0"),
        (("clip.mp4", "--start", 99), "99"),
        (("clip.mp4", "-o", "clip.mp4"), "never written over"),
        (("clip.mp4", "-o", "clip.xyz"), ".mp4"),
        (("clip.mp4", "-s", "wav"), "did you mean wave"),
        (("clip.mp4", "-s", "1:wave"), "times must begin at 0"),
        (("clip.mp4", "-s", "0:wave,0:night"), "times must begin at 0 and grow"),
        (("clip.mp4", "--preview", -1), "must be 1 frame or more"),
        (("clip.mp4", "--audio", "mp3"), "must be copy or none"),
        (("clip.mp4", "--crf", 60), "crf 60: must be from 0"),
        (("clip.mp4", "--fps", 0), "fps"),
        (("clip.mp4", "--duration", 0), "duration"),
    ],
    ids=str,
)  # fmt: skip
def test_mistakes_are_one_line(video, arguments: tuple, message: str) -> None:
    style = () if "-s" in arguments else ("-s", "wave")
    status, lines, errors = video(*arguments, *NETWORK, *style)
    assert status == 2 and not lines and len(errors) == 1
    assert message in errors[0]
    assert not Path("stylized").exists()
