"""What `impasto evaluate` does with clips."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from impasto.choices import LossOptions, OptimizeOptions
from impasto.commands.jobs import check_output_folder, refuse_same_names, spare_inputs
from impasto.data.files import located
from impasto.spelling import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from impasto.evaluation.clip_approaches import ClipApproach


def evaluate_clips(
    clips: dict[str, str],
    output: str,
    flow: dict[str, str] = {},  # noqa: B006  only read
    networks: list[str] = ["gallery"],  # noqa: B006  only read
    style: str | None = None,
    painting: str | None = None,
    frames: int = 40,
    size: int = 640,
    steady: float = 0.5,
    reference: int = 0,
    reference_size: int = 256,
    device: str = "auto",
    loss: LossOptions = LossOptions(),  # noqa: B008  only read
    options: OptimizeOptions = OptimizeOptions(),  # noqa: B008  only read
) -> int:
    """Paint clips frame by frame and steadily, then write report.md; what is finished is kept.

    Args:
        clips: videos, animations or folders of frames, by the name that the report gives them.
        output: the folder of the report.
        flow: folders of true flow, by the name of the clip. Each file leads from a frame to the
            next: .flo, or .npz with an array `flow`, H×W×2 in pixels. A picture of the same name,
            .png, is white where something is occluded. Other clips' flow is measured.
        networks: published names or files; each paints every frame by itself, and steadily.
        style: a style that all networks know; may be left out where they have only one.
        painting: picture of the style, for networks for any painting and for the reference.
        frames: how many frames of each clip are painted at most.
        size: longer side of the frames in pixels; larger ones are scaled down.
        steady: share of the painting before that steady painting keeps, above 0 and at most 1.
        reference: also optimize clips (Ruder et al. 2016), every frame by so many iterations,
            which takes minutes a frame; 0: do not.
        reference_size: longer side of the frames that are optimized.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.
        loss: loss of the reference.
        options: options of the reference; `steps` has no effect.
    """
    if not clips or not networks or frames < 2 or min(size, reference_size) < 16:
        raise ValueError(
            f"frames {frames}, size {size}, reference_size {reference_size}: frames from 2, sizes "
            "from 16, and at least one clip and one network"
        )
    if not 0 < steady <= 1 or reference < 0:
        raise ValueError(
            f"steady {steady:g}, reference {reference}: steady above 0 and at most 1, reference "
            "from 0"
        )
    if reference and painting is None:
        raise ValueError("painting is missing: the reference needs the picture of the style")
    _check_names(clips, flow)
    refuse_same_names("networks", networks)
    # Imported here because torch takes seconds to import. Mistakes above are answered without it.
    from impasto.commands.progress import bar
    from impasto.evaluation.clip_approaches import approach_of_reference
    from impasto.evaluation.clip_report import compare_clips, outputs
    from impasto.evaluation.footage import Footage
    from impasto.images import read_image
    from impasto.inference.devices import find_device
    from impasto.reference import Reference

    folder = Path(output)
    check_output_folder(folder)
    picture = None if painting is None else read_image(located(painting)).pixels
    approaches = _approaches_of_networks(networks, style, picture, steady, device)
    if reference and picture is not None:
        settings = Reference(replace(options, steps=reference), loss)
        approaches.append(
            approach_of_reference(settings, picture.to(find_device(device)), reference_size)
        )
    paths = {name: located(clip) for name, clip in clips.items()}
    files = outputs(folder, clips, approaches)
    if twice := [file.name for file in files if files.count(file) > 1]:
        raise ValueError(f"clips, networks: two results are named {twice[0]}; rename a clip")
    spare_inputs(files, [*paths.values(), *([] if painting is None else [located(painting)])])
    footage = {
        name: Footage(path, frames, size, located(flow[name]) if name in flow else None)
        for name, path in paths.items()
    }
    with bar() as progress:
        total = len(approaches) * sum(len(each.frames) for each in footage.values())
        task = progress.add_task("", total=total)
        path = compare_clips(
            folder,
            footage,
            approaches,
            lambda said, done: progress.update(task, description=said, completed=done),
        )
    print(f"report: {path}")
    return 0


def _check_names(clips: Collection[str], flow: Iterable[str]) -> None:
    """Refuse names of clips that no file can have, and flow of clips that are not there."""
    for name in clips:
        if not name.strip(" .") or not name.isprintable() or {"/", "\\"} & {*name}:
            raise ValueError(f"clips {name!r}: a name without / or \\, since files are named so")
    if unknown := [name for name in flow if name not in clips]:
        meant = did_you_mean(unknown[0], clips)
        raise ValueError(f"flow {unknown[0]}: {meant}no clip has that name ({', '.join(clips)})")


def _approaches_of_networks(
    networks: list[str], style: str | None, picture: "Tensor | None", steady: float, device: str
) -> "list[ClipApproach]":
    """Return the approaches of all networks.

    Args:
        networks: published names or files.
        style: for networks that have learned styles.
        picture: of the style, for networks for any painting, 1×3×H×W in [0, 1].
        steady: as in `approaches_of_network`.
        device: where they paint.
    """
    from impasto.evaluation.clip_approaches import approaches_of_network
    from impasto.inference.backends import open_painter

    approaches = []
    for file in networks:
        any_picture = open_painter(file, device=device).any_picture
        if any_picture and picture is None:
            raise ValueError(f"painting is missing: {file} needs the picture of the style")
        approaches += approaches_of_network(file, picture if any_picture else style, steady, device)
    return approaches
