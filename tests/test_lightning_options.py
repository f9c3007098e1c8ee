"""Options of Lightning's Trainer: each is heeded by a training run, or refused by name before it begins."""

import csv
import inspect
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from pictures import smoke_pictures
from test_training import SMOKE, fit, newest, terms

from impasto.commands import run
from impasto.networks import load_network
from impasto.training.modes import check_options

EARLY = {"class_path": "pytorch_lightning.callbacks.EarlyStopping",
         "init_args": {"monitor": "val/loss", "stopping_threshold": 1e9}}  # fmt: skip

# One run has all of these; fast_dev_run has a test of its own.
HEEDED = {
    "accelerator": "cpu", "strategy": "auto", "devices": 1, "num_nodes": 1, "precision": "32-true", "logger": False,
    "callbacks": [EARLY], "plugins": None, "fast_dev_run": False, "max_steps": 4, "max_time": "00:01:00:00",
    "limit_val_batches": 1,
    "val_check_interval": 2, "num_sanity_val_steps": 1, "log_every_n_steps": 1, "enable_progress_bar": False,
    "enable_model_summary": True, "accumulate_grad_batches": 2, "gradient_clip_val": 1.0,
    "gradient_clip_algorithm": "value", "deterministic": "warn", "benchmark": False, "inference_mode": False,
    "profiler": "simple", "detect_anomaly": True, "sync_batchnorm": True, "default_root_dir": "here",
    "enable_autolog_hparams": False,
}  # fmt: skip
REFUSED = [
    ("barebones", True), ("check_val_every_n_epoch", 2), ("enable_checkpointing", False),
    ("limit_predict_batches", 1), ("limit_test_batches", 1), ("limit_train_batches", 0), ("limit_train_batches", 0.5),
    ("max_epochs", 3), ("min_epochs", 1), ("min_steps", 9), ("model_registry", "any"),
    ("overfit_batches", 1), ("overfit_batches", 0.5), ("reload_dataloaders_every_n_epochs", 1),
    ("use_distributed_sampler", True), ("accumulate_grad_batches", 0), ("gradient_clip_val", -1.0),
    ("log_every_n_steps", -1), ("num_sanity_val_steps", -2), ("strategy", "ddp_spawn"), ("strategy", "ddp_notebook"),
    ("val_check_interval", 0), ("val_check_interval", -1), ("val_check_interval", 0.5),
]  # fmt: skip


@pytest.fixture(autouse=True)
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smoke_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)


def rows(folder: str) -> list[dict[str, str]]:
    """The rows of training steps in losses.csv, in their order."""
    with Path(folder, "losses.csv").open(newline="") as file:
        return [terms(row) for row in csv.DictReader(file) if row["train/loss"]]


def test_every_option_of_the_trainer_is_in_one_of_the_tables() -> None:
    """An option that a later Lightning adds is to be tried, and entered."""
    assert {*HEEDED, *(name for name, _ in REFUSED)} == {*inspect.signature(pl.Trainer).parameters}


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_a_run_has_not_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^--trainer.{name} {value}: "):
        check_options({name: value})


def test_a_time_between_validations_does_not_go_with_accumulated_gradients() -> None:
    check_options({"val_check_interval": "00:00:10:00", "accumulate_grad_batches": 1})
    with pytest.raises(ValueError, match=r"--trainer.val_check_interval .* --trainer.accumulate_grad_batches 2"):
        check_options({"val_check_interval": "00:00:10:00", "accumulate_grad_batches": 2})


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--trainer.overfit_batches", "1"), "--trainer.overfit_batches 1: give --data.photos"),
     (("--trainer.precision", "transformer-engine"), "asks for what is not installed: Requirement")],
)  # fmt: skip
def test_a_refusal_is_one_line_and_leaves_nothing(
    options: tuple[str, str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert fit(*options) == 2
    error = capsys.readouterr().err
    assert error.count("impasto train: ") == 1 and message in error and "Traceback" not in error
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [("--model.width", "wide", "a whole number"), ("--minutes", "soon", "a number"),
     ("--model.loss.network", "vgg17", "vgg19 or vgg16 or compact"), ("--trainer.logger", "x", "true or false"),
     ("--model.compile", "x", "true or false or default or reduce-overhead or max-autotune"),
     ("--model.loss.style_layers", "3", "values with names"), ("--model.loss.scales", "x", "a list")],
)  # fmt: skip
def test_a_wrong_value_is_answered_in_words(
    option: str, value: str, allowed: str, capsys: pytest.CaptureFixture
) -> None:
    assert fit(option, value) == 2
    error = capsys.readouterr().err
    assert f"impasto train: {option} {value}: must be {allowed}" in error
    assert "class" not in error.replace("of a class", "") and "Parser" not in error


@pytest.mark.parametrize("devices", ["-3", "1,x"])
def test_wrong_devices_are_one_line(devices: str, capsys: pytest.CaptureFixture) -> None:
    assert fit("--trainer.devices", devices) == 2
    assert "impasto train: --trainer.devices: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [("--trainer.precision", "64-true"), ("--trainer.precision", "bf16-true"), ("--trainer.precision", "16-true"),
     ("--trainer.precision", "null", "--trainer.plugins", "pytorch_lightning.plugins.precision.DoublePrecision")],
    ids=lambda options: options[-1].split(".")[-1],
)  # fmt: skip
def test_weights_in_other_than_float32_are_refused_before_anything_is_made(
    options: tuple[str, ...], capsys: pytest.CaptureFixture
) -> None:
    assert fit(*options) == 2 and run("train", "validate", *SMOKE, *options) == 2
    said = capsys.readouterr().err.splitlines()
    named = options[-1] if options[-1].endswith("true") else "64-true"
    message = f"impasto train: --trainer.precision {named}: the weights are trained in float32"
    assert len([line for line in said if line.startswith(message)]) == 2 and not Path("runs").exists()


