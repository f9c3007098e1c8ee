"""Runs of the real training command on small pictures: resume, stop, guards, ranks, what is published."""

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pictures import save, smoke_pictures
from PIL import Image
from rich.console import Console

from impasto.choices import LossOptions
from impasto.commands import run
from impasto.images import read_image
from impasto.images.paintings import thumbnail
from impasto.kernels import by_columns
from impasto.networks import load_network
from impasto.networks.preprocess import canvas
from impasto.networks.transform import TRAINING_MARGIN
from impasto.perceptual.target import StyleTarget
from impasto.training import callbacks
from impasto.training.fixed import FixedStyles
from impasto.training.objective import Objective
from impasto.training.teacher import Teacher

ROOT = Path(__file__).parents[1]
SMOKE = ("--config", str(ROOT / "configs" / "smoke.yaml"))
# Tests run next to each other or under CI: one thread, so that a sum is always taken in the same order.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(autouse=True)
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    smoke_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fit(*options: str) -> int:
    return run("train", "fit", *SMOKE, *options)


@pytest.fixture(scope="session")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    smoke_pictures(folder)
    with chdir(folder):
        assert fit() == 0
    return folder / "runs"


@pytest.fixture
def ended(run_once: Path, playground: Path) -> None:
    """A run of six steps that came to its end in runs/smoke: trained once, copied for each test that begins there."""
    shutil.copytree(run_once, "runs")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in ENVIRONMENT: a run in this process then adds in the same order as one in a process of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def command(*options: str) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "train.py"), "fit", *SMOKE, *options]


def newest(folder: str) -> Path:
    """The last checkpoint, by its step."""
    return max(Path(folder, "checkpoints").glob("step-*.ckpt"))


def losses(folder: str) -> dict[int, dict[str, str]]:
    """The rows of training steps in losses.csv, as the text they are."""
    with Path(folder, "losses.csv").open(newline="") as file:
        return {int(row["step"]): row for row in csv.DictReader(file) if row["train/loss"]}


def terms(row: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in row.items() if not name.startswith("val/")}


def test_a_run_leaves_everything_in_its_folder(capsys: pytest.CaptureFixture) -> None:
    assert fit("--run", "here") == 0
    left = {str(path.relative_to("here")) for path in Path("here").rglob("*") if path.is_file()}
    assert {"losses.csv", "config.yaml", "checkpoints/step-000006.ckpt", "smoke.safetensors",
            "previews/step-000003.jpg", "previews/step-000006.jpg"} <= left  # fmt: skip
    assert any(name.startswith("tensorboard/events") for name in left)
    assert "python scripts/infer.py PHOTO --network here/smoke.safetensors" in capsys.readouterr().out
    rows = losses("here")
    assert list(rows) == [1, 2, 3, 4, 5, 6] and float(rows[6]["train/style"]) > 0
    published = load_network("here/smoke.safetensors")
    learned = thumbnail(read_image("smoke/painting.png").pixels)
    assert published.metadata["styles"] == [{"name": "smoke", "thumbnail": learned}]
    assert published.metadata["loss"]["balance"] == "relative" and "weights" not in published.metadata["loss"]
    assert published.metadata["training"]["steps"] == 6


@pytest.mark.parametrize(("width", "shown"), [(80, ["left", "step 6/6", "loss ", "content ", "style "]),
                                              (60, ["left", "step 6/6", "loss "]), (24, ["left"])])  # fmt: skip
def test_a_narrow_terminal_shows_the_time_left_and_what_else_there_is_room_for(
    width: int, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, width=width, force_terminal=True, force_interactive=True, color_system=None)
    monkeypatch.setattr(callbacks, "Console", lambda **_: terminal)
    monkeypatch.setattr(callbacks, "BETWEEN_DRAWINGS", 0)
    assert fit("--previews.every_n_steps", "0") == 0
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).strip("\r") for line in screen.getvalue().split("\n")]
    drawn = [part for line in lines for part in line.split("\r") if " left" in part]
    assert drawn and all(len(part.rstrip()) <= width and "…" not in part for part in drawn)
    assert all(name in drawn[-1] for name in shown) and re.search(r"\d:\d\d:\d\d left", drawn[-1])


