"""The commands of the READMEs, word for word, on generated pictures; trainings are shrunk to two steps."""

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
from conftest import EXPORT_GALLERY
from heeding import HEEDING
from pictures import save

from impasto.demo.runtime import FILES
from impasto.networks import load_network, published_networks

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "scripts/README.md", "configs/README.md", "src/impasto/README.md")]
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCKS = {language: re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL) for language in ("bash", "python")}
LINES = [line for block in BLOCKS["bash"] for line in block.splitlines() if line.startswith("python scripts/")]
COMMANDS = list(dict.fromkeys(LINES))
SHRUNK = (
    "--trainer.accelerator=cpu", "--trainer.max_steps=2", "--trainer.val_check_interval=2", "--data.crop=32",
    "--data.num_workers=0", "--data.batch_size=2", "--model.width=4", "--model.residual_blocks=1",
    "--model.gap_photos=2", "--model.loss.weights=random", "--model.style_size=96",
)  # fmt: skip


@pytest.fixture
def newcomer(tmp_path: Path) -> Path:
    """The folder a newcomer stands in: the checkout, a few photos, two paintings."""
    for name in ("scripts", "configs", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    save(tmp_path / "photo.jpg", 1)
    save(tmp_path / "painting.jpg", 2, blur=1.5)
    save(tmp_path / "other.jpg", 3, blur=3.0)
    for name in ("left.png", "right.png"):
        save(tmp_path / name, 4)
    for number in range(10):
        save(tmp_path / "photos" / f"{number}.jpg", 10 + number)
    return tmp_path


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Python, in a process of its own."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def script(folder: Path, line: str, *more: str) -> str:
    """What a line says that runs a script. The script runs in this process, where torch is imported already."""
    said, mistakes = StringIO(), StringIO()
    arguments = [*shlex.split(line)[1:], *more]
    with (
        chdir(folder), patch.object(sys, "argv", arguments), redirect_stdout(said), redirect_stderr(mistakes),
        pytest.raises(SystemExit) as ended,
    ):  # fmt: skip
        runpy.run_path(arguments[0], run_name="__main__")
    assert not ended.value.code, mistakes.getvalue()
    return said.getvalue()


def needs_published() -> None:
    assert {"starry_night", "great_wave", "udnie", "gallery"} <= set(published_networks())


def test_styles_commands_in_order(newcomer: Path) -> None:
    lines = [line for line in COMMANDS if "styles.py" in line or "styles.safetensors" in line]
    assert len(lines) == 5
    for line in lines:
        script(newcomer, line.replace("--fit 15", "--fit 1"))
    assert load_network(newcomer / "styles.safetensors").styles == ["nearer"]
    assert (newcomer / "stylized" / "photo_styles_mine.jpg").exists()


PLAIN = [line for line in COMMANDS if "infer.py" in line and ".onnx" not in line and "styles.s" not in line]


@pytest.mark.parametrize("line", PLAIN)
def test_infer_commands(line: str, newcomer: Path) -> None:
    needs_published()
    for photo in sorted((newcomer / "photos").iterdir())[2:]:
        photo.unlink()  # two make a folder, and each takes seconds at 1024 pixels
    script(newcomer, line)
    if "--list-styles" not in line:
        output = re.search(r"--output (\S+)", line)
        assert (newcomer / (output[1] if output else "stylized")).exists()


@pytest.mark.parametrize("line", [line for line in COMMANDS if "video.py" in line])
def test_video_commands(line: str, newcomer: Path) -> None:
    pytest.importorskip("av", reason="the video extra is not installed")
    pytest.importorskip("cv2", reason="the video extra is not installed")
    from test_video_command import film  # needs av

    needs_published()
    film(newcomer / "clip.mp4", 90)
    script(newcomer, line, "--size=64", "--fps=2")
    made = next((newcomer / "stylized").iterdir()) if "--output" not in line else newcomer / "wave.mp4"
    assert made.stat().st_size > 1000


def test_train_commands_in_order(newcomer: Path) -> None:
    """The second goes on from the first, as the README says, so they share a folder."""
    lines = [line for line in COMMANDS if "train.py fit " in line and "--help" not in line]
    assert len(lines) == 6
    for line in lines:
        script(newcomer, line, *SHRUNK, *([f"--run=run{lines.index(line)}"] if "cpu.yaml" in line else []))
    assert (newcomer / "runs" / "my_painting" / "my_painting.safetensors").exists()
    assert (newcomer / "runs" / "quickstart" / "chelsea_currents.png").exists()


def test_train_any_command(newcomer: Path) -> None:
    for number in range(3):
        save(newcomer / "paintings" / f"{number}.jpg", 20 + number, blur=1.5)
    (line,) = [line for line in COMMANDS if "train_any.py" in line]
    shrunk = [option for option in SHRUNK if "loss.weights" not in option]
    shrunk += ["--model.start_from=null", "--minutes=null"]
    assert "--network runs/any/any.safetensors --style PAINTING" in script(newcomer, line, *shrunk)


def test_optimize_command_for_clips(newcomer: Path) -> None:
    pytest.importorskip("av", reason="the video extra is not installed")
    pytest.importorskip("cv2", reason="the video extra is not installed")
    from test_video_command import film  # needs av

    film(newcomer / "clip.mp4", 3)
    (line,) = [line for line in COMMANDS if "optimize.py clip" in line]
    said = script(
        newcomer, line, "--size=64", "--style-size=64", "--steps=2", "--clip.steps=1", "--loss.network=compact"
    )
    assert "done: painted.mp4, 3 frames" in said and (newcomer / "painted.mp4").exists()


@pytest.mark.parametrize("line", [line for line in COMMANDS if "optimize.py photo" in line])
def test_optimize_commands(line: str, newcomer: Path) -> None:
    shrunk = ["--size=96", "--steps=2", "--snapshots=[1]", "--loss.network=compact"]
    if "--coarse" in line:
        shrunk.append("--coarse=[32]")
    assert "done after 2 steps" in script(newcomer, line, *shrunk)


@pytest.mark.parametrize("line", [line for line in COMMANDS if "evaluate.py" in line and "--clips" not in line])
def test_evaluate_commands(line: str, newcomer: Path) -> None:
    shrunk = ["--size=48", "--style_size=48", "--steps=1" if "--axes" in line else "--marks=[1]", "--costs=false"]
    assert "report.md" in script(newcomer, line, *shrunk)


def test_evaluate_command_for_clips(newcomer: Path) -> None:
    pytest.importorskip("av", reason="the video extra is not installed")
    pytest.importorskip("cv2", reason="the video extra is not installed")
    from impasto.video.reading import open_clip
    from impasto.video.writing import ClipWriter

    clip = open_clip(newcomer / "photos")
    writer = ClipWriter(newcomer / "walk.mp4", clip, clip.size, identity="")
    for frame in clip.frames():
        writer.write(frame)
    writer.finish()
    (line,) = [line for line in COMMANDS if "--clips" in line]
    assert "report.md" in script(newcomer, line, "--size=48", "--frames=3")
    assert (newcomer / "report" / "walk_gallery_steady.mp4").exists()


@pytest.mark.parametrize("line", [line for line in COMMANDS if "benchmark.py" in line])
def test_benchmark_commands(line: str, newcomer: Path) -> None:
    # At 32 pixels, the compact network's memory is that of the measurement itself, and may be 0.
    said = script(newcomer, line, "--size=96", "--batch=1", "--batches=[1]", "--width=4", "--rounds=1")
    rows = [row.split("|")[1:-1] for row in said.splitlines() if row.startswith("| ")]
    assert rows[1][0] == " usual recipe " and rows[1][1].endswith("(1.00) ") and rows[1][2].endswith("(1.00) ")
    assert len(rows) == 1 + 9 + (2 if "--quick" in line or "--photos" in line else 0), said
    assert all(float(cell.split("(")[0]) > 0 for row in rows if "photos/s" not in row[1] for cell in row[1:])
    assert ("2 workers read " in said) == ("--photos" in line)


def test_python_example(newcomer: Path) -> None:
    needs_published()
    done = call(newcomer, "-c", BLOCKS["python"][0])
    assert done.returncode == 0, done.stderr
    assert (newcomer / "painted.png").exists()


def test_export_demo_and_the_example_for_apps(newcomer: Path, gallery_onnx: Path) -> None:
    """In order: the other commands and the example use the file of the first, which the fixture runs."""
    export, paint = [line for line in COMMANDS if "gallery.onnx" in line and "demo.py" not in line]
    assert export == EXPORT_GALLERY
    (newcomer / "gallery.onnx").symlink_to(gallery_onnx)
    script(newcomer, paint)
    assert list((newcomer / "stylized").iterdir())
    done = call(newcomer, "-c", BLOCKS["python"][1])
    assert done.returncode == 0, done.stderr
    assert (newcomer / "painted.png").exists()
    serve_the_page(newcomer)


def serve_the_page(newcomer: Path) -> None:
    """The network is the exported one. The runtime's files are stand-ins, which the server only hands on."""
    (line,) = [line for line in COMMANDS if "demo.py" in line]
    (newcomer / "runtime").mkdir()
    for name in FILES:
        (newcomer / "runtime" / name).touch()
    command = [sys.executable, *shlex.split(line)[1:], "--runtime=runtime", "--port=0", "--open=false"]
    with subprocess.Popen(command, cwd=newcomer, stdout=subprocess.PIPE, text=True, **HEEDING) as process:
        assert process.stdout and process.stdout.readline().startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_options_of_the_table_exist(newcomer: Path) -> None:
    table = re.findall(r"^\| `(--[^`]+)` \|", (ROOT / "configs" / "README.md").read_text(), re.MULTILINE)
    assert len(table) >= 8
    said = script(newcomer, "python scripts/train.py fit --help")
    for option in {word for row in table for word in re.findall(r"--[\w.]+", row)}:
        assert option in said, option


def headings(page: Path) -> set[str]:
    """The anchors that its headings have on GitHub."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "checkpoints" / "README.md"], ids=lambda page: page.parent.name)
def test_pictures_and_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        place = page.parent / target if target else page
        assert place.exists(), target
        assert not anchor or anchor in headings(place), f"{target}#{anchor}"


def test_the_test_command_is_what_ci_runs() -> None:
    assert re.search(r"^pytest$", "\n".join(BLOCKS["bash"]), re.MULTILINE)
    assert re.search(r"^pytest$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