def test_mixed_precision_trains_previews_publishes_and_stays_near_float32() -> None:
    """On a CPU Lightning takes bfloat16 for float16, too. Its eight bits of mantissa are the tolerance."""
    options = ("--trainer.max_steps", "1")
    assert fit("--run", "float", *options) == 0
    assert fit("--run", "mixed", "--trainer.precision", "16-mixed", *options) == 0
    assert Path("mixed/previews/step-000001.jpg").exists()
    assert load_network("mixed/smoke.safetensors").metadata["training"]["precision"] == "bf16-mixed"
    found, expected = (float(rows(folder)[0]["train/loss"]) for folder in ("mixed", "float"))
    assert found == pytest.approx(expected, rel=2**-6) and found != expected


@pytest.fixture
def settings() -> Any:
    """torch's, which `deterministic` and `benchmark` change for the whole process."""
    yield
    torch.use_deterministic_algorithms(False)


def test_what_is_heeded_is_heeded_at_once(
    settings: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which Lightning sets, too
    Path("all.yaml").write_text(yaml.safe_dump({"run": None, "trainer": HEEDED}))
    assert fit("--config", "all.yaml") == 0
    said = capsys.readouterr()
    assert " left" not in said.err, "no bar"
    assert "ended at step 2, as one of --trainer.callbacks asked" in said.out
    assert "Total params" in said.out + said.err
    assert load_network("here/smoke.safetensors").metadata["training"]["steps"] == 2
    assert "optimizer_step" in Path("here/fit-profile.txt").read_text()
    assert not Path("here/tensorboard").exists() and torch.are_deterministic_algorithms_enabled()
    with Path("here/losses.csv").open(newline="") as file:
        validated = [row["step"] for row in csv.DictReader(file) if row["val/loss"]]
    assert validated == ["2"], "val_check_interval is in steps, not in batches"
    config = yaml.safe_load(Path("here/config.yaml").read_text())["fit"]
    assert config["trainer"]["val_check_interval"] == 2, "as it was given: who takes this file gets the same run"


def test_a_rehearsal_leaves_nothing_and_the_run_can_begin(capsys: pytest.CaptureFixture) -> None:
    bar = "pytorch_lightning.callbacks.RichProgressBar"
    assert fit("--trainer.fast_dev_run", "2", "--trainer.callbacks", bar) == 0
    assert "rehearsed: 2 steps went well; nothing of them was kept" in capsys.readouterr().out
    assert sorted(path.name for path in Path().iterdir()) == ["smoke"]
    Path("runs/smoke/checkpoints").mkdir(parents=True)
    Path("runs/smoke/checkpoints/step-000002.ckpt").touch()
    assert fit("--trainer.fast_dev_run", "1", "--data.photos", "nowhere") == 2
    assert "nowhere" in capsys.readouterr().err, "a run that is there is in nobody's way"
    assert fit("--trainer.fast_dev_run", "1", "--ckpt_path", "runs/smoke/checkpoints/step-000002.ckpt") == 2


class Interrupt(pl.Callback):
    """Ctrl-C after the first of the two batches that make step 2."""

    def on_train_batch_end(self, trainer: pl.Trainer, *rest: Any) -> None:
        if rest[-1] == 2:
            signal.raise_signal(signal.SIGINT)


def test_accumulated_batches_do_what_a_batch_of_their_size_does() -> None:
    """Also where Ctrl-C came amid a step: the run stops after it, and goes on from there."""
    both = ("--trainer.max_steps", "4", "--previews.every_n_steps", "2")
    parts = (*both, "--trainer.accumulate_grad_batches", "2", "--checkpoint.every_n_train_steps", "1")
    assert fit("--run", "whole", *both, "--data.batch_size", "4") == 0
    assert fit("--run", "parts", *parts, "--trainer.callbacks", f"{__name__}.Interrupt") == 130
    assert torch.load(newest("parts"), weights_only=True)["global_step"] == 2
    assert fit("--run", "parts", *parts, "--ckpt_path", "last") == 0
    expected, found = rows("whole"), rows("parts")
    assert [row["step"] for row in found] == ["1", "2", "3", "4"]
    for row, wanted in zip(found, expected, strict=True):
        assert {name: float(value) for name, value in row.items()} == pytest.approx(
            {name: float(value) for name, value in wanted.items()}, rel=1e-4
        )
    assert sorted(path.name for path in Path("parts/previews").iterdir()) == ["step-000002.jpg", "step-000004.jpg"]
    best = torch.load("parts/checkpoints/best.ckpt", weights_only=True)
    assert best["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"] == 2 * best["global_step"]
