"""The command `impasto infer`: photos, folders and patterns in, stylized photos out."""

import os
import sys
from pathlib import Path

from impasto.choices import Backend, Tiling
from impasto.commands.arguments import parsed
from impasto.commands.jobs import check_outputs, find, plan

_ALLOWED = {
    "strength": "a number from 0 to 1", "size": "a whole number of pixels",
    "tile": "auto, never or a whole number of pixels",
}  # fmt: skip
_PHOTOS = (
    "photo files, folders (searched with their sub-folders), quoted patterns such as 'trip/**/*.jpg', or - for "
    "standard input"
)


def infer(arguments: list[str]) -> int:
    """Runs the command; 0: done, 1: some photos were skipped, 130: interrupted. Mistakes are ValueErrors."""
    description = "Stylize photos with a trained network."
    given = parsed("infer", description, stylize_photos, arguments, {"photos": _PHOTOS}, _ALLOWED, several=True)
    return stylize_photos(**given)


def stylize_photos(
    photos: list[str],
    network: str | None = None,
    style: str | None = None,
    strength: float = 1.0,
    keep_colors: bool = False,
    size: int | None = None,
    tile: Tiling = "auto",
    output: str = "stylized",
    device: str = "auto",
    backend: Backend = "auto",
    overwrite: bool = False,
    skip_existing: bool = False,
    list_styles: bool = False,
    list_networks: bool = False,
) -> int:
    """Stylizes photos; every mistake that can be seen beforehand is refused before the first one.

    Args:
        photos: files, folders (searched with their sub-folders) or patterns.
        network: a published name or a file; if not given, the published one that knows the style, or starry_night
        style: a style of the network, or a mixture: starry_night=0.7,wave=0.3
        strength: from 0 (the photo) to 1 (fully stylized)
        keep_colors: keep the colours of the photo, paint its brightness only
        size: longer side of the result in pixels; the size of the photo if not given
        tile: auto paints photos of more than 4 megapixels in tiles, without seams, in memory that grows by 8 bytes a
            pixel only; never paints them whole; a number, in tiles of that side in pixels
        output: a folder, or for one photo a file; - is standard output, as PNG
        device: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps
        backend: torch, or onnx for exported files; auto: whichever the file is for, and on a CPU the faster ONNX
            Runtime where the export of a network lies beside it
        overwrite: replace earlier results (never a photo)
        skip_existing: leave earlier results as they are, and do the rest: for a folder that was interrupted
        list_styles: print the styles of the network and stop
        list_networks: print the published networks with their styles and stop
    """
    if overwrite and skip_existing:
        raise ValueError("--overwrite and --skip-existing: earlier results are replaced, or left; give one of the two")
    listing = list_styles or list_networks
    place = Path(output).expanduser()
    found = [] if listing else find(photos, place)
    if output == "-" and not listing:
        _check_standard_output(len(found))
    # They import torch, which takes seconds: mistakes in the above need not wait for it.
    from impasto.commands import painting
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
    stylizer = Stylizer(
        path, style, strength=strength, keep_colors=keep_colors, size=size, device=device, backend=backend, tile=tile
    )

    def stylize_into(output: Path) -> int:
        jobs = plan(found, output, painting.label(stylizer, path))
        left = [job for job in jobs if not (skip_existing and os.path.lexists(job.output))]
        if len(left) < len(jobs):
            print(f"{len(jobs) - len(left)} of {len(jobs)} exist already, skipped", file=sys.stderr)
        check_outputs(left, overwrite)
        return painting.stylize_all(stylizer, left, overwrite, single=len(jobs) == 1) if left else 0

    return painting.to_standard_output(stylize_into) if output == "-" else stylize_into(place)


def _check_standard_output(photos: int) -> None:
    if photos > 1:
        raise ValueError(f"--output -: is one image, and there are {photos} photos; name a folder")
    if sys.stdout.isatty():
        raise ValueError("--output -: is a terminal, which shows no image; send it on: `--output - > painted.png`")