def test_a_finished_network_is_tried_on_a_photo(capsys: pytest.CaptureFixture) -> None:
    photo = save(Path("mine.png"), 77, height=40, width=61)
    assert fit("--try_on", str(photo)) == 0
    picture = Path("runs/smoke/mine_smoke.png")
    assert f"picture: {picture}" in capsys.readouterr().out
    pixels = read_image(picture).pixels
    assert pixels.shape == (1, 3, 40, 61)
    assert (pixels - load_network("runs/smoke/smoke.safetensors")(read_image(photo).pixels)).abs().max() < 1 / 250


def test_a_photo_to_try_that_is_missing_is_said_before_training(capsys: pytest.CaptureFixture) -> None:
    assert fit("--try_on", "nowhere.jpg") == 2
    assert "nowhere.jpg" in capsys.readouterr().err
    assert not Path("runs/smoke").exists()


def test_a_network_goes_on_from_another_by_the_names_of_its_styles(capsys: pytest.CaptureFixture) -> None:
    two = ("--model.styles.other=smoke/painting.png", "--run", "two")
    assert fit(*two) == 0
    capsys.readouterr()
    began = FixedStyles(dict.fromkeys(("new", "other"), "smoke/painting.png"), width=4, residual_blocks=1,
                        start_from="two/two.safetensors").network  # fmt: skip
    learned = load_network("two/two.safetensors")
    assert [style["name"] for style in learned.metadata["styles"]] == ["smoke", "other"]
    for name, value in learned.state_dict().items():
        if name.endswith((".gamma", ".beta")):
            value = torch.stack([value.mean(0), value[1]])  # `new` is none of them
        assert torch.equal(began.state_dict()[name], value)
    assert fit("--model.start_from", "two/two.safetensors", "--model.width", "8") == 2
    assert "start_from two/two.safetensors: its width is 4, not 8; give --model.width 4" in capsys.readouterr().err
    assert fit("--model.start_from", "nobody") == 2
    assert "network 'nobody': neither a file nor a published name" in capsys.readouterr().err


def test_a_network_learns_the_paintings_of_a_teacher(capsys: pytest.CaptureFixture) -> None:
    two = ("--model.styles", "{smoke: smoke/painting.png, other: smoke/painting.png}")
    assert fit(*two, "--model.width", "8", "--trainer.max_steps", "1", "--run", "large") == 0
    imitate = (*two, "--model.teacher", "large/large.safetensors", "--model.teacher_weight", "30")
    assert fit(*imitate, "--trainer.max_steps", "60", "--trainer.val_check_interval", "20", "--model.warmup_steps", "5",
               "--run", "small") == 0  # fmt: skip
    with Path("small/losses.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seen = [float(row["val/teacher"]) for row in rows if row["val/teacher"]]
    assert len(seen) == 3 and seen[2] < seen[1] < seen[0] and seen[2] < 0.95 * seen[0]
    row = next(row for row in rows if row["train/loss"])
    row = {name: float(value) for name, value in row.items() if value}
    parts = row["train/content"] + row["train/style"] + 0.1 * row["train/tv"] + 30 * row["train/teacher"]
    assert row["train/loss"] == pytest.approx(parts, rel=1e-4)
    small = load_network("small/small.safetensors")
    assert small.metadata["training"]["teacher"] == "large" and small.metadata["training"]["teacher_weight"] == 30
    assert all("teacher" not in name for name in torch.load(newest("small"), weights_only=True)["state_dict"])
    capsys.readouterr()
    assert fit("--model.styles.new=smoke/painting.png", "--model.teacher", "large/large.safetensors") == 2
    assert "teacher large/large.safetensors: does not know new; its styles: smoke, other" in capsys.readouterr().err
    assert fit("--model.teacher", "large/large.safetensors", "--model.teacher_weight", "0") == 2
    assert "teacher_weight 0.0: must be above 0" in capsys.readouterr().err


def test_the_difference_from_a_teacher_is_a_fraction() -> None:
    teacher = Teacher("realtime", ["udnie", "the_scream"])
    content, code = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)), torch.eye(2)
    known = load_network("realtime")
    with torch.no_grad():
        wanted = torch.cat([
            known(photo[None], known.encode_style(style), TRAINING_MARGIN)
            for photo, style in zip(content, ("udnie", "the_scream"), strict=True)
        ])  # fmt: skip
    assert teacher.error(wanted, content, code) < 1e-4
    varied = (wanted - wanted.mean((2, 3), keepdim=True)).abs().mean()
    error = float(teacher.error(wanted + 0.1, content, code))
    assert error == pytest.approx(0.1 / (2**0.5 * float(varied)), rel=1e-3)
    assert teacher.error(wanted.flip(0), content, code) > 0.5


