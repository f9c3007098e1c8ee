"""The command `impasto benchmark`: what training, a loss network, the reference or painting costs, side by side."""

from collections.abc import Iterable
from typing import Literal

from impasto.data.files import located


def benchmark(
    device: Literal["cpu", "cuda"] = "cpu",
    size: int = 256,
    batch: int = 2,
    width: int = 32,
    rounds: int = 7,
    threads: int = 0,
    what: Literal["training", "loss", "reference", "inference", "optimizers"] = "training",
    quick: bool = False,
    compile: bool | None = None,
    batches: list[int] | None = None,
    photos: str | None = None,
    num_workers: int = 2,
    network: str = "gallery",
    files: list[str] = [],  # noqa: B006  only read
    painting: str = "configs/paintings/currents.jpg",
    steps: int = 700,
) -> int:
    """Times training: the usual recipe, written plainly, and ours as each measure is added to it.

    Or each loss network; or the reference, an iteration of L-BFGS, against a plain implementation of the usual recipe;
    or how fast a network paints photos of 256, 512 and 1024 pixels: in torch, compiled, and in ONNX Runtime.
    Or how many photos Muon needs to come to Adam's loss, in short trainings with the compact loss network.

    What is compared takes turns in every round, so that what else the machine does meets all alike; the median counts.
    The weights are random: they change no time.

    Args:
        device: cpu or cuda.
        size: side of the photos in pixels.
        batch: photos at once.
        width: of the network that is trained.
        rounds: how often each is measured, after one round to warm up.
        threads: of the CPU; 0: as many as torch takes.
        what: training; loss; reference (which takes one photo, and no notice of batch and width); inference (of
            these, it heeds device, rounds and threads); or optimizers (of device, size, batch, width and threads).
        quick: of training, three rounds at 128 pixels at most, nothing compiled: a first look.
        compile: of training, rows of torch.compile, which takes minutes to begin; by default on a GPU only.
        batches: of training, a second table, in bfloat16 at these batches; by default 8, 16, 32, 64 on a GPU.
        photos: of training, a folder: how many photos a second are read from it is said too; of optimizers, to train
            on.
        num_workers: processes that read them.
        network: for inference, a published name or file.
        files: for inference, exports of that network.
        painting: for optimizers, the style.
        steps: for optimizers, of Adam's training.

    Raises:
        ValueError: no such device here, no such network, file or folder, or a number that is too small.
    """
    if (
        size < 16
        or min(batch, width, rounds, steps, *(batches or [1])) < 1
        or min(threads, num_workers) < 0
    ):
        given = f"size {size}, batch {batch}, width {width}, rounds {rounds}, steps {steps}, threads {threads}"
        raise ValueError(
            f"{given}, batches {batches}: size from 16, threads and num_workers from 0, the others from 1"
        )
    if what == "optimizers" and not photos:
        raise ValueError("--what optimizers trains networks: give a folder with --photos")
    # They import torch, which takes seconds: mistakes in the above need not wait for it.
    import torch

    from impasto.benchmark.inference import inference_table
    from impasto.benchmark.loss_networks import Setting, table
    from impasto.benchmark.reference import reference_table
    from impasto.benchmark.training import Step, batches_of, ladder, loader_line, training_table

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda: no GPU here that torch can use; take cpu")
    torch.set_num_threads(threads or torch.get_num_threads())
    if what == "training":
        size, rounds = (min(size, 128), min(rounds, 3)) if quick else (size, rounds)
        compiled = device == "cuda" and not quick if compile is None else compile
        batches = ([8, 16, 32, 64] if device == "cuda" else []) if batches is None else batches
        plain = Step(device, size, batch, width)
        _print(training_table(ladder(plain, compiled), rounds))
        if photos:
            print(loader_line(photos, plain, num_workers), flush=True)
        for rows in [batches_of(plain, batches, compiled)] if batches else []:
            _print(training_table(rows, rounds))
    elif what == "reference":
        _print(reference_table(device, size, rounds))
    elif what == "optimizers":
        from impasto.benchmark.optimizers import (
            Training,
            photos_needed_table,
        )  # imports Lightning: seconds

        training = Training(str(photos), str(located(painting)), size, batch, width, device)
        _print(photos_needed_table(training, steps))
    elif what == "inference":
        _print(inference_table(network, files, device, rounds))
    else:
        for bf16 in (False, True):
            _print(table(Setting(device, size, batch, width, bf16), rounds))
    return 0


def _print(lines: Iterable[str]) -> None:
    """Each line as it comes, also into a pipe: the next may take minutes."""
    for line in lines:
        print(line, flush=True)
