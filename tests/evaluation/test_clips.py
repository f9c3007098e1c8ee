"""The report on clips: its numbers by hand, true flow, and the command with a small network."""

import csv
import re
import shutil
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pictures import draw, save
from PIL import Image

pytest.importorskip("av", reason="the video extra is not installed")
pytest.importorskip("cv2", reason="the video extra is not installed")

from impasto.commands import run
from impasto.evaluation.footage import Footage
from impasto.evaluation.steadiness import local_contrast, steadiness
from impasto.evaluation.strips import SIDE, moving_part
from impasto.evaluation.true_flow import read_flow
from impasto.images import read_image
from impasto.networks import TransformNet, save_network
from impasto.video.motion import Motion
from impasto.video.reading import open_clip

CONFIG = Path(__file__).parents[2] / "configs" / "evaluate" / "video.yaml"
RUN = ("evaluate", "--clips.pan=clip", "--networks=[net.safetensors]", "--output=out", "--size=96")


def levels(seed: int, height: int = 64, width: int = 160) -> np.ndarray:
    return (draw(seed, height, width, 2.0) * 255).round().byte().permute(1, 2, 0).numpy()


def grey(value: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def still(height: int = 8, width: int = 8) -> Motion:
    return Motion(np.zeros((height, width, 2), np.float32), np.ones((height, width), bool))


def write_clip(folder: Path, moves: list[int], width: int = 112) -> Path:
    """Frames of a window that moves to the right over a picture by so many pixels."""
    folder.mkdir(parents=True)
    wide = levels(1, width=width + sum(moves))
    for number, left in enumerate(accumulate([0, *moves])):
        Image.fromarray(wide[:, left : left + width]).save(folder / f"{number}.png")
    return folder


def write_flow(file: Path, x: float, height: int, width: int) -> None:
    flow = np.full((height, width, 2), (x, 0), np.float32)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".npz":
        np.savez(file, flow=flow.astype(np.float16))
    else:
        file.write_bytes(b"PIEH" + np.array([width, height], "<i4").tobytes() + flow.tobytes())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a clip of five frames, and a network whose γ and β are random."""
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip", [3, 3, 3, 3])
    network = TransformNet(1, 4, 0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("gamma", "beta")):
                torch.nn.init.normal_(parameter)
    save_network(tmp_path / "net.safetensors", network)
    return tmp_path


def rows(folder: str = "out") -> list[dict[str, str]]:
    with Path(folder, "numbers.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --- numbers


def test_local_contrast_by_hand() -> None:
    """Half black and half white has 0.5; a flat window 0; what is left of a window does not count."""
    picture = np.zeros((16, 40, 3), np.uint8)
    picture[:8, :16] = 255
    picture[:, 32:] = levels(1)[:16, :8]
    assert local_contrast(picture) == pytest.approx(0.25)
    green = np.zeros((4, 4, 3), np.uint8)  # a picture smaller than a window
    green[::2, :, 1] = 255
    assert local_contrast(green) == pytest.approx(0.7152 / 2)


def test_what_grows_with_every_frame_shows_over_a_longer_time() -> None:
    paintings = [grey(10 + 2 * number) for number in range(6)]
    found = steadiness(paintings, [still()] * 5, gap=3)
    assert found["e"] == pytest.approx(2 / 255) and found["gap"] == pytest.approx(6 / 255)
    there_and_back = [grey(10 + 2 * (number % 2)) for number in range(6)]
    found = steadiness(there_and_back, [still()] * 5, gap=2)
    assert found["e"] == pytest.approx(2 / 255) and found["gap"] == 0


def test_flows_are_followed_over_a_longer_time() -> None:
    """Each frame lies 1, 2 or 3 pixels on: along the flows nothing changes, without them much does."""
    moves = [1, 2, 3, 2, 1]
    wide = levels(2)
    frames = [np.ascontiguousarray(wide[:, left : left + 64]) for left in accumulate([0, *moves])]

    def moved(x: float) -> Motion:
        flow = np.full((64, 64, 2), (x, 0), np.float32)
        return Motion(flow, np.broadcast_to(np.arange(64) + x <= 63, (64, 64)))

    found = steadiness(frames, [moved(x) for x in moves], gap=3)
    assert found["e"] < 1e-6 and found["gap"] < 1e-6
    wrong = steadiness(frames, [moved(x) for x in [*moves[::-1][1:], 0]], gap=3)
    assert wrong["e"] > 0.01 and wrong["gap"] > 0.01


def test_nothing_is_compared_across_a_cut() -> None:
    paintings = [grey(0), grey(2), grey(200), grey(202)]
    found = steadiness(paintings, [still(), None, still()], gap=2)
    assert found["e"] == pytest.approx(2 / 255) and "gap" not in found
    assert "e" not in steadiness(paintings[1:3], [None])


# --- true flow


@pytest.mark.parametrize(("suffix", "size"), [(".flo", 112), (".npz", 112), (".flo", 56)])
def test_true_flow_leads_from_each_frame_to_the_next(tmp_path: Path, suffix: str, size: int) -> None:
    moves = [2, 6, 4]
    write_clip(tmp_path / "clip", moves)
    for number, move in enumerate(moves):
        write_flow(tmp_path / f"flow/{number}{suffix}", -move, 64, 112)
        write_flow(tmp_path / f"wrong/{number}{suffix}", move, 64, 112)
        for folder in ("flow", "wrong"):
            Image.new("L", (112, 64)).save(tmp_path / folder / f"{number}.png")
    errors = []
    for folder in ("flow", "wrong"):
        footage = Footage(tmp_path / "clip", 40, size, tmp_path / folder)
        assert [each.flow[0, 0, 0] for each in footage.motions] == pytest.approx(
            [(-move if folder == "flow" else move) * size / 112 for move in moves[::-1]]
        )
        errors.append(steadiness(footage.in_order(footage.frames), footage.motions)["e"])
    assert errors[0] < (0.002 if size == 112 else 0.01) and errors[1] > 10 * errors[0]


def test_what_is_occluded_or_unknown_does_not_count(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip", [2])
    flow = np.full((64, 112, 2), (-2, 0), np.float32)
    flow[10:20, 30:40] = 1e10
    (tmp_path / "flow").mkdir()
    np.savez(tmp_path / "flow/a.npz", flow=flow)
    mask = np.zeros((64, 112), np.uint8)
    mask[40:, :50] = 255
    Image.fromarray(mask).save(tmp_path / "flow/a.png")
    (moved,) = Footage(tmp_path / "clip", 40, 112, tmp_path / "flow").motions
    assert moved is not None
    expected = (mask == 0) & (flow[..., 0] < 0) & (np.arange(112) >= 2)
    assert (moved.trusted == expected).all()
    (tmp_path / "flow/a.png").unlink()
    (measured,) = Footage(tmp_path / "clip", 40, 112, tmp_path / "flow").motions
    assert measured is not None and measured.trusted[30:, 20:90].mean() > 0.95
    assert not measured.trusted[:, :2].any()


@pytest.mark.parametrize("unknown", [1e10, np.nan, -np.inf])
def test_unknown_flow_is_not_followed_over_a_longer_time(tmp_path: Path, unknown: float) -> None:
    write_clip(tmp_path / "clip", [2, 2])
    flow = np.full((64, 112, 2), (-2.0003, 0), np.float32)  # a little of the unknown is in the pixels beside it
    flow[20:30, 20:30] = unknown
    for name in "ab":
        (tmp_path / "flow").mkdir(exist_ok=True)
        np.savez(tmp_path / f"flow/{name}.npz", flow=flow)
        Image.new("L", (112, 64)).save(tmp_path / f"flow/{name}.png")
    footage = Footage(tmp_path / "clip", 40, 112, tmp_path / "flow")
    found = steadiness(footage.in_order(footage.frames), footage.motions, gap=2)
    assert found["e"] < 0.002 and found["gap"] < 0.002


@pytest.mark.parametrize(
    "data",
    [b"", b"PIEH", b"XXXX" + bytes(16)]
    + [b"PIEH" + np.array(sides, "<i4").tobytes() for sides in ((9, 9), (0, 0))]
    + [b"PIEH" + np.array((-1, 4), "<i4").tobytes() + bytes(64)],
)
def test_a_file_without_flow_is_refused(tmp_path: Path, data: bytes) -> None:
    for suffix in (".flo", ".npz"):
        (tmp_path / f"a{suffix}").write_bytes(data)
        with pytest.raises(ValueError, match="no flow can be read"):
            read_flow(tmp_path / f"a{suffix}")
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match="no flow can be read"):
        read_flow(tmp_path / "b.npz")


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    np.savez_compressed(file, flow=np.random.default_rng(0).random((40, 40, 2)))
    whole = file.read_bytes()
    np.save(tmp_path / "array.npy", np.zeros((4, 4, 2)))  # an array under the name of an archive
    for data in (whole[:200], whole[:100] + bytes(20) + whole[120:], (tmp_path / "array.npy").read_bytes()):
        file.write_bytes(data)
        with pytest.raises(ValueError, match="no flow can be read"):
            read_flow(file)
    np.savez(file, flow=np.zeros((0, 5, 2)))
    with pytest.raises(ValueError, match="no flow can be read"):
        read_flow(file)


def test_flow_of_others_is_read(shared: Path) -> None:
    folder = shared / "data" / "video" / "flownet2_samples_gt"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    flow = read_flow(folder / "0flow.flo")
    with Image.open(folder / "0img0.ppm") as picture:
        assert flow.shape[1::-1] == picture.size and 0.1 < np.abs(flow).mean() < 50


# --- the report


def test_the_command_reports_and_keeps_what_is_finished(place: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(*RUN) == 0
    assert "report: out/report.md" in capsys.readouterr().out
    alone, steady = rows()
    assert (alone["way"], steady["way"]) == ("net, per frame", "net, steady")
    assert float(steady["e"]) < 0.7 * float(alone["e"])
    assert float(alone["input"]) == float(steady["input"]) < float(alone["e"])
    assert float(alone["contrast"]) == 1 and 0.5 < float(steady["contrast"]) < 1.2
    assert float(alone["fps"]) > 0 and alone["motion"] == "" and 0 < float(steady["motion"]) < 1
    assert alone["gap"] == "", "five frames hold none that are ten apart"
    report = Path("out/report.md").read_text()
    assert "5 frames of 96×55 pixels, measured flow" in report and report.count("| net, steady |") == 1
    for name in re.findall(r"\]\((.*?)\)", report):
        assert Path("out", name).is_file()
    # Six columns of 3·96 pixels at most: here five, and one of labels; three rows.
    height, width = read_image("out/pan.png").pixels.shape[-2:]
    assert width > 5 * 288 and 3 * 288 < height < 4 * 288
    painted = open_clip(Path("out/pan_net_steady.mp4"))
    assert painted.size == (96, 55) and len(list(painted.frames())) == 5

    def times() -> dict[str, int]:
        return {
            file.name: file.stat().st_mtime_ns for file in Path("out").rglob("*") if file.suffix in (".mp4", ".json")
        }

    before = times()
    assert run(*RUN) == 0 and times() == before, "finished cells are not made again"
    Path("out/pan_net_steady.mp4").unlink()
    for more in ((), ("--steady=0.9",)):
        assert run(*RUN, *more) == 0
        changed = {name for name, time in times().items() if before.get(name) != time}
        assert changed == {"pan_net_steady.mp4", "pan_net_steady.json"}
        before = times()


def test_two_networks_true_flow_and_the_reference(place: Path, capsys: pytest.CaptureFixture) -> None:
    write_clip(place / "two", [4])
    write_flow(place / "flow/0.flo", -4, 64, 112)
    save(place / "painting.png", 9)
    save_network(place / "other.safetensors", TransformNet(1, 4, 0))
    given = ("--networks=[net.safetensors,other.safetensors]", "--clips.two=two", "--flow.two=flow", "--frames=3")
    reference = ("--reference=2", "--painting=painting.png", "--reference_size=48", "--loss.network=compact")
    assert run(*RUN, *given, *reference) == 0
    ways = ["net, per frame", "net, steady", "other, per frame", "other, steady", "reference 2, 48 pixels"]
    assert [(row["clip"], row["way"]) for row in rows()] == [(clip, way) for clip in ("pan", "two") for way in ways]
    last = rows()[-1]
    assert last["contrast"] == "" and last["fps"] == "" and float(last["e"]) > 0
    assert last["input"] != rows()[-2]["input"], "it is measured at its own size"
    large, small = (read_image(f"out/cells/pan/clip_{size}.png").pixels for size in (96, 48))
    assert (large - small).abs().mean() < 0.1, "strips show the same part at every size"
    report = Path("out/report.md").read_text()
    assert (
        "## All clips" in report and "3 frames of 96×55" in report and "2 frames of 96×55 pixels, true flow" in report
    )
    assert len(list(open_clip(Path("out/two_reference_2_48_pixels.mp4")).frames())) == 2


def test_a_long_clip_has_a_gap_of_ten_frames(place: Path) -> None:
    write_clip(place / "long", [1] * 11, width=48)
    assert run(*RUN, "--clips={long: long}") == 0
    assert all(float(row["gap"]) > 0 for row in rows())


def test_the_config_reports(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = yaml.safe_load(CONFIG.read_text())
    for name, clip in config["clips"].items():
        write_clip(place / "made" / name, [2])
        Path(clip).parent.mkdir(parents=True, exist_ok=True)
        (place / clip).symlink_to(place / "made" / name)  # vtest.avi is a folder here: its suffix decides nothing
    for folder in config["flow"].values():
        write_flow(place / folder / "1.npz", -2, 64, 112)
    assert run("evaluate", "--config", str(CONFIG), "--size=32", "--networks=[net.safetensors]", "--style=null") == 0
    assert {row["clip"] for row in rows(config["output"])} == set(config["clips"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--clips.pan=none",), "none: no such clip"),
        (("--frames=1",), "frames from 2"),
        (("--steady=0",), "steady above 0"),
        (("--reference=5",), "painting is missing: the reference"),
        (("--networks=[any]",), "painting is missing: any needs"),
        (("--networks=[none]",), "network 'none'"),
        (("--networks=[net.safetensors,./net.safetensors]",), "networks: two are named net"),
        (("--style=wave",), "style 'wave' is unknown"),
        (("--flow.pam=flow",), "flow pam: did you mean pan? no clip has that name (pan)"),
        (("--flow.pan=none",), "none: no such folder"),
        (("--flow.pan=clip",), "clip: 0 files of flow (.flo, .npz) for 5 frames: needs 4"),
        (("--clips={a/b: clip}",), "clips 'a/b': a name without /"),
        (("--clips={one: one}",), "has one frame"),
        (("--clips={}",), "at least one clip"),
        (("--output=net.safetensors",), "net.safetensors"),
        (("--photos=[a.png]",), "--photos"),
        (("--clips={pan: out/pan_net_steady.mp4}", "--output=out"), "never written over"),
        (("--painting=out/pan.png",), "never written over"),
        (
            ("--clips={a: clip, a_net: clip}", "--networks=[net.safetensors,net_net.safetensors]"),
            "a_net_net_per_frame.mp4",
        ),
    ],
)
def test_mistakes_are_one_line(place: Path, options: tuple[str, ...], message: str, capsys) -> None:
    write_clip(place / "one", [])
    shutil.copy("net.safetensors", "net_net.safetensors")
    if "never" in message:
        assert run(*RUN) == 0
        capsys.readouterr()
    assert run(*RUN, *options) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


def test_help_tells_of_both(place: Path, capsys: pytest.CaptureFixture) -> None:
    for given, told in (((), "configs/evaluate/video.yaml"), (("--config", str(CONFIG)), "--reference_size")):
        with pytest.raises(SystemExit):
            run("evaluate", *given, "--help")
        assert told in capsys.readouterr().out


def test_the_part_that_moves_most_is_shown(tmp_path: Path) -> None:
    ground = levels(4, 96, 256)
    (tmp_path / "clip").mkdir()
    for number in range(3):
        frame = ground.copy()
        frame[20:60, 180 + 4 * number : 230 + 4 * number] = levels(5)[:40, :50]
        Image.fromarray(frame).save(tmp_path / f"clip/{number}.png")
    top, left, side = moving_part(Footage(tmp_path / "clip", 40, 256))
    assert top == 0 and 256 * left == 160 and 256 * side == SIDE