def test_another_picture_under_the_name_of_a_painting_is_said(capsys: pytest.CaptureFixture, caplog) -> None:
    """Where a run goes on, where it begins from a network, and where a checkpoint is judged."""
    quick = ("--trainer.logger", "false", "--previews.every_n_steps", "0", "--trainer.max_steps")
    assert fit("--run", "a", *quick, "2") == 0
    image = ("--model.styles.smoke.image", "other.png")
    with Image.open("smoke/painting.png") as picture:
        picture.resize((100, 75)).save("same.jpg", quality=70)
    assert fit("--run", "a", *quick, "3", "--ckpt_path", "last", *image[:1], "same.jpg") == 0
    save(Path("other.png"), 5, blur=1.5)
    capsys.readouterr()
    assert fit("--run", "a", *quick, "4", "--ckpt_path", "last", *image) == 2
    said = capsys.readouterr().err
    assert "painting smoke: other.png is another picture than the checkpoint was trained on" in said
    assert "Traceback" not in said and newest("a").name == "step-000003.ckpt"
    caplog.clear()
    assert fit("--run", "b", *quick, "1", "--model.start_from", "a/smoke.safetensors", *image) == 0
    assert "other.png is another picture than a/smoke.safetensors learned under that name" in caplog.text


def test_flat_photos_get_a_sensible_balance(caplog) -> None:
    Path("flat").mkdir()
    for number in range(12):
        Image.new("RGB", (64, 48), (120, 130, 140)).save(f"flat/{number:02}.png")
    assert fit("--run", "a", "--data.photos", "flat", "--trainer.logger", "false", "--previews.every_n_steps", "0") == 0
    assert caplog.text.count("photos for the balance are all alike: it is measured on drawn pictures instead") == 1
    assert all(0 <= float(row["train/content"]) < 20 for row in losses("a").values())  # 4e12 over the gap of nothing


def test_the_loss_network_is_in_no_checkpoint(ended: None) -> None:
    checkpoint = torch.load(newest("runs/smoke"), weights_only=True)
    assert all(name.startswith("network.") for name in checkpoint["state_dict"])
    trained = load_network(newest("runs/smoke"))
    published = load_network("runs/smoke/smoke.safetensors")
    for name, value in published.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name].half().float())
    assert trained.metadata["styles"] == published.metadata["styles"]


