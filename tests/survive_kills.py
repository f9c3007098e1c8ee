"""Kills a training run with SIGKILL at random moments, goes on each time, and compares what comes out with a run that
was left alone: python tests/survive_kills.py --kills 20
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from pictures import smoke_pictures
from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parents[1]
# A network whose checkpoint takes long enough to write to be hit in it. One thread, so that a sum is always taken in
# the same order.
OPTIONS = ("--config", str(ROOT / "configs" / "smoke.yaml"), "--model.width=32", "--model.residual_blocks=2",
           "--checkpoint.every_n_train_steps=3", "--trainer.val_check_interval=50", "--previews.every_n_steps=50",
           "--data.num_workers=2", "--ckpt_path=auto")  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
PARTIAL = "checkpoints/.partial.ckpt"
LIFE = 4.0  # seconds that a run is left to train, at most
SAVING = 0.005  # seconds after which it is killed in saving, at most


def start(folder: Path, run: str, steps: int) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "fit", *OPTIONS, f"--run={run}",
               f"--trainer.max_steps={steps}"]  # fmt: skip
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, start_new_session=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip


def finish(process: subprocess.Popen) -> None:
    """Waits; what it said is shown where it failed."""
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run failed, status {process.returncode}:\n{error}")


def kill(process: subprocess.Popen, run: Path, seconds: float, into_saving: float | None) -> str:
    """SIGKILL to the run and its workers after so many seconds, and then so many into saving, if asked."""
    end, partial = time.monotonic() + seconds, run / PARTIAL
    while time.monotonic() < end or (into_saving is not None and not partial.exists()):
        if process.poll() is not None:
            finish(process)
            return "had ended"
        time.sleep(0 if time.monotonic() >= end else 0.01)
    time.sleep(into_saving or 0)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    if partial.exists():
        return f"in saving, {partial.stat().st_size / 1e6:.1f} MB written"
    newest = max((path.name for path in run.glob("checkpoints/step-*")), default="none")
    return f"after {seconds:.1f} s; newest checkpoint: {newest}"


def survive(folder: Path, kills: int, seed: int, steps: int) -> list[str]:
    """Makes both runs in the folder, `whole` and `killed`; what happened at each kill."""
    smoke_pictures(folder)
    began = time.monotonic()
    whole = start(folder, "whole", steps)
    while not (folder / "whole" / "losses.csv").exists() and whole.poll() is None:
        time.sleep(0.05)
    starting = time.monotonic() - began
    finish(whole)
    chance, told = random.Random(seed), []
    for number in track(range(kills), "killing", console=Console(stderr=True)):
        saving = chance.uniform(0, SAVING) if number % 3 == 1 else None
        seconds = chance.uniform(0, starting + LIFE) if saving is None else starting + 1
        (folder / "killed" / PARTIAL).unlink(missing_ok=True)  # of the kill before
        told.append(kill(start(folder, "killed", steps), folder / "killed", seconds, saving))
    finish(start(folder, "killed", steps))
    return told


def differences(folder: Path, steps: int) -> list[str]:
    """What of the two runs is not the same to the last bit."""
    made = [torch.load(folder / name / f"checkpoints/step-{steps:06d}.ckpt", weights_only=True)
            for name in ("whole", "killed")]  # fmt: skip
    weights = [
        name for name, value in made[0]["state_dict"].items() if not torch.equal(value, made[1]["state_dict"][name])
    ]
    moments = [made[i]["optimizer_states"][0]["state"] for i in (0, 1)]
    adam = [f"Adam's {key} of {i}" for i, state in moments[0].items() for key, value in state.items()
            if not torch.equal(value, moments[1][i][key])]  # fmt: skip
    files = [name for name in ("losses.csv", "smoke.safetensors")
             if (folder / "whole" / name).read_bytes() != (folder / "killed" / name).read_bytes()]  # fmt: skip
    return weights + adam + files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--steps", type=int, default=300, help="length of the run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(survive(Path(folder), given.kills, given.seed, given.steps), 1):
            print(f"kill {number}: {text}")
        different = differences(Path(folder), given.steps)
    print(
        f"different: {', '.join(different)}"
        if different
        else "weights, Adam's state, losses and network: the same bits"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
