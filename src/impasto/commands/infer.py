"""The command `impasto infer`: stylizes photos with a trained network."""

import os
import sys
from pathlib import Path

from impasto.choices import Backend, Stroke, Tiling
from impasto.commands.arguments import parsed
from impasto.commands.jobs import check_outputs, find, plan, without_paintings

_ALLOWED = {
    "strength": "a number from 0 to 1, auto, or auto:0.4 (the content that may be lost)",
    "size": "a whole number of pixels",
    "stroke": "auto, pixels or a number from 0.1 to 10",
    "tile": "auto, never or a whole number of pixels",
}
_PHOTOS = (
    "photo files, folders (searched with their sub-folders), quoted patterns such as "
    "'trip/**/*.jpg', or - for standard input"
)


def infer(arguments: list[str]) -> int:
    """Run the command with the arguments of a command line; return its exit status.

    Returns:
        0: done; 1: some photos were skipped; 130: interrupted.

    Raises:
        ValueError: a mistake of the user.
    """
    description = "Stylize photos with a trained network."
    options = {"photos": _PHOTOS}
    given = parsed("infer", description, stylize_photos, arguments, options, _ALLOWED, several=True)
    return stylize_photos(**given)


def stylize_photos(
    photos: list[str],
    network: str | None = None,
    style: str | None = None,
    strength: float | str = 1.0,
    keep_colors: bool = False,
    size: int | None = None,
    stroke: Stroke = "auto",
    tile: Tiling = "auto",
    output: str = "stylized",
    device: str = "auto",
    backend: Backend = "auto",
    overwrite: bool = False,
    skip_existing: bool = False,
    list_styles: bool = False,
    list_networks: bool = False,
) -> int:
    """Stylize photos; known mistakes are refused before the first one is painted.

    Args:
        photos: files, folders (searched with their sub-folders), patterns, or - for standard input
        network: a published name or a file; if not given, the published network that knows the
            style, or starry_night
        style: a style of the network, or a mixture: starry_night=0.7,great_wave=0.3
        strength: from 0 (the photo) to 1 (fully stylized); auto: chosen for each photo, so that at
            most 0.5 of its content is lost (1 would be an unrelated picture); auto:0.4: at most 0.4
        keep_colors: keep the colours of the photo and paint only its brightness
        size: longer side of the result in pixels; if not given, that of the photo
        stroke: auto: strokes are as large, relative to the picture, as at 1024 pixels; a number:
            that many times larger; pixels: they have a fixed number of pixels
        tile: auto: photos above 4 megapixels are painted in tiles, without seams, in memory that
            grows by 8 bytes a pixel only; never: photos are painted whole; a number: side of the
            tiles in pixels
        output: a folder; for one photo, also a file, or - for standard output, as PNG
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps
        backend: torch; onnx, for exported files; auto: whichever the file is for, and on a CPU
            the faster ONNX Runtime if the export of a network lies beside it
        overwrite: replace earlier results, never a photo
        skip_existing: keep earlier results and paint the rest, as after an interruption
        list_styles: print the styles of the network and stop
        list_networks: print the published networks with their styles and stop
    """
    if overwrite and skip_existing:
        raise ValueError(
            "--overwrite and --skip-existing: earlier results are replaced, or left; "
            "give one of the two"
        )
    listing = list_styles or list_networks
    place = Path(output).expanduser()
    found = [] if listing else find(photos, place)
    if output == "-" and not listing:
        _check_standard_output(sum(one.searched is None for one in found))
    # Imported here because torch takes seconds to import. Mistakes above are answered without it.
    from impasto.commands import painting
    from impasto.images import made_here
    from impasto.inference import Stylizer
    from impasto.inference.backends import open_painter
    from impasto.networks import find_network

    if list_networks:
        print(painting.networks_table())
        return 0
    path = find_network(network or painting.default_network(style))
    if list_styles:
        print(painting.styles_table(open_painter(path, backend, device)))
        return 0
    found = without_paintings(found, made_here)
    if output == "-":
        _check_standard_output(len(found))
    stylizer = Stylizer(
        path,
        style,
        strength=strength,
        keep_colors=keep_colors,
        size=size,
        stroke=stroke,
        device=device,
        backend=backend,
        tile=tile,
    )

    def stylize_into(output: Path) -> int:
        """Stylize the photos into a folder or file; return the exit status."""
        jobs = plan(found, output, painting.label(stylizer, path))
        left = [job for job in jobs if not (skip_existing and os.path.lexists(job.output))]
        if len(left) < len(jobs):
            print(f"{len(jobs) - len(left)} of {len(jobs)} exist already, skipped", file=sys.stderr)
        check_outputs(left, overwrite)
        return painting.stylize_all(stylizer, left, overwrite, single=len(jobs) == 1) if left else 0

    return painting.to_standard_output(stylize_into) if output == "-" else stylize_into(place)


def _check_standard_output(photos: int) -> None:
    """Raise ValueError if standard output cannot take the picture."""
    if photos > 1:
        raise ValueError(f"--output -: is one image, and there are {photos} photos; name a folder")
    if sys.stdout.isatty():
        raise ValueError(
            "--output -: is a terminal, which shows no image; send it on: "
            "`--output - > painted.png`"
        )