def test_killed_and_resumed_goes_on_bit_for_bit(one_thread: None) -> None:
    """SIGKILL in mid-run under moving weights; the next 20 losses equal those of the run that was not interrupted."""
    # The steps must not be over before the kill; 40 leaves time even on a fast machine.
    options = ("--trainer.max_steps", "40", "--checkpoint.every_n_train_steps", "10", "--previews.every_n_steps", "0",
               "--model.loss.balance", "dynamic")  # fmt: skip
    assert fit("--run", "whole", *options) == 0
    process = subprocess.Popen(command("--run", "killed", *options), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    wait_for(Path("killed/checkpoints/step-000010.ckpt"), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("killed/smoke.safetensors").exists(), "the kill came too late"
    from_step = torch.load(newest("killed"), weights_only=True)["global_step"]
    assert fit("--run", "killed", "--ckpt_path", "last", *options) == 0
    expected, found = losses("whole"), losses("killed")
    assert list(found) == list(expected)
    for step in range(from_step + 1, min(from_step + 21, 41)):
        assert terms(found[step]) == terms(expected[step]), f"step {step} after going on from {from_step}"
    a, b = (torch.load(newest(name), weights_only=True) for name in ("whole", "killed"))
    assert all(torch.equal(value, b["state_dict"][name]) for name, value in a["state_dict"].items())


def wait_for(path: Path, process: subprocess.Popen) -> None:
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None, "the run ended early"
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal_it_says_how_to_go_on(number: int) -> None:
    options = ("--trainer.max_steps", "100000", "--checkpoint.every_n_train_steps", "100000", "--run", "stopped")
    process = subprocess.Popen(
        command(*options, "--data.num_workers", "2"),
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(Path("stopped/losses.csv"), process)
    os.killpg(process.pid, number)  # as Ctrl-C and `timeout` do: the workers that read photos are signalled too
    out, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number and "Traceback" not in error, error
    assert "--ckpt_path last goes on from there" in out
    step = torch.load(newest("stopped"), weights_only=True)["global_step"]
    assert step == max(losses("stopped"))
    assert [file.name for file in Path("stopped/checkpoints").glob("step*")] == [f"step-{step:06d}.ckpt"]
    assert "val/loss" not in Path("stopped/losses.csv").read_text(), "nobody waits for a validation"
    assert not Path("stopped/smoke.safetensors").exists()


def test_an_earlier_run_is_not_overwritten(ended: None, capsys: pytest.CaptureFixture) -> None:
    before = newest("runs/smoke").read_bytes()
    assert fit() == 2
    assert "go on with --ckpt_path last, or choose another folder" in capsys.readouterr().err
    assert newest("runs/smoke").read_bytes() == before
    assert run("train", "validate", *SMOKE) == 0, "which writes over nothing"


@pytest.mark.parametrize(
    ("option", "value"),
    [("width", "6"), ("style_size", "40"), ("loss.scales", "[1.0,0.5]"), ("loss.network", "vgg16")],
)
def test_what_a_run_cannot_change_on_its_way_is_said(
    option: str, value: str, ended: None, capsys: pytest.CaptureFixture
) -> None:
    assert fit("--ckpt_path", "last", "--trainer.max_steps", "9", f"--model.{option}", value) == 2
    error = capsys.readouterr().err
    assert f"the checkpoint was trained with {option} " in error and "Traceback" not in error


def test_non_finite_loss_names_term_and_step_and_keeps_the_checkpoint(capsys: pytest.CaptureFixture) -> None:
    assert (
        fit("--model.learning_rate", "1e30", "--model.warmup_steps", "0", "--checkpoint.every_n_train_steps", "1") == 2
    )
    error = capsys.readouterr().err
    assert "step " in error and "learning_rate" in error and "Traceback" not in error
    assert not Path("runs/smoke/smoke.safetensors").exists()
    for path in Path("runs/smoke/checkpoints").glob("*.ckpt"):
        state = torch.load(path, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values())


def test_the_last_look_is_before_the_checkpoint(capsys: pytest.CaptureFixture) -> None:
    """A term that is not finite stops the run though nobody logged its step."""
    assert fit("--model.learning_rate", "1e30", "--model.warmup_steps", "0", "--trainer.log_every_n_steps", "100") == 2
    assert "step 1: the " in capsys.readouterr().err
    assert not list(Path("runs/smoke").glob("checkpoints/*.ckpt"))


COMPILED = """
import torch
from impasto.choices import LossOptions
from impasto.perceptual.loss import PerceptualLoss
from impasto.networks import TransformNet

torch.manual_seed(0)
loss = PerceptualLoss(LossOptions("vgg16", "random"))
photos, style = torch.rand(2, 3, 32, 32), torch.eye(2)
target = loss.style_target([torch.rand(1, 3, 32, 32)] * 2, photos).select(torch.arange(2))
network, found = TransformNet(2, 4, 1), []
whole = {"backend": "aot_eager", "fullgraph": True}
for paint, judge in ((network, loss), (torch.compile(part.forward, **whole) for part in (network, loss))):
    sum(judge(paint(photos, style), photos, target).values()).backward()
    assert all(p.grad.any() for name, p in network.named_parameters() if p.ndim > 1 and "beta" not in name)
    found.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    network.zero_grad(set_to_none=True)
assert (found[0] - found[1]).norm() < 1e-3 * found[0].norm()
"""


def test_network_and_loss_are_compiled_whole() -> None:
    """No break in either graph, and the same gradient. In a process without our checks of shapes, which break them."""
    done = subprocess.run([sys.executable, "-c", COMPILED], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


PAIRS = """
import torch
from torch._dynamo.testing import CompileCounter
from impasto.choices import LossOptions
from impasto.networks import TransformNet
from impasto.training.objective import Objective
network, count = TransformNet(2, 4, 1), CompileCounter()
compiled = torch.compile(network.forward, backend=count, dynamic=False)
objective = Objective(LossOptions("compact", balance="fixed"), torch.device("cpu"), shift_weight=1.0, canvas=3.0)
target = objective.loss.style_target([torch.rand(1, 3, 64, 64)] * 2).select(torch.tensor([0, 1] * 4))
for step in range(9):
    code = torch.eye(2).repeat(4, 1)
    paint = lambda content, code, origin: compiled(content, code, 8, origin)
    objective(paint, torch.rand(8, 3, 52, 52), code, target, step)[1].backward()
assert count.frame_count == 2, count.frame_count
"""


def test_the_network_is_compiled_once_for_photos_and_once_for_pairs() -> None:
    """Not for each of the nine shifts."""
    done = subprocess.run([sys.executable, "-c", PAIRS], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_gradients_are_clipped(ended: None) -> None:
    assert fit("--trainer.gradient_clip_val", "1e-9", "--run", "clipped") == 0
    free, clipped = (load_network(newest(run)).state_dict()["to_rgb.bias"] for run in ("runs/smoke", "clipped"))
    assert not torch.equal(free, clipped)


def test_a_run_that_would_train_in_vain_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As torch 2.11 did with the compiled network: no gradient before the last layer."""
    monkeypatch.setattr("impasto.networks.transform.by_columns", lambda layer, x: by_columns(layer, x.detach()))
    assert fit() == 2
    error = capsys.readouterr().err
    assert "no gradient reaches" in error and "layers.0.convolution.weight" in error and "Traceback" not in error


def test_weights_average_through_lightnings_callback() -> None:
    callback = '[{"class_path": "pytorch_lightning.callbacks.EMAWeightAveraging", "init_args": {"decay": 0.5}}]'
    assert fit("--trainer.callbacks", callback) == 0
    checkpoint = torch.load(newest("runs/smoke"), weights_only=True)
    published = load_network("runs/smoke/smoke.safetensors").state_dict()
    name = "to_rgb.weight"
    assert torch.equal(published[name], checkpoint["state_dict"][f"network.{name}"].half().float())
    assert not torch.equal(published[name], checkpoint["current_model_state"][f"network.{name}"].half().float())


def test_several_styles_are_learned_in_turns_and_published_by_name() -> None:
    save(Path("smoke/second.png"), 2000, blur=3.0)
    assert fit("--model.styles.second", "smoke/second.png", "--run", "two") == 0
    network = load_network("two/two.safetensors")
    assert [style["name"] for style in network.metadata["styles"]] == ["smoke", "second"]
    gamma = load_network(newest("two")).state_dict()["layers.0.norm.gamma"]
    assert not torch.equal(gamma[0], gamma[1]) and not (gamma == 1).all(1).any(), "both styles were trained"


class Waves(torch.nn.Module):
    """Paints what moves with the photo: each pixel's mean with its neighbour."""

    def forward(self, content: torch.Tensor, style: torch.Tensor, margin: int) -> torch.Tensor:
        return (content + content.roll(1, -1)) / 2


class Dots(torch.nn.Module):
    """Paints a dot on every fourth pixel of the picture's own grid, wherever the content is."""

    def forward(self, content: torch.Tensor, style: torch.Tensor, margin: int) -> torch.Tensor:
        painted = content.clone()
        painted[..., ::4, ::4] += 0.5
        return painted


class NoLoss(torch.nn.Module):
    """A loss of nothing, so that the shift term is all."""

    def __init__(self) -> None:
        super().__init__()
        self.current: dict[str, float] = {}
        self.options = SimpleNamespace(asked={})

    def forward(self, output: torch.Tensor, content: torch.Tensor, target: object) -> dict[str, torch.Tensor]:
        return {}


@pytest.mark.parametrize(("network", "expected"), [(Waves(), 0.0), (Dots(), 2 * 0.25 / 16)])
@pytest.mark.parametrize("photos", [1, 2, 6])
def test_the_shift_term_sees_what_is_locked_to_the_pixel_grid(
    network: torch.nn.Module, expected: float, photos: int
) -> None:
    """Half a dot's square at each of two places among sixteen: where the dots are, and where they were."""
    objective = Objective(LossOptions("compact", balance="fixed"), torch.device("cpu"), shift_weight=1.0)
    objective.loss = NoLoss()
    content, code, target = torch.rand(photos, 3, 68, 68), torch.ones(photos, 1), StyleTarget({}, {}, {})
    fractions, total = objective(lambda content, code, origin: network(content, code, 8), content, code, target, step=0)
    assert float(total) == pytest.approx(expected, rel=0.05, abs=1e-6)
    assert float(fractions["shift"]) == pytest.approx(expected, rel=0.05, abs=1e-6)


def test_a_checkpoint_of_adam_is_refused_by_name_and_its_network_taken(
    ended: None, capsys: pytest.CaptureFixture
) -> None:
    """As versions before Muon wrote them: one group of parameters, no `method`."""
    checkpoint = torch.load(newest("runs/smoke"), weights_only=True)
    for group in checkpoint["optimizer_states"][0]["param_groups"]:
        del group["method"]
    torch.save(checkpoint, "old.ckpt")
    assert fit("--ckpt_path", "old.ckpt", "--trainer.max_steps", "9") == 2
    error = capsys.readouterr().err
    assert "with Adam alone: begin a new run" in error and "Traceback" not in error
    assert fit("--model.start_from", "old.ckpt", "--run", "on") == 0


def test_the_canvas_moves_with_the_photo_and_is_no_pattern_of_the_grid() -> None:
    objective = Objective(LossOptions("compact", balance="fixed"), torch.device("cpu"), shift_weight=1.0)
    objective.loss = NoLoss()
    content, code = torch.rand(1, 3, 68, 68), torch.ones(1, 1)

    def term(follow: int) -> float:
        """The shift term where all that is painted is a canvas, which moves with the photo or stays."""

        def paint(content: torch.Tensor, code: torch.Tensor, origin: tuple[int, int]) -> torch.Tensor:
            rows, columns = (follow * start + torch.arange(64) for start in origin)
            return content + canvas(rows, columns, 6.0)

        return float(objective(paint, content, code, StyleTarget({}, {}, {}), step=4)[1])

    assert term(1) < 1e-10 and term(0) > 1e-5


def test_the_shift_term_is_part_of_the_loss() -> None:
    assert fit("--model.shift_weight", "10") == 0
    row = {name: float(value) for name, value in losses("runs/smoke")[6].items() if value}
    parts = row["train/content"] + row["train/style"] + 0.1 * row["train/tv"] + 10 * row["train/shift"]
    assert row["train/shift"] > 0 and row["train/loss"] == pytest.approx(parts, rel=1e-4)


def test_training_lowers_the_validation_loss() -> None:
    assert fit("--trainer.max_steps", "60", "--trainer.val_check_interval", "20", "--model.learning_rate", "5e-3",
               "--model.warmup_steps", "5") == 0  # fmt: skip
    with Path("runs/smoke/losses.csv").open(newline="") as file:
        values = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert len(values) == 3 and values[-1] < values[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model.styles.smoke", "nowhere.jpg"), "nowhere.jpg does not exist; give --model.styles.smoke.image"),
        (("--model.styles", '{"../../esc": smoke/painting.png}'), "style name '../../esc': must be text without / or"),
        (("--model.styles", '{"": smoke/painting.png}'), "style name ''"),
        (("--run", "new", "--model.styles", '{"a/b": smoke/painting.png}'), "style name 'a/b'"),
        (("--model.widht", "3"), "widht"),
        (("--config", "typo.yaml"), "widht"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
        (("--model.loss.balance", "magic"), "relative"),
        (("--data.photos", "nowhere"), "nowhere"),
        (("--trainer.max_epochs", "3"), "use --trainer.max_steps"),
        (("--data.photo", "smoke/photos"), "--data.photo"),
        (("--run", "new", "--ckpt_path", "last"), "new holds no checkpoint to go on from"),
        (("--run", "smoke/painting.png/run"), "choose another folder"),
        (("--data.crop", "8"), "crop"),
        (("--model.shift_weight", "-1"), "shift_weight -1.0, gap_photos 4: the first from 0"),
        (("--model.gap_photos", "1"), "photos from 2"),
        (("--model.canvas", "-3"), "canvas -3.0: must be at least 0"),
        (("--trainer.accelerator", "gpu", "--trainer.devices", "99"), "gpu"),
        (("--model.loss.weights", "nowhere.pth"), "nowhere.pth"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture) -> None:
    Path("typo.yaml").write_text("model:\n  widht: 3\n")
    assert fit(*options) == 2
    error = capsys.readouterr().err
    said = [line for line in error.splitlines() if line.startswith("impasto train:")]
    assert len(said) == 1 and message in said[0]
    assert "Traceback" not in error and "usage:" not in error


def test_a_failed_start_leaves_no_folder_but_one_that_was_there() -> None:
    mistakes = ("--model.styles.smoke nowhere.jpg", "--data.photos nowhere", "--data.crop 5000")
    for options in mistakes:
        assert fit(*options.split()) == 2 and not Path("runs/smoke").exists()
    Path("runs/smoke").mkdir(parents=True)
    Path("runs/smoke/note.txt").write_text("mine")
    for options in mistakes:
        assert fit(*options.split()) == 2 and Path("runs/smoke/note.txt").read_text() == "mine"
    assert fit("--trainer.max_steps", "1") == 0, "nothing was trained in it"
