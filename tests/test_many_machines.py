"""Several processes, on one machine or on two that torchrun brings together, train as one does."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, suppress
from functools import cache
from pathlib import Path

import pytest
from pictures import smoke_pictures
from test_training import ENVIRONMENT, command, fit, losses, newest, wait_for

TERMS = ("train/loss", "train/content", "train/style", "train/tv")
STEPS = ("--trainer.max_steps", "12", "--trainer.val_check_interval", "12")


# How far the terms of the first and of the last step may lie apart: roundings grow.
BOUNDS = {"32-true": (1e-5, 2e-2), "bf16-mixed": (2e-2, 1e-1)}


@pytest.fixture(autouse=True)
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smoke_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[int, dict[str, str]]]:
    """The losses of one process with twice the batch, at a precision."""

    @cache
    def found(precision: str) -> dict[int, dict[str, str]]:
        folder = tmp_path_factory.mktemp("alone")
        smoke_pictures(folder)
        options = ("--data.batch_size", "4", "--trainer.precision", precision, "--run", "one")
        with chdir(folder):
            assert fit(*STEPS, *options) == 0
        return losses(str(folder / "one"))

    return found


def assert_same(
    together: dict[int, dict[str, str]], alone: dict[int, dict[str, str]], precision: str = "32-true"
) -> None:
    first, last = BOUNDS[precision]
    assert list(together) == list(alone)
    for name in TERMS:
        assert float(together[1][name]) == pytest.approx(float(alone[1][name]), rel=first)
        assert float(together[12][name]) == pytest.approx(float(alone[12][name]), rel=last)


@pytest.mark.parametrize("precision", list(BOUNDS))
def test_two_processes_give_the_loss_of_one_with_the_doubled_batch(
    precision: str, alone: Callable[[str], dict[int, dict[str, str]]]
) -> None:
    ranks = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "2", "--run", "ranks")
    done = subprocess.run(command(*STEPS, *ranks, "--trainer.precision", precision), env=ENVIRONMENT,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert_same(losses("ranks"), alone(precision), precision)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_machines_give_the_loss_of_one_process_and_only_the_first_writes(
    alone: Callable[[str], dict[int, dict[str, str]]],
) -> None:
    """Two torchrun agents over loopback, each in a folder of its own, as machines without a shared disk."""
    port, nodes = free_port(), []
    for rank in (0, 1):
        folder = Path(f"machine{rank}")
        folder.mkdir()
        (folder / "smoke").symlink_to(Path("smoke").resolve())
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={rank}",
                    "--nproc-per-node=1", "--master-addr=127.0.0.1", f"--master-port={port}", "--"]  # fmt: skip
        several = ("--trainer.num_nodes", "2", "--trainer.devices", "1", "--trainer.strategy", "ddp")
        arguments = command(*STEPS, *several, "--data.batch_size", "2", "--run", "run")[1:]
        nodes.append(subprocess.Popen([*torchrun, *arguments], cwd=folder, env=ENVIRONMENT, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT))  # fmt: skip
    said = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    assert_same(losses("machine0/run"), alone("32-true"))
    assert {path.name for path in Path("machine1").iterdir()} == {"smoke"}
    assert (Path("machine0/run/smoke.safetensors")).exists() and "network: " not in said[1]


def second_process(first: int) -> int:
    """The process of rank 1. Rank 0 has other children at times, such as git, which tells the commit."""
    while True:
        for pid in Path(f"/proc/{first}/task/{first}/children").read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                if b"LOCAL_RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    return int(pid)


def test_sigterm_to_the_second_of_two_processes_stops_both_at_one_step_and_the_run_goes_on() -> None:
    options = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--run", "stopped", "--ckpt_path", "auto",
               "--checkpoint.every_n_train_steps", "100000")  # fmt: skip
    process = subprocess.Popen(command(*options, "--trainer.max_steps", "100000"), env=ENVIRONMENT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    wait_for(Path("stopped/losses.csv"), process)
    time.sleep(1)
    os.kill(second_process(process.pid), signal.SIGTERM)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM and "Traceback" not in error, error
    step = max(losses("stopped"))
    assert newest("stopped").name == f"step-{step:06d}.ckpt" and f"stopped at step {step}" in out
    again = subprocess.run(command(*options, "--trainer.max_steps", str(step + 2)), env=ENVIRONMENT,
                           capture_output=True, text=True)  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert list(losses("stopped")) == list(range(1, step + 3))


def test_two_processes_end_by_one_clock() -> None:
    """Rates of their own would part their weights; which of them ended first would leave the other waiting."""
    options = ("--trainer.devices", "2", "--trainer.strategy", "ddp", "--run", "clock", "--minutes", "0.05",
               "--trainer.max_steps", "100000", "--trainer.val_check_interval", "100000",
               "--previews.every_n_steps", "0")  # fmt: skip
    done = subprocess.run(command(*options), env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert list(Path("clock").glob("*.safetensors"))
    assert newest("clock").name == f"step-{max(losses('clock')):06d}.ckpt"
