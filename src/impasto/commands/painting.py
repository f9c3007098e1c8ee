"""What `infer` does after its command line is checked: it reads, stylizes and writes the photos."""

import io
import re
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import Progress

from impasto.commands.jobs import PIPE, Job, check_new
from impasto.commands.progress import bar
from impasto.images import scaled, writable, write_image
from impasto.images.large import Scan, write_rows
from impasto.inference import Stylizer
from impasto.inference.adaptive import ALLOWED
from impasto.inference.backends import Painter
from impasto.inference.styles import network_of
from impasto.networks import published_networks, published_styles
from impasto.spelling import printable


def default_network(style: str | None) -> str:
    """Return the published network to use if none is given.

    It is the one that knows the style, which is printed. Without a style it is the only published
    network, or starry_night.

    Raises:
        ValueError: no network knows the style, or there is no default.
    """
    names = published_networks()
    if style is not None:
        name = network_of(style)
        print(f"network: {name}; --network names another", file=sys.stderr)
        return name
    if len(names) == 1 or "starry_night" in names:
        name = names[0] if len(names) == 1 else "starry_night"
        print(f"network: {name}; --network or --style names another", file=sys.stderr)
        return name
    known = ", ".join(names) or "none yet"
    raise ValueError(
        f"--network is missing: name a .safetensors file or a published network ({known})"
    )


def networks_table() -> str:
    """Return a line for each published network: its name and its styles."""
    known = published_styles()
    width = max(map(len, known), default=0)
    return "\n".join(
        f"{name:{width}}  {', '.join(styles) or 'any picture'}" for name, styles in known.items()
    )


