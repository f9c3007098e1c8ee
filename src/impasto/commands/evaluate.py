"""The command `impasto evaluate`: a report that compares networks with the reference.

It can explore options of the reference instead, or compare clips.
"""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from impasto.choices import ClipOptions, LossOptions, OptimizeOptions
from impasto.commands.arguments import read_options
from impasto.commands.evaluate_clips import evaluate_clips
from impasto.commands.idle import Need, only_with, only_without
from impasto.commands.jobs import check_output_folder, refuse_same_names, spare_inputs
from impasto.data.files import find_images, located
from impasto.spelling import did_you_mean

_LOG = logging.getLogger("impasto")
# The marks of a comparison say how many steps it takes. A grid shows the reference alone, after
# its last step.
_NEEDS = {"steps": only_with("axes")} | dict.fromkeys(
    ("marks", "networks", "presets", "costs"), only_without("axes")
)
# Without the reference, clips are painted by networks alone.
_CLIP_NEEDS = dict.fromkeys(
    ("reference_size", "loss", *(option.name for option in fields(OptimizeOptions))),
    only_with("reference"),
) | {"steps": Need("--reference gives the number of iterations; leave it out", lambda _: False)}


def evaluate(arguments: list[str]) -> int:
    """Run the command with the arguments of a command line; return its exit status.

    Returns:
        0: done; 130: interrupted, and the same command continues.

    Raises:
        ValueError: a mistake of the user.
    """
    about = (
        "Compare networks with the reference, or explore its options; writes a report with "
        "pictures."
    )
    example = (
        "impasto evaluate photo.jpg --paintings.great_wave painting.jpg --balance_photos photos/ "
        "--output report"
    )
    job: Callable[..., int] = evaluate_pictures
    places, needs = ["photos"], _NEEDS
    if _of_clips(arguments):
        job, places, needs = evaluate_clips, [], _CLIP_NEEDS
        about = "Compare how steadily networks paint clips; writes a report with strips and clips."
        example = "impasto evaluate --clips.walk walk.mp4 --networks gallery --style great_wave"
    else:
        example += (
            ". For clips: impasto evaluate --config configs/evaluate/video.yaml, which --help "
            "explains too"
        )
    given, options = read_options("evaluate", about, job, arguments, places, example, needs)
    try:
        return job(**given, options=options)
    except KeyboardInterrupt:
        print(
            f"interrupted; the same command goes on from what is finished in {given['output']}",
            file=sys.stderr,
        )
        return 130


def _of_clips(arguments: list[str]) -> bool:
    """Whether a command line, or a config file in it, names clips."""
    if any(re.match(r"--clips\b", word) for word in arguments):
        return True
    for before, word in pairwise(["", *arguments]):
        option, _, value = word.rpartition("=")
        if option == "--config" or before == "--config":
            # A file that cannot be read is refused later, with the reason.
            with suppress(OSError, yaml.YAMLError, UnicodeDecodeError):
                if "clips" in (yaml.safe_load(Path(value).read_text()) or {}):
                    return True
    return False


