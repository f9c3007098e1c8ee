"""Recorded results of the package: pictures, losses and a short training.

`test_golden.py` computes them again and compares. Only the scripts and the public names of
`impasto` are used, which stay when modules are rearranged.

`python tests/golden.py` records the results and prints what changed. Entries that differ by no more
than is allowed keep their old numbers.

The networks, checkpoints and exported graphs in `golden/` were written by earlier versions and stay
there. `python tests/golden.py --keep NAME` adds those of this version.
"""

import argparse
import csv
import hashlib
import json
import runpy
import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

from impasto import LossOptions, PerceptualLoss, Stylizer, load_network

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "tests" / "golden"
RECORD = KEPT / "numbers.json"
CHECKPOINTS = ROOT / "checkpoints"
COMPACT = CHECKPOINTS / "compact.safetensors"  # the loss network, which paints nothing
# Their styles are pictures, so tests/test_any_painting.py looks at what they paint.
FOR_PICTURES = [CHECKPOINTS / "any.safetensors", CHECKPOINTS / "adain.safetensors"]
# Learning rate of the runs that `keep` stores and `resumed` continues. It is high, so that ten
# steps make the two styles differ.
KEPT_RATE = "--model.learning_rate=0.05"
BLOCK = 8  # pictures are recorded as means of blocks of 8×8 pixels
# The difference allowed for an entry, by the first word of its name: LEVELS are in grey levels,
# SHARES relative to the recorded number. On kernels without vector instructions, or with two
# threads, pictures differed by 0.1, losses by 7e-6, gradients by 1e-4 and the training by 4e-5; on
# AVX2 instead of AVX-512 by less.
LEVELS = {"picture": 0.25, "onnx": 0.25}
SHARES = {"loss": 1e-4, "gradient": 1e-3, "training": 5e-4}

# By name, an entry: numbers, or the sha256 of the file that they were made with.
Entries = dict[str, list[float] | str]


def networks() -> list[Path]:
    """Return the files of the published networks, and the networks and checkpoints in `golden/`."""
    return [
        *sorted(set(CHECKPOINTS.glob("*.safetensors")) - {COMPACT, *FOR_PICTURES}),
        *kept("*.safetensors"),
        *kept("*.ckpt"),
    ]


def kept(pattern: str) -> list[Path]:
    """Return the files in `golden/` that match the pattern, the oldest format first."""
    return sorted(KEPT.glob(pattern))


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a drawn picture, H×W×3 in 8 bits: slopes, fine texture, a disc and a flat part.

    It is computed in integers only, so that it is the same on every machine.
    """
    y, x = np.indices((height, width))
    slopes = [(x * (2 + channel) + y * (5 + seed - channel) + 37 * seed + 90 * channel) % 512 for channel in range(3)]
    picture = abs(np.stack(slopes, 2) - 256) // 2 + 40 + ((x * x + 7 * y + seed * x * y) % 17 * 4)[..., None]
    disc = (2 * x - width) ** 2 + (2 * y - height) ** 2 < min(height, width) ** 2 // 2
    picture[disc] = 255 - picture[disc]
    picture[: height // 4] = (90 + 11 * seed, 150, 200 - 11 * seed)
    return picture.astype(np.uint8)


def photos(*seeds: int, side: int = 48) -> torch.Tensor:
    """Return a batch of drawn pictures, one for each seed, B×3×S×S in [0, 1]."""
    return torch.from_numpy(np.stack([photo(side, side, seed) for seed in seeds])).permute(0, 3, 1, 2) / 255


def run_script(name: str, *arguments: str | Path) -> None:
    """Run a script in this process, where torch is imported already.

    Args:
        name: file name of the script.
        arguments: its command line.

    Raises:
        RuntimeError: the script failed; the message has its output.
    """
    script, said = ROOT / "scripts" / name, StringIO()
    with (
        patch.object(sys, "argv", [str(script), *map(str, arguments)]),
        redirect_stdout(said),
        redirect_stderr(said),
    ):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as stopped:
            if stopped.code:
                raise RuntimeError(f"scripts/{name}: exit status {stopped.code}: {said.getvalue()}") from None


def block_means(picture: np.ndarray) -> list[float]:
    """Return the means of 8×8 blocks, for each channel, rounded to a tenth of a grey level.

    Args:
        picture: H×W×C in grey levels. Blocks at the right and lower edge may be smaller.
    """
    rows, columns = (range(0, side, BLOCK) for side in picture.shape[:2])
    blocks = [picture[y : y + BLOCK, x : x + BLOCK] for y in rows for x in columns]
    return [round(float(mean), 1) for block in blocks for mean in block.mean((0, 1), dtype=np.float64)]


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file.

    It tells whether a network was published anew, or the code paints another picture.
    """
    return hashlib.sha256(file.read_bytes()).hexdigest()


