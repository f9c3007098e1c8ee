"""Kill a training run at random moments, resume it each time, and compare it with a whole run.

The two runs must end with the same bits: python tests/survive_kills.py --kills 20
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pictures import smoke_pictures
from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parents[1]
# The network is large enough that a kill can hit the writing of its checkpoint. One thread keeps
# the order of summation the same.
OPTIONS = ("--config", str(ROOT / "configs" / "smoke.yaml"), "--model.width=32",
           "--model.residual_blocks=2", "--checkpoint.every_n_train_steps=3",
           "--trainer.val_check_interval=50", "--previews.every_n_steps=50",
           "--data.num_workers=2", "--ckpt_path=auto")  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
PARTIAL = "checkpoints/.impasto-*.tmp"
MOMENTS = ("training", "saving", "any", "training")  # when the run is killed, in turn
STARTING = 6.0  # seconds that a run may take until it trains
LIFE = 3.0  # most seconds that a run trains before it is killed
SAVING = 0.005  # most seconds that a run saves before it is killed


def start(folder: Path, run: str, steps: int) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "fit", *OPTIONS,
               f"--run={run}", f"--trainer.max_steps={steps}"]  # fmt: skip
    return subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> None:
    """Wait for a run to end; exit with its error output if it failed."""
    _, error = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run failed, status {process.returncode}:\n{error}")


def wait(process: subprocess.Popen, until: Callable[[], bool]) -> None:
    """Wait until a condition holds; exit with an error if the run ends before."""
    while not until():
        if process.poll() is not None:
            finish(process)
            raise SystemExit("a run came to its end before it was to be killed: give more --steps")
        time.sleep(0.0002)


def newest(run: Path) -> str:
    return max((path.name for path in run.glob("checkpoints/step-*")), default="none")


def kill(process: subprocess.Popen, run: Path, moment: str, chance: random.Random) -> str:
    """Send SIGKILL to a run and its workers and return what was found afterwards.

    Args:
        process: the run.
        run: its folder.
        moment: `any`: from its start on; `training`: after a new checkpoint; `saving`: while a
            checkpoint is written.
        chance: the source of random delays.
    """
    had = newest(run)
    if moment != "any":
        wait(process, lambda: newest(run) != had)
    end = time.monotonic() + chance.uniform(0, STARTING + LIFE if moment == "any" else LIFE)
    wait(process, lambda: time.monotonic() > end)
    if moment == "saving":
        wait(process, lambda: any(run.glob(PARTIAL)))
        time.sleep(chance.uniform(0, SAVING))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    written = "".join(f", {file.stat().st_size / 1e6:.1f} MB of the next written" for file in run.glob(PARTIAL))
    return f"newest checkpoint before {had}, after {newest(run)}{written}"


def survive(folder: Path, kills: int, seed: int, steps: int) -> list[str]:
    """Make the run `whole`, and the run `killed` that is killed and resumed, in a folder.

    Args:
        folder: where both runs lie.
        kills: number of kills.
        seed: of the random moments.
        steps: length of the runs.

    Returns:
        A line for each kill that says what happened.
    """
    smoke_pictures(folder)
    finish(start(folder, "whole", steps))
    chance, told = random.Random(seed), []
    for number in track(range(kills), "killing", console=Console(stderr=True)):
        for partial in (folder / "killed").glob(PARTIAL):  # left by the kill before
            partial.unlink()
        told.append(
            kill(
                start(folder, "killed", steps),
                folder / "killed",
                MOMENTS[number % len(MOMENTS)],
                chance,
            )
        )
    finish(start(folder, "killed", steps))
    return told


def differences(folder: Path, steps: int) -> list[str]:
    """Return the names of what differs between the two runs in any bit."""
    made = [torch.load(folder / name / f"checkpoints/step-{steps:06d}.ckpt", weights_only=True)
            for name in ("whole", "killed")]  # fmt: skip
    weights = [
        name for name, value in made[0]["state_dict"].items() if not torch.equal(value, made[1]["state_dict"][name])
    ]
    moments = [made[i]["optimizer_states"][0]["state"] for i in (0, 1)]
    optimizer = [
        f"the optimizer's {key} of {i}"
        for i, state in moments[0].items()
        for key, value in state.items()
        if not torch.equal(value, moments[1][i][key])
    ]
    files = [
        name
        for name in ("losses.csv", "smoke.safetensors")
        if (folder / "whole" / name).read_bytes() != (folder / "killed" / name).read_bytes()
    ]
    return weights + optimizer + files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    parser.add_argument("--steps", type=int, default=600, help="length of the run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(survive(Path(folder), given.kills, given.seed, given.steps), 1):
            print(f"kill {number}: {text}")
        different = differences(Path(folder), given.steps)
    print(
        f"different: {', '.join(different)}"
        if different
        else "weights, optimizer's state, losses and network: the same bits"
    )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
