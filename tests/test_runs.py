"""What becomes of a run's checkpoints: kept, damaged, on a full disk, in a folder that another run has."""

import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import survive_kills
import torch
from pictures import smoke_pictures
from test_training import command, ended, fit, losses, newest, run_once, terms

from impasto.commands import run
from impasto.training.checkpoints import CheckpointNotWritten, WholeCheckpoints, claim, damage, newest_checkpoint

__all__ = ["ended", "run_once"]  # fixtures

CHECKPOINTS = Path("runs/smoke/checkpoints")


@pytest.fixture(autouse=True)
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    smoke_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names() -> list[str]:
    return sorted(path.name for path in CHECKPOINTS.iterdir())


def global_step(path: Path | str) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def test_the_newest_and_the_best_are_kept() -> None:
    assert fit("--trainer.max_steps", "9", "--checkpoint.keep", "2") == 0
    assert names() == ["best.ckpt", "step-000008.ckpt", "step-000009.ckpt"]
    assert global_step(CHECKPOINTS / "best.ckpt") in (3, 6, 9)
    assert run("train", "validate", "--config", str(Path(__file__).parents[1] / "configs/smoke.yaml"),
               "--ckpt_path", str(CHECKPOINTS / "best.ckpt")) == 0  # fmt: skip


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_bit(path: Path) -> None:
    """In the middle of the largest tensor: every structure around it stays readable, and padding is not hit."""
    with zipfile.ZipFile(path) as file:
        largest = max(file.infolist(), key=lambda part: part.file_size)
        content = file.read(largest)
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(("harm", "precision"), [(cut, "32-true"), (flip_a_bit, "bf16-mixed"), (empty, "32-true")])
def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_the_same(
    harm: Callable[[Path], None], precision: str, ended: None, caplog: pytest.LogCaptureFixture
) -> None:
    if precision != "32-true":
        shutil.rmtree("runs")
        assert fit("--trainer.precision", precision) == 0
    whole, expected = torch.load(newest("runs/smoke"), weights_only=True)["state_dict"], losses("runs/smoke")
    harm(newest("runs/smoke"))
    assert fit("--trainer.precision", precision, "--ckpt_path", "last") == 0
    (said,) = [record.getMessage() for record in caplog.records if "damaged" in record.getMessage()]
    assert "step-000006.ckpt is damaged (" in said and said.endswith("going on from step-000004.ckpt, the one before")
    again = torch.load(newest("runs/smoke"), weights_only=True)["state_dict"]
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert {step: terms(row) for step, row in losses("runs/smoke").items()} == {
        step: terms(row) for step, row in expected.items()
    }


def test_where_all_are_damaged_nothing_is_begun_anew(ended: None, capsys: pytest.CaptureFixture) -> None:
    for path in CHECKPOINTS.glob("step-*"):
        cut(path)
    assert fit("--ckpt_path", "auto") == 2
    error = capsys.readouterr().err
    assert error.count("is damaged") == 3 and "begin anew with another --run" in error and "Traceback" not in error


def test_a_checkpoint_given_by_name_is_checked_before_anything_is_built(
    ended: None, capsys: pytest.CaptureFixture
) -> None:
    cut(newest("runs/smoke"))
    assert fit("--ckpt_path", str(newest("runs/smoke"))) == 2
    assert "cannot be read (" in capsys.readouterr().err
    assert fit("--ckpt_path", "nowhere.ckpt") == 2
    assert "nowhere.ckpt: cannot be read" in capsys.readouterr().err
    torch.save({"hyper_parameters": Path("foreign")}, "foreign.ckpt")
    assert fit("--ckpt_path", "foreign.ckpt") == 2
    assert "not a checkpoint of impasto" in capsys.readouterr().err


def test_one_command_begins_a_run_and_goes_on_with_it() -> None:
    assert fit("--ckpt_path", "auto", "--trainer.max_steps", "4") == 0
    assert fit("--ckpt_path", "auto") == 0
    assert list(losses("runs/smoke")) == [1, 2, 3, 4, 5, 6]


