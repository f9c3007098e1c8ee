"""The command `impasto benchmark`: times training, losses, the reference or painting."""

from collections.abc import Iterable
from typing import Literal

from impasto.commands.idle import Need, only_with
from impasto.data.files import is_hub_id, located
from impasto.spelling import not_there

_MADE = only_with("what", "training", "loss", "optimizers")  # of networks with random weights
# What options need in order to act.
NEEDS = {
    "size": only_with("what", "training", "loss", "reference", "optimizers"),
    "batch": _MADE,
    "width": _MADE,
    "rounds": only_with("what", "training", "loss", "reference", "inference", "video"),
    "network": only_with("what", "inference", "video"),
    "files": only_with("what", "inference", "video"),
    "photos": only_with("what", "training", "optimizers"),
    "num_workers": Need(
        "acts only with --what training and --photos; give both, or leave it out",
        lambda given: given["what"] == "training" and given["photos"],
    ),
} | {
    option: only_with("what", what)
    for what, options in {
        "training": ("quick", "compile", "batches"),
        "optimizers": ("painting", "steps"),
    }.items()
    for option in options
}


def benchmark(
    device: Literal["cpu", "cuda"] = "cpu",
    size: int = 256,
    batch: int = 2,
    width: int = 32,
    rounds: int = 7,
    threads: int = 0,
    what: Literal["training", "loss", "reference", "inference", "optimizers", "video"] = "training",
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
    """Time training, a loss network, the reference or painting; tables go to standard output.

    `--what training` compares a training step of the usual recipe, written plainly, with ours as
    each measure is added. `loss` compares the loss networks. `reference` compares an iteration of
    L-BFGS in a plain implementation and in ours. `inference` paints photos of 256, 512 and 1024
    pixels in torch, compiled, and in ONNX Runtime, and frames of 640×480 pixels and more as for a
    camera. `optimizers` finds how many photos Muon needs
    to reach Adam's loss, in short trainings with the compact loss network. `video` paints the
    frames of a clip, 640×360, each by itself and steadily.

    The candidates take turns in every round, so that other load on the machine affects all alike.
    The median counts. Weights may be random, since they do not change the time.

    Args:
        device: cpu or cuda.
        size: side of the photos in pixels.
        batch: photos at once.
        width: width of the network that is trained.
        rounds: how often each is measured, after a warm-up.
        threads: threads of the CPU; 0: as many as torch takes.
        what: training; loss; reference (one photo; batch and width have no effect); inference or
            video (size, batch and width have no effect); or optimizers (rounds have no effect).
        quick: for training: a first look, at most three rounds at 128 pixels; torch.compile only
            if asked for.
        compile: for training: add rows with torch.compile, which takes minutes to begin; if not
            given, on a GPU only.
        batches: for training: batch sizes of a second table, in bfloat16; if not given, 8, 16, 32
            and 64 on a GPU, none on a CPU.
        photos: for training: a folder whose reading speed is measured too; for optimizers: the
            photos to train on.
        num_workers: for training: processes that read the photos.
        network: for inference and video: a published name or a file.
        files: for inference and video: exports of that network.
        painting: for optimizers: the picture of the style.
        steps: for optimizers: length of Adam's training.

    Raises:
        ValueError: a device, network, file or folder is missing, or a number is too small.
    """
    if (
        size < 16
        or min(batch, width, rounds, steps, *(batches or [1])) < 1
        or min(threads, num_workers) < 0
    ):
        given = (
            f"size {size}, batch {batch}, width {width}, rounds {rounds}, steps {steps}, "
            f"threads {threads}"
        )
        raise ValueError(
            f"{given}, batches {batches}: size from 16, threads and num_workers from 0, "
            "the others from 1"
        )
    if what == "optimizers" and not photos:
        raise ValueError("--what optimizers trains networks: give a folder with --photos")
    if photos and not is_hub_id(photos) and not located(photos).exists():
        raise ValueError(not_there(photos, "folder"))  # now, not after the timing
    # Imported here because torch takes seconds to import. Mistakes above are answered without it.
    import torch

    from impasto.benchmark.inference import inference_table
    from impasto.benchmark.loss_networks import Setting, loss_network_table
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
        # Imported here because Lightning takes seconds to import.
        from impasto.benchmark.optimizers import Training, photos_needed_table

        training = Training(str(photos), str(located(painting)), size, batch, width, device)
        _print(photos_needed_table(training, steps))
    elif what == "inference":
        _print(inference_table(network, files, device, rounds))
        if device == "cpu":
            # Imported here because it needs ONNX Runtime.
            from impasto.benchmark.realtime import frames_table

            _print(frames_table(network, rounds))
    elif what == "video":
        # Imported here because it needs OpenCV.
        from impasto.benchmark.video import video_table

        _print(video_table(network, files, device, rounds))
    else:
        for bf16 in (False, True):
            _print(loss_network_table(Setting(device, size, batch, width, bf16), rounds))
    return 0


def _print(lines: Iterable[str]) -> None:
    """Print each line at once, also into a pipe, since the next may take minutes."""
    for line in lines:
        print(line, flush=True)
