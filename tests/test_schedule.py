"""The learning rate of every step, by steps and by the clock."""

import csv
import re
import time
from pathlib import Path

import pytest
from pictures import smoke_pictures

from impasto.commands import run
from impasto.training.schedule import rate_factor

SMOKE = ("--config", str(Path(__file__).parents[1] / "configs" / "smoke.yaml"))
CLOCK = (
    "--trainer.max_steps", "100000", "--trainer.val_check_interval", "100000", "--previews.every_n_steps", "0",
    "--checkpoint.every_n_train_steps", "100000", "--model.warmup_steps", "0", "--model.learning_rate", "0.01",
)  # fmt: skip


@pytest.fixture(autouse=True)
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smoke_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)


def fit(*options: str) -> int:
    return run("train", "fit", *SMOKE, *options)


def rates(folder: str = "runs/smoke") -> dict[int, float]:
    with Path(folder, "losses.csv").open(newline="") as file:
        return {int(row["step"]): float(row["learning_rate"]) for row in csv.DictReader(file) if row["learning_rate"]}


def test_the_rate_rises_stays_and_falls_linearly() -> None:
    assert [rate_factor(step, 4, 0.0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert [rate_factor(99, 4, share) for share in (0.5, 0.7, 0.85, 1.0)] == pytest.approx([1, 1, 0.5, 0])
    assert rate_factor(99, 0, 1.5) == 0


def test_by_steps_the_table_shows_the_rate_of_the_step_beside_it() -> None:
    assert fit("--model.learning_rate", "0.01", "--model.warmup_steps", "2") == 0
    expected = [0.005, 0.01, 0.01, 0.01, 0.01, 0.01 * (1 / 6) / 0.3]
    assert list(rates().values()) == pytest.approx(expected)


def test_a_rate_given_on_resume_acts() -> None:
    assert fit("--model.warmup_steps", "0") == 0
    assert fit("--model.warmup_steps", "0", "--model.learning_rate", "1e-5", "--ckpt_path", "last",
               "--trainer.max_steps", "8") == 0  # fmt: skip
    assert rates()[7] == pytest.approx(1e-5 * (1 - 6 / 8) / 0.3)


def test_by_the_clock_a_run_ends_in_time_at_a_rate_of_nothing_and_publishes() -> None:
    began = time.monotonic()
    assert fit("--minutes", "0.05", *CLOCK) == 0
    assert 3 <= time.monotonic() - began < 60
    assert Path("runs/smoke/smoke.safetensors").exists()
    found = list(rates().values())
    assert found == sorted(found, reverse=True) and found[0] > 0.009 and found[-1] < 0.005


def test_steps_end_a_run_that_comes_to_them_before_the_clock() -> None:
    assert fit("--minutes", "60", "--model.warmup_steps", "0") == 0
    assert max(rates()) == 6 and Path("runs/smoke/smoke.safetensors").exists()


def test_a_run_by_the_clock_goes_on_with_the_rest_of_its_time() -> None:
    assert fit("--minutes", "0.05", *CLOCK) == 0
    steps = max(rates())
    began = time.monotonic()
    assert fit("--minutes", "0.06", *CLOCK, "--ckpt_path", "last") == 0
    assert max(rates()) > steps, "there was half a second left"
    assert time.monotonic() - began < 60
    found = rates()
    assert found[min(step for step in found if step > steps)] < 0.7 * 0.01, "five sixths were spent before"


@pytest.mark.parametrize("length", [("--minutes", "0.02", *CLOCK), ()])
def test_a_finished_run_is_left_as_it_is(length: tuple[str, ...]) -> None:
    assert fit(*length) == 0
    steps, network = rates(), Path("runs/smoke/smoke.safetensors").read_bytes()
    assert fit(*length, "--ckpt_path", "last") == 0
    assert rates() == steps and Path("runs/smoke/smoke.safetensors").read_bytes() == network


def test_validation_says_what_it_measured(capsys: pytest.CaptureFixture) -> None:
    assert fit() == 0
    capsys.readouterr()
    assert run("train", "validate", *SMOKE, "--ckpt_path", "last") == 0
    assert re.search(r"^val/loss \d\.\d{3}$", capsys.readouterr().out, re.MULTILINE)
    assert run("train", "validate", *SMOKE, "--data.val_photos", "0") == 0
    said = capsys.readouterr().out
    assert "the network is measured as it is before training" in said and "no photos are kept for validation" in said


def test_lightnings_own_option_means_the_same() -> None:
    assert fit("--trainer.max_time", "00:00:00:03", *CLOCK) == 0
    found = rates()
    assert found[max(found)] < 0.005 and Path("runs/smoke/smoke.safetensors").exists()
    assert fit("--trainer.max_time", "00:00:00:06", *CLOCK, "--ckpt_path", "last") == 0
    assert max(rates()) > max(found), "there were three seconds left"


@pytest.mark.parametrize(("options", "message"), [
    (("--minutes", "0"), "--minutes 0.0: must be above 0"),
    (("--minutes", "-3"), "--minutes -3.0: must be above 0"),
    (("--trainer.max_time", "00:00:00:00"), "--minutes 0.0: must be above 0"),
    (("--trainer.max_time", "soon"), "soon"),
    (("--trainer.max_time", "00:00:00:04", "--minutes", "1"), "they are one option; give one"),
])  # fmt: skip
def test_mistakes_are_one_line(options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture) -> None:
    assert fit(*options) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert not Path("runs/smoke").exists()