def evaluate_pictures(
    photos: list[str],
    paintings: dict[str, str],
    output: str,
    balance_photos: str,
    size: int = 256,
    style_size: int = 512,
    networks: list[str] | None = None,
    marks: list[int] = [100, 300, 500],  # noqa: B006  only read
    presets: list[str] = [],  # noqa: B006  only read
    axes: dict[str, list[Any]] = {},  # noqa: B006  only read
    costs: bool = True,
    lpips: bool = False,
    device: str = "auto",
    loss: LossOptions = LossOptions(),  # noqa: B008  only read
    options: OptimizeOptions = OptimizeOptions(),  # noqa: B008  only read
) -> int:
    """Make the pictures that are missing, then write report.md; finished pictures are kept.

    Args:
        photos: picture files, or `package:skimage/data/coffee.png` for one in an installed
            package; the report names them after their files.
        paintings: picture files, by the name under which networks know the style.
        output: the folder of the report.
        balance_photos: a folder of other photos, on which the balance of the loss is measured.
        size: longer side of the results in pixels.
        style_size: longer side of the paintings in pixels.
        networks: published names or files; if not given, every published network. Networks that
            know no painting are left out.
        marks: numbers of iterations after which the reference is shown. It runs to the last of
            them, whatever `steps` says.
        presets: more settings of the optimization, files such as configs/optimize/duggal.yaml.
            Each is shown after its last step.
        axes: instead of a comparison, a grid over one or two axes. An axis is photo, painting, an
            option such as noise_ratio, or an option of the loss such as loss.style_strength, with
            a list of values; [] for all photos or paintings.
        costs: also measure memory and runtime (of presets: all steps at full size).
        lpips: also measure LPIPS, which takes VGG16's weights.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.
        loss: loss of the reference, by which all results are judged.
        options: options of the reference.
    """
    if not photos or not paintings or not marks or min(marks) < 1:
        raise ValueError("photos, paintings and marks: at least one of each, marks from 1")
    if options.coarse and not axes:
        raise ValueError(
            f"coarse {options.coarse}: the marks of a comparison count steps at full size; "
            "leave it out"
        )
    for what, files in (("photos", photos), ("networks", networks or []), ("presets", presets)):
        refuse_same_names(what, files)
    # Imported here because torch takes seconds to import. Mistakes above are answered without it.
    from impasto.commands.optimizing import gap_photos
    from impasto.evaluation.cells import Judge
    from impasto.evaluation.grid import Grid, explore
    from impasto.evaluation.report import Compared, compare
    from impasto.images import read_image
    from impasto.images.paintings import check_style_names, thumbnail
    from impasto.inference.devices import find_device
    from impasto.networks import load_network, published_networks
    from impasto.reference import Reference

    check_style_names(paintings)
    torch_device = find_device(device)
    named = {
        Path(file).stem: read_image(located(file)).resized(size).pixels.to(torch_device)
        for file in photos
    }
    given = {name: read_image(file) for name, file in paintings.items()}
    painted = {
        name: picture.resized(style_size).pixels.to(torch_device) for name, picture in given.items()
    }
    folder = Path(output)
    check_output_folder(folder)
    parts = ("report.md", "numbers.csv", "grid.jpg", "curves.png")
    outputs = [*parts, *(f"{name}{part}" for name in paintings for part in (".jpg", "_curves.png"))]
    inputs = [*map(located, photos), *map(Path, paintings.values()), *find_images(balance_photos)]
    spare_inputs([folder / name for name in outputs], inputs)
    judge = Judge(loss, gap_photos(balance_photos).to(torch_device), painted, lpips)
    if axes:
        every: dict[str, list[Any]] = {"photo": list(named), "painting": list(painted)}
        filled = {name: values or every.get(name, []) for name, values in axes.items()}
        grid = Grid(filled, named, list(painted), Reference(options, loss))
        with _progress(len(grid.points())) as (advance, judge.tell):
            path = explore(folder, judge, grid, advance)
    else:
        offered = published_networks() if networks is None else networks
        loaded = {name: load_network(name) for name in offered}
        known = [
            name
            for name, network in loaded.items()
            if {*network.styles} & {*painted} or (network.any_picture and networks is not None)
        ]
        unknown = [
            name for name in painted if not any(name in loaded[file].styles for file in known)
        ]
        if unknown and not any(loaded[file].any_picture for file in known):
            styles = sorted({style for network in loaded.values() for style in network.styles})
            _LOG.warning(
                "no network knows %s, which is compared with the reference alone: %sknown are %s",
                ", ".join(unknown), did_you_mean(unknown[0], styles), ", ".join(styles),
            )  # fmt: skip
        reference = Reference(replace(options, steps=max(marks)), loss)
        others = {Path(file).stem: Reference(*_preset(file, loss)) for file in presets}
        notes = _unlike(
            known, {name: thumbnail(picture.pixels) for name, picture in given.items()}, paintings
        )
        for note in notes:
            _LOG.warning("%s", note)
        compared = Compared(named, list(painted), known, reference, sorted(marks), others, notes)
        with _progress(compared.pictures()) as (advance, judge.tell):
            path = compare(folder, judge, compared, costs, advance)
    print(f"report: {path}")
    return 0


def _unlike(networks: list[str], thumbnails: dict[str, str], files: dict[str, str]) -> list[str]:
    """Return a note for each network that learned another picture under a painting's name.

    The network's numbers for that painting say little.

    Args:
        networks: published names or files.
        thumbnails: of the paintings, by name.
        files: of the paintings, by name.
    """
    from impasto.images.paintings import other_picture
    from impasto.networks import load_network

    return [
        f"{network} learned another picture as {name} than {Path(files[name]).name}, "
        "by which it is judged here"
        for network in networks
        for style in load_network(network).metadata.get("styles", [])
        if (name := style["name"]) in thumbnails
        and other_picture(style.get("thumbnail"), thumbnails[name])
    ]


def _preset(file: str, loss: LossOptions) -> tuple[OptimizeOptions, LossOptions]:
    """Return the options of a config file, with the loss network and weights of `loss`."""
    given, options = read_options("evaluate --presets", "", _only_loss, ["--config", file])
    return options, replace(given["loss"], network=loss.network, weights=loss.weights)


def _only_loss(
    loss: LossOptions = LossOptions(),  # noqa: B008  only read
    clip: ClipOptions = ClipOptions(),  # noqa: B008  only read
) -> int:
    """Stand in for a job, so that `read_options` reads the loss of a preset.

    Args:
        loss: what is measured.
        clip: not for photos.
    """
    return 0


@contextmanager
def _progress(total: int) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """Show a progress bar over `total` pictures.

    Yields two functions. The first takes the name of the picture that begins, the second the step
    of its optimization.
    """
    from impasto.commands.progress import bar

    with bar() as progress:
        task = progress.add_task("", total=total)
        what = ""

        def advance(said: str) -> None:
            nonlocal what
            progress.update(task, description=said, advance=1 if what else 0)
            what = said

        yield advance, lambda step: progress.update(task, description=f"{what}, step {step}")
