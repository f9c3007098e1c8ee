"""The command `impasto optimize`: paints a photo or a clip by optimizing pixels under the loss."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from impasto.choices import VIDEO_SUFFIXES, ClipOptions, LossOptions, OptimizeOptions
from impasto.commands.arguments import read_options
from impasto.commands.idle import only_with


def optimize(arguments: list[str]) -> int:
    """Run the command with the arguments of a command line; return its exit status.

    Returns:
        0: done; 130: interrupted, the picture so far was saved.

    Raises:
        ValueError: a mistake of the user.
    """
    given, options = read_options(
        "optimize",
        "Paint one photo by optimization (Gatys et al. 2016), or a clip (Ruder et al. 2016), under "
        "the loss networks are trained with.",
        optimize_photo,
        arguments,
        ("content", "styles"),
        "impasto optimize photo.jpg painting.jpg --loss.network compact",
        {"photos": only_with("loss.balance", "relative", "dynamic")},
    )
    return optimize_photo(**given, options=options)


def optimize_photo(
    content: str,
    styles: list[str],
    output: str | None = None,
    size: int = 512,
    style_size: int = 512,
    masks: list[str] = [],  # noqa: B006  only read
    colors: Literal["style", "luminance", "histogram"] = "style",
    photos: str | None = None,
    snapshots: list[int] = [],  # noqa: B006  only read
    device: str = "auto",
    overwrite: bool = False,
    loss: LossOptions = LossOptions(),  # noqa: B008  only read
    options: OptimizeOptions = OptimizeOptions(),  # noqa: B008  only read
    clip: ClipOptions = ClipOptions(),  # noqa: B008  only read
) -> int:
    """Optimize one picture or clip; known mistakes are refused before the first step.

    Args:
        content: the photo, or a clip: a video, a folder of frames, or an animation if --output
            names a clip; the first file that is given without a name.
        styles: paintings whose Gram matrices are mixed, with weights if they should differ:
            a.jpg=0.7 b.jpg=0.3; the other pictures that are given without a name.
        output: the picture to write; if not given, optimized/PHOTO_STYLE.png, and .mp4 for a
            clip. The terms of every step of a photo go beside it (.csv).
        size: longer side of the result in pixels.
        style_size: longer side of the paintings in pixels, the scale of the strokes; 0 keeps
            their size.
        masks: a picture for each painting, white where the painting applies; stretched to the
            photo if sizes differ.
        colors: style: the colours of the paintings; luminance: those of the photo, of which only
            the brightness is painted; histogram: the paintings first get the mean and covariance
            of the photo's colours (Gatys et al. 2016).
        photos: a folder of photos on which the balance is measured; if not given, the quarters of
            the photo.
        snapshots: step numbers after which the picture is kept, such as 1 100 200, as files and
            as one contact sheet.
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps.
        overwrite: replace an earlier result.
        loss: what is measured, and how the terms are weighed.
        options: how the picture is optimized.
        clip: how the frames of a clip are optimized.
    """
    if not styles:
        raise ValueError("no painting given: impasto optimize photo.jpg painting.jpg")
    paths, weights = _weighted(styles)
    if max(snapshots, default=0) > options.steps:
        raise ValueError(f"snapshots {max(snapshots)}: the last step is {options.steps}")
    bare = [path for path in paths if path.name == str(path) and not path.suffix]
    if names := [path.name for path in bare if not path.exists()]:
        raise ValueError(
            f"styles {names[0]}: no such picture; a style that a network knows is painted with "
            f"`impasto infer {content} --style {names[0]}`"
        )
    stem = f"optimized/{Path(content).stem}_{'+'.join(file.stem for file in paths)}"
    if _is_clip(Path(content), output):
        if snapshots:
            raise ValueError(f"snapshots {snapshots}: are of a photo; {content} is a clip")
        return _optimize_clip(
            Path(content),
            paths,
            weights,
            Path(output or f"{stem}.mp4"),
            size,
            style_size,
            masks,
            colors,
            photos,
            device,
            overwrite,
            loss,
            options,
            clip,
        )
    # Imported here because torch takes seconds to import. Mistakes above are answered without it.
    from impasto.commands.optimizing import Optimization, brightness, gap_photos, read_painting
    from impasto.images import Picture, keep_colors, match_colors, read_image, resize
    from impasto.inference.devices import find_device, memory_explained
    from impasto.perceptual.loss import PerceptualLoss
    from impasto.reference import optimize_image

    path = Path(output or f"{stem}.png")
    job = Optimization(path, options.steps, tuple(snapshots), overwrite)
    torch_device = find_device(device)
    photo = read_image(content).resized(size)
    pixels = photo.pixels
    paintings = [read_painting(file, style_size).to(torch_device) for file in paths]
    if colors == "histogram":
        paintings = [match_colors(painting, pixels.to(torch_device)) for painting in paintings]
    regions = brightness(masks, pixels)
    job.check([Path(content), *paths, *map(Path, masks)], pixels.shape[:-3:-1])
    known = gap_photos(photos).to(torch_device) if photos else None
    perceptual = PerceptualLoss(loss).to(torch_device)
    too_large = (
        f"size {size}: does not fit in the memory of {torch_device}; give --checkpointing, "
        "or a smaller --size"
    )
    with job.progress:
        try:
            with memory_explained(too_large):
                optimize_image(
                    pixels.to(torch_device),
                    paintings,
                    perceptual,
                    options,
                    mixture=weights,
                    photos=known,
                    masks=None if regions is None else regions.to(torch_device),
                    on_step=job.on_step,
                )
        except (KeyboardInterrupt, ValueError) as stop:
            if not job.rows:
                raise
            job.stopped = stop
    reached = max(job.latest.shape[-2:])  # below `size` if the run was stopped at a coarse size
    painted = (
        keep_colors(job.latest, resize(pixels, reached)) if colors == "luminance" else job.latest
    )
    # Alpha is resized twice, to `size` and here, as the pixels were. At once, its sides could be
    # rounded to other numbers.
    alpha = None if photo.alpha is None else resize(photo.alpha, reached)
    job.finish(Picture(painted, alpha, photo.icc_profile))
    if isinstance(job.stopped, ValueError):
        raise job.stopped
    return 130 if job.stopped else 0


def _is_clip(content: Path, output: str | None) -> bool:
    """Whether the content is to be painted as a clip."""
    animation = content.suffix.lower() in (".gif", ".webp", ".apng")
    wanted = Path(output or "").suffix.lower() in (".gif", ".mp4", ".mov", ".mkv")
    return content.is_dir() or content.suffix.lower() in VIDEO_SUFFIXES or (animation and wanted)


def _optimize_clip(
    content: Path,
    paths: list[Path],
    weights: list[float],
    output: Path,
    size: int,
    style_size: int,
    masks: list[str],
    colors: str,
    photos: str | None,
    device: str,
    overwrite: bool,
    loss: LossOptions,
    options: OptimizeOptions,
    clip: ClipOptions,
) -> int:
    """Optimize a clip; see `optimize_photo`."""
    from impasto.commands.jobs import spare_inputs
    from impasto.commands.optimizing import brightness, gap_photos, read_painting
    from impasto.commands.optimizing_clip import ClipJob
    from impasto.images import match_colors
    from impasto.images.arrays import from_array
    from impasto.inference.devices import find_device, memory_explained
    from impasto.perceptual.loss import PerceptualLoss
    from impasto.reference import Reference
    from impasto.reference_video import optimize_clip
    from impasto.video.clips import check_output
    from impasto.video.reading import open_clip

    torch_device = find_device(device)
    source = open_clip(content, clip.start, clip.duration, clip.fps)
    check_output(output, content, overwrite)
    spare_inputs([output], [*paths, *map(Path, masks)])
    paintings = [read_painting(file, style_size).to(torch_device) for file in paths]
    job = ClipJob(source, output, size, clip.passes, colors == "luminance", overwrite)
    first = from_array(job.frames[0]).to(torch_device)
    if colors == "histogram":
        paintings = [match_colors(painting, first) for painting in paintings]
    regions = brightness(masks, first)
    known = gap_photos(photos) if photos else None
    settings = {**Reference(options, loss).settings(), "clip": asdict(clip), "mixture": weights}
    job.begin(settings, [*paintings, *(extra for extra in (regions, known) if extra is not None)])
    perceptual = PerceptualLoss(loss).to(torch_device)
    too_large = (
        f"size {size}: does not fit in the memory of {torch_device}; give --checkpointing, "
        "or a smaller --size"
    )
    try:
        with job.progress, memory_explained(too_large):
            paintings_of_frames = optimize_clip(
                job.frames,
                paintings,
                perceptual,
                options,
                clip,
                mixture=weights,
                photos=None if known is None else known.to(torch_device),
                masks=None if regions is None else regions.to(torch_device),
                painted=job.painted,
                on_step=job.on_step,
            )
    except KeyboardInterrupt:
        return job.interrupted()
    except ValueError:
        job.failed()
        raise
    return job.finish(paintings_of_frames)


def _weighted(styles: list[str]) -> tuple[list[Path], list[float]]:
    """Split `a.jpg=0.7` into a file and its weight, for each of the styles.

    The weight is 1 if none is given, also for an existing file with a = in its name.

    Raises:
        ValueError: a weight is no number, or is given to a single painting.
    """
    paths, weights = [], []
    for text in styles:
        name, equals, weight = text.rpartition("=")
        if not equals or Path(text).is_file():
            name, weight = text, "1"
        try:
            weights.append(float(weight))
        except ValueError:
            raise ValueError(
                f"styles {text}: {weight!r} is no weight; write picture.jpg=0.7"
            ) from None
        paths.append(Path(name))
    if len(styles) == 1 and weights[0] not in (0, 1):
        raise ValueError(
            f"styles {styles[0]}: one painting has no share; --loss.style_strength weighs the style"
        )
    return paths, weights
