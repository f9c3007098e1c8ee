"""Ctrl-C before there is anything to save: 130 and one line, whatever a command is about to do."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from heeding import HEEDING
from pictures import smoke_pictures
from test_training import ENVIRONMENT, SMOKE, command, losses, newest

from impasto.benchmark.measure import alone
from impasto.commands import run


@pytest.fixture(autouse=True)
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    smoke_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


class Interrupt(pl.Callback):
    """Sends this process a signal at one of Lightning's moments."""

    def __init__(self, moment: str, number: int) -> None:
        setattr(self, moment, lambda *_, **__: signal.raise_signal(number))


@pytest.mark.parametrize(
    ("what", "moment", "number", "status", "said"),
    [
        ("fit", "setup", signal.SIGINT, 130, "interrupted"),
        ("fit", "on_sanity_check_start", signal.SIGINT, 130, "interrupted"),
        ("validate", "on_validation_start", signal.SIGINT, 130, "interrupted"),
        ("fit", "on_sanity_check_start", signal.SIGTERM, 143, "interrupted"),
    ],
)
def test_between_claiming_the_folder_and_the_first_step(
    what: str, moment: str, number: int, status: int, said: str, capsys: pytest.CaptureFixture
) -> None:
    callback = f"{{class_path: {__name__}.Interrupt, init_args: {{moment: {moment}, number: {int(number)}}}}}"
    Path("stop.yaml").write_text(f"trainer: {{callbacks: [{callback}], num_sanity_val_steps: 1, logger: false}}")
    assert run("train", what, *SMOKE, "--config", "stop.yaml") == status
    error = capsys.readouterr().err
    assert error.count(f"impasto train: {said}") == 1 and "Traceback" not in error
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "Lightning had turned Ctrl-C off"
    assert not Path("runs/smoke/checkpoints").exists(), "the same command begins the run"


LOADING = """
import signal, sys
from impasto import commands

def load(name):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("cannot load module more than once per process")  # NumPy's

commands.import_module = load
sys.exit(commands.run("infer", "photo.jpg"))
"""
EXECUTING = """
import sys
import termios
import time
from impasto import commands

def load(name):
    exec("raise KeyboardInterrupt")  # as in a named tuple's text

commands.import_module = load
sys.exit(commands.run("infer", "photo.jpg"))
"""


@pytest.mark.parametrize("text", [LOADING, EXECUTING])
def test_while_libraries_are_loaded(text: str) -> None:
    Path("door.py").write_text(text)
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": os.pathsep.join([".", *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-m", "door"], env=environment, capture_output=True, text=True, **HEEDING)
    assert (done.returncode, done.stderr) == (130, "impasto infer: interrupted\n")


def test_a_terminal_that_is_closed_stops_a_training_with_a_checkpoint() -> None:
    """The terminal's own processes are signalled, workers among them, and can write to it no more."""
    options = ("--trainer.max_steps", "100000", "--checkpoint.every_n_train_steps", "100000", "--run", "closed")

    def take_the_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests under nohup inherit that it is ignored
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        command(*options, "--data.num_workers", "2"),
        env=ENVIRONMENT, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        preexec_fn=take_the_terminal,
    )  # fmt: skip
    os.close(terminal)
    while not Path("closed/losses.csv").exists():
        os.read(screen, 2**16)  # a screen that nobody reads stops the process
    os.close(screen)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGHUP)  # systems may signal the first process of a session twice
    assert process.wait(60) == 128 + signal.SIGHUP
    state = torch.load(newest("closed"), weights_only=True)
    assert state["global_step"] == max(losses("closed"))


def test_a_process_that_measures_for_another_leaves_ctrl_c_to_it() -> None:
    """As the one that is begun to begin others does, which imports torch for seconds, in the same process group."""
    assert signal.SIGINT in alone(signal.pthread_sigmask, signal.SIG_BLOCK, [])
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_process_that_measures_and_is_killed_is_said() -> None:
    """As Linux does where memory is short; waiting for it would never end."""
    with pytest.raises(ValueError, match="ended, with status 7; is there too little memory"):
        alone(os._exit, 7)
    with pytest.raises(ZeroDivisionError):
        alone(divmod, 1, 0)