def styles_table(painter: Painter) -> str:
    """Return a line for each style: its name, title, artist and year."""
    if painter.any_picture:
        return "any picture: --style painting.jpg"
    known = {str(style["name"]): style for style in painter.metadata.get("styles", [])}
    keys = ("title", "artist", "year")
    rows = [
        [name, *(printable(known.get(name, {}).get(key) or "") for key in keys)]
        for name in painter.styles
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def label(stylizer: Stylizer, network: Path, *later: Stylizer) -> str:
    """Return what a result's file name adds to the photo's name.

    It names the network, the style and the options, so that different pictures of the same photo
    get different names.

    Args:
        stylizer: paints the photo, or the beginning of a clip.
        network: file of the network.
        later: stylizers with the later styles of a clip.
    """
    style = "-to-".join(_style_label(each) for each in (stylizer, *later))
    parts = [
        (True, network.stem),
        (len(stylizer.painter.styles) != 1, style),
        (stylizer.strength != 1, f"strength-{stylizer.strength:g}"),
        (stylizer.allowed is not None, _auto_label(stylizer.allowed)),
        (stylizer.keep_colors, "colors-kept"),
        (stylizer.size is not None, f"{stylizer.size}px"),
        (stylizer.stroke != "auto", f"stroke-{stylizer.stroke}".removesuffix(".0")),
        (stylizer.tile != "auto", f"tile-{stylizer.tile}"),
    ]
    return re.sub(r"[^\w.+-]+", "-", "_".join(part for differs, part in parts if differs))


def _style_label(stylizer: Stylizer) -> str:
    """Return the names of a stylizer's styles, with their shares in hundredths."""
    mixture = stylizer.mixture
    if stylizer.painter.any_picture:
        mixture = {Path(name).stem: weight for name, weight in mixture.items()}
    return "+".join(
        f"{name}-{100 * weight:.0f}" if len(mixture) > 1 else name
        for name, weight in mixture.items()
    )


def _auto_label(allowed: float | None) -> str:
    """Return the label of a strength that is chosen for each photo."""
    return "strength-auto" if allowed in (None, ALLOWED) else f"strength-auto-{allowed:g}"


def to_standard_output(stylize: Callable[[Path], int]) -> int:
    """Write the picture of one photo to standard output as PNG, and nothing else.

    Args:
        stylize: paints into the file that it is given, and returns an exit status.

    Returns:
        That exit status.
    """
    with TemporaryDirectory() as folder:
        picture = Path(folder, "stylized.png")
        with redirect_stdout(io.StringIO()):
            status = stylize(picture)
        if picture.exists():
            sys.stdout.buffer.write(picture.read_bytes())
            sys.stdout.buffer.flush()
    return status


def stylize_all(stylizer: Stylizer, jobs: list[Job], overwrite: bool, *, single: bool) -> int:
    """Stylize photos one after another.

    Args:
        stylizer: the network with its style and options.
        jobs: photos and the files of their results.
        overwrite: replace earlier results.
        single: whether one photo was asked for. Then its error is raised. With several, a photo
            that fails is skipped with a line.

    Returns:
        The exit status: 0: done, 1: some photos were skipped, 130: interrupted.
    """
    done = 0
    progress = bar()
    try:
        if not single:
            progress.start()
        for job in progress.track(jobs, description="stylizing") if not single else jobs:
            try:
                line = _stylize(stylizer, job, overwrite, progress)
                done += 1
            except (ValueError, OSError) as error:
                if single:
                    raise
                print(printable(f"skipped {_explain(job, error)}"), file=sys.stderr)
    except KeyboardInterrupt:
        progress.stop()  # otherwise the bar would cover the line
        print(f"interrupted: {done} of {len(jobs)} stylized", file=sys.stderr)
        return 130
    finally:
        progress.stop()
    print(printable(line) if single else f"{done} stylized, {len(jobs) - done} skipped")
    if len(jobs) == 2 and _looks_like_a_style(jobs[1].photo):
        photo, painting = (job.photo for job in jobs)
        hint = printable(f"impasto optimize {photo} {painting}")
        print(
            f"both are stylized as photos; `{hint}` paints the first like the second",
            file=sys.stderr,
        )
    return 0 if done == len(jobs) else 1


def _looks_like_a_style(photo: Path) -> bool:
    """Whether a photo was perhaps meant as the style, judged by its name.

    Such a name contains the word painting or style, or is that of a published style.
    """
    names = {name for styles in published_styles().values() for name in styles}
    return photo.stem.lower() in names or bool(
        {"painting", "style"} & {*re.split(r"[^a-z]+", photo.stem.lower())}
    )


def _stylize(stylizer: Stylizer, job: Job, overwrite: bool, progress: Progress) -> str:
    """Read, stylize and write one photo; return a line with its file, size and time."""
    started = time.perf_counter()
    check_new(job, overwrite)
    piped = job.photo == PIPE
    photo = (
        stylizer.read("standard input", sys.stdin.buffer.read())
        if piped
        else stylizer.read(job.photo)
    )
    if photo.note:
        print(printable(f"{job.photo}: {photo.note}"), file=sys.stderr)
    height, width = photo.shape if isinstance(photo, Scan) else photo.pixels.shape[-2:]
    if stylizer.size is not None:
        height, width = scaled((height, width), stylizer.size)
    # Refuses a size that the format cannot hold, before the photo is painted.
    writable(job.output, (width, height), overwrite)
    stylizer = stylizer.adapted(photo)
    if stylizer.choice is not None:
        print(printable(f"{job.photo}: {stylizer.choice}"), file=sys.stderr)
    if isinstance(photo, Scan):
        _write_in_tiles(stylizer, photo, job, overwrite, progress)
    else:
        stylized = stylizer.stylize(photo)
        write_image(job.output, stylized, overwrite=overwrite)
    return f"{job.output}  {width}×{height}, {time.perf_counter() - started:.1f} s"


def _write_in_tiles(
    stylizer: Stylizer, photo: Scan, job: Job, overwrite: bool, progress: Progress
) -> None:
    """Paint a large photo, tile after tile, into its file, with a progress bar of its own."""
    task = progress.add_task(f"painting {printable(job.photo.name)}", total=None)
    progress.start()
    try:
        rows = stylizer.rows(
            photo, lambda done, total: progress.update(task, completed=done, total=total)
        )
        size, profile = photo.image.size, photo.icc_profile
        write_rows(
            job.output,
            rows,
            size,
            alpha=photo.transparent,
            icc_profile=profile,
            overwrite=overwrite,
        )
    finally:
        progress.remove_task(task)


def _explain(job: Job, error: Exception) -> str:
    """Return an error as one line that starts with the photo."""
    message = " ".join(str(error).split())
    return message if message.startswith(str(job.photo)) else f"{job.photo}: {message}"