def test_a_run_of_an_earlier_version_goes_on() -> None:
    """Whose only checkpoint was last.ckpt."""
    assert fit("--trainer.max_steps", "4") == 0
    newest("runs/smoke").rename(CHECKPOINTS / "last.ckpt")
    (CHECKPOINTS / "step-000002.ckpt").unlink()
    assert fit() == 2, "it is a run"
    assert fit("--ckpt_path", "last") == 0 and global_step(newest("runs/smoke")) == 6


def test_going_on_from_an_earlier_checkpoint_leaves_the_new_ones_the_newest(ended: None) -> None:
    assert fit("--ckpt_path", str(CHECKPOINTS / "step-000002.ckpt"), "--trainer.max_steps", "3") == 0
    found = newest_checkpoint(Path("runs/smoke"))
    assert found is not None and found.name == "step-000003.ckpt"


def test_two_runs_cannot_have_one_folder(capsys: pytest.CaptureFixture) -> None:
    held = (
        "import sys, time; from pathlib import Path; from impasto.training.checkpoints import claim\n"
        "claim(Path('runs/smoke')); print('has it', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", held], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "has it\n"
    try:
        assert fit() == 2
        assert f"process {other.pid} on " in capsys.readouterr().err
        assert [path.name for path in Path("runs/smoke").iterdir()] == [".lock"]
    finally:
        other.kill()
        other.communicate()
    assert fit() == 0, "a killed process holds nothing"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_on_a_full_disk_the_old_checkpoint_survives_and_the_space_needed_is_said(small_disk: Path) -> None:
    writer, path = WholeCheckpoints(), small_disk / "step-000001.ckpt"
    writer.save_checkpoint({"weights": torch.rand(50_000)}, path)
    before = path.read_bytes()
    with pytest.raises(CheckpointNotWritten, match=r"No space left.*it takes 0\.4 MB, 0\.[23] MB are free there"):
        writer.save_checkpoint({"weights": torch.rand(100_000)}, path)
    assert path.read_bytes() == before and not damage(path)
    assert [file.name for file in small_disk.iterdir()] == [path.name], "nothing is left behind"


def test_a_run_that_fills_the_disk_stops_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    options = ("--run", str(small_disk / "run"), "--trainer.logger", "false", "--previews.every_n_steps", "0",
               "--model.width", "8", "--model.residual_blocks", "0", "--trainer.val_check_interval", "100")  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(*options, "--trainer.max_steps", "60"), env=environment, capture_output=True,
                          text=True)  # fmt: skip
    said = [line for line in done.stderr.splitlines() if line.startswith("impasto train:")]
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert len(said) == 1 and "make room, then go on with --ckpt_path last" in said[0]
    kept = newest_checkpoint(small_disk / "run")
    assert kept is not None
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    assert fit(*options, "--ckpt_path", "last", "--trainer.max_steps", str(global_step(kept) + 1)) == 0


def test_kills_change_nothing_in_what_a_run_comes_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it trains, and about when it saves; `survive_kills.py` kills more often."""
    monkeypatch.setattr(survive_kills, "LIFE", 0.5)
    assert len(survive_kills.survive(tmp_path / "runs", kills=2, seed=0, steps=80)) == 2
    assert survive_kills.differences(tmp_path / "runs", 80) == []


def test_killed_while_it_writes_a_run_has_its_old_checkpoint(tmp_path: Path) -> None:
    killed = (
        "import os, signal, sys, torch; from impasto.training.checkpoints import WholeCheckpoints\n"
        "WholeCheckpoints().save_checkpoint({'step': 1}, sys.argv[1])\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"  # all is written, nothing has its name
        "WholeCheckpoints().save_checkpoint({'step': 2}, sys.argv[1])"
    )
    path = tmp_path / "run" / "checkpoints" / "step-000001.ckpt"
    done = subprocess.run([sys.executable, "-c", killed, str(path)])
    left = list(path.parent.glob(".impasto-*.tmp"))
    assert done.returncode == -signal.SIGKILL and len(left) == 1
    assert newest_checkpoint(tmp_path / "run") == path and torch.load(path, weights_only=True) == {"step": 1}
    claim(tmp_path / "run")
    assert [file.name for file in path.parent.iterdir()] == [path.name], "the next run removes what was half written"