def pictures(file: Path) -> Entries:
    """Return what one network paints, in several styles.

    There are four pictures: with odd sides, with alpha, smaller than a block, and painted in tiles.
    """
    names = [str(style["name"]) for style in load_network(file).metadata["styles"]]
    # Without `backend`, an export that lies beside the network would be used.
    how = {"device": "cpu", "backend": "torch"}
    odd = Stylizer(file, names[0], **how)(photos(0, side=61)[0, :, :, :47])
    small = Stylizer(file, names[len(names) // 2], **how)(photo(5, 3, 2))
    tiles = Stylizer(file, names[-1], tile=272, **how)(Image.fromarray(photo(32, 288, 3)))
    painted = {"odd": odd.permute(1, 2, 0).numpy() * 255, "alpha": _with_alpha(file, names),
               "small": small, "tiles": np.asarray(tiles)}  # fmt: skip
    means = {f"picture {file.name} {case}": block_means(picture) for case, picture in painted.items()}
    return {f"picture {file.name} sha256": sha256(file), **means}


def _with_alpha(file: Path, names: list[str]) -> np.ndarray:
    """Return a grey photo with alpha as `infer.py` paints it.

    It is enlarged, painted with strength 0.8, and in two styles if the network has two.
    """
    style = f"{names[0]}=0.4,{names[-1]}=0.6" if len(names) > 1 else names[0]
    with TemporaryDirectory() as folder:
        given, output = Path(folder, "photo.png"), Path(folder, "painted.png")
        Image.merge("LA", [Image.fromarray(photo(40, 53, 1)[..., channel]) for channel in (0, 2)]).save(given)
        run_script("infer.py", given, "--output", output, "--network", file, "--style", style,
                   "--strength=0.8", "--size=60", "--device=cpu", "--backend=torch")  # fmt: skip
        return np.asarray(Image.open(output))


def losses(network: str) -> Entries:
    """Return the terms of the loss of a fixed batch under each balance, and the gradient's norm.

    Args:
        network: compact, or vgg16, which gets random weights.
    """
    found: Entries = {"loss compact sha256": sha256(COMPACT)} if network == "compact" else {}
    weights, features = "random" if network == "vgg16" else None, None
    for balance in ("relative", "fixed", "dynamic"):
        loss = PerceptualLoss(LossOptions(network, weights, balance=balance), features)
        features = loss.features  # made once for all balances
        target = loss.style_target([photos(5, side=80)], photos(6, 7, 8))
        output = photos(3, 4).requires_grad_()
        for _ in range(2):  # `dynamic` moves its weights after the first time
            terms = loss(output, photos(1, 2), target)
        (gradient,) = torch.autograd.grad(torch.stack(list(terms.values())).sum(), output)
        found |= {f"loss {network} {balance} {name}": [_digits(term.detach())] for name, term in terms.items()}
        found[f"gradient {network} {balance}"] = [_digits(gradient.norm())]
    return found


def _digits(value: torch.Tensor | str) -> float:
    return float(f"{float(value):.7g}")


def train(folder: Path, *options: str | Path) -> list[float]:
    """Train a tiny network with two styles up to step ten, in `folder`/run.

    The learning rate is low: at the usual one, Muon multiplies rounding differences by ten a step.

    Args:
        folder: an empty folder.
        options: further options of `train.py`.

    Returns:
        The loss of each step that was made.
    """
    (folder / "photos").mkdir()
    for seed in range(4):
        Image.fromarray(photo(64, 80, seed)).save(folder / "photos" / f"{seed}.png")
    for seed, name in enumerate(("first", "second"), start=5):
        Image.fromarray(photo(96, 120, seed)).save(folder / f"{name}.png")
    with chdir(folder):  # relative paths, so that the files written name no path of this machine
        run_script(
            "train.py", "fit", "--run=run", "--trainer.accelerator=cpu",
            "--trainer.precision=32-true", "--trainer.max_steps=10",
            "--trainer.log_every_n_steps=1", "--checkpoint.every_n_train_steps=5",
            "--previews.every_n_steps=0", "--data.photos=photos", "--data.crop=48",
            "--data.batch_size=2", "--data.num_workers=0", "--data.val_photos=0",
            "--model.styles.first=first.png", "--model.styles.second=second.png",
            "--model.style_size=96", "--model.width=4", "--model.residual_blocks=1",
            "--model.learning_rate=0.0005", "--model.warmup_steps=2", "--model.gap_photos=4",
            "--model.loss.network=compact", *options,
        )  # fmt: skip
    with (folder / "run" / "losses.csv").open(newline="") as file:
        return [_digits(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def training() -> Entries:
    """Return the ten losses of a training from nothing."""
    with TemporaryDirectory() as folder:
        return {
            "loss compact sha256": sha256(COMPACT),
            "training from nothing": train(Path(folder)),
        }


def resumed(checkpoint: Path) -> Entries:
    """Return the last five losses of a training that resumes from a checkpoint.

    Args:
        checkpoint: what an earlier version wrote after five steps.
    """
    # `gap_photos` differs from the checkpoint's run. If the balance were measured again instead of
    # taken from the checkpoint, the losses would differ.
    options = ("--ckpt_path", checkpoint, KEPT_RATE, "--model.gap_photos=2")
    with TemporaryDirectory() as folder:
        return {
            "loss compact sha256": sha256(COMPACT),
            f"training from {checkpoint.name}": train(Path(folder), *options),
        }


def onnx(file: Path) -> Entries:
    """Return what ONNX Runtime paints with an exported graph, in a mixture of its two styles."""
    painted = Stylizer(file, {"first": 0.3, "second": 0.7}, device="cpu")(photos(1)[0])
    return {f"onnx {file.name}": block_means(painted.permute(1, 2, 0).numpy() * 255)}


def everything() -> Iterator[Entries]:
    """Yield all entries, part by part."""
    yield from map(pictures, networks())
    yield from map(losses, ("compact", "vgg16"))
    yield training()
    yield from map(resumed, kept("*.ckpt"))
    yield from map(onnx, kept("*.onnx"))


def recorded() -> Entries:
    """Return the recorded entries; none if nothing was recorded."""
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def difference(name: str, before: list[float] | str | None, now: list[float] | str | None) -> str:
    """Return in words how an entry differs from the recorded one; empty if that is allowed.

    Args:
        name: of the entry; its first word decides what is allowed.
        before: the recorded entry; None if there is none.
        now: the entry as computed now; None if there is none.
    """
    if before is None or now is None:
        return "not recorded yet" if before is None else "recorded, but no longer there"
    if isinstance(before, str) or isinstance(now, str):
        return "" if before == now else "another file than was recorded"
    if len(before) != len(now):
        return f"{len(now)} numbers, recorded were {len(before)}"
    kind, apart = name.split()[0], np.abs(np.subtract(now, before))
    if kind in SHARES:
        apart = apart / np.abs(before)
    allowed, unit = (LEVELS[kind], " grey levels") if kind in LEVELS else (SHARES[kind], " of the recorded")
    return "" if apart.max() <= allowed else f"off by {apart.max():.2g}{unit}, allowed is {allowed:g}"


def differences(before: Entries, now: Entries) -> dict[str, str]:
    """Return how entries differ, for those that do, by name."""
    said = {name: difference(name, before.get(name), now.get(name)) for name in {**now, **before}}
    return {name: how for name, how in said.items() if how}


def record() -> None:
    """Record all entries and print what changed."""
    before, now = recorded(), {name: entry for part in everything() for name, entry in part.items()}
    changed = differences(before, now)
    for name, how in changed.items():
        print(f"{name}: {how}")
    lines = [f"{json.dumps(name)}: {json.dumps(now[name] if name in changed else before[name])}" for name in now]
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(changed)} entries changed, of {len(now)}")


def keep(name: str) -> None:
    """Add a checkpoint, a network and its exported graph of this version to `golden/`.

    Exits with an error if a file of that name exists: files of earlier versions stay.
    """
    checkpoint, network, graph = (KEPT / f"{name}.{suffix}" for suffix in ("ckpt", "safetensors", "onnx"))
    if there := [file.name for file in (checkpoint, network, graph) if file.exists()]:
        sys.exit(f"--keep {name}: {there[0]} is there, and what earlier versions wrote stays: give another name")
    with TemporaryDirectory() as folder:
        train(Path(folder), KEPT_RATE)
        shutil.copy(Path(folder, "run", "checkpoints", "step-000005.ckpt"), checkpoint)
        shutil.copy(Path(folder, "run", "run.safetensors"), network)
    run_script("export_onnx.py", network, "--output", graph)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Records the numbers of tests/test_golden.py anew.")
    parser.add_argument("--keep", metavar="NAME", help="first add NAME.ckpt, .safetensors and .onnx of this version")
    if name := parser.parse_args().keep:
        keep(name)
    record()
