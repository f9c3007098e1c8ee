"""The command `impasto styles`: a file of your own styles, each made of one painting."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto.commands.arguments import parsed
from impasto.commands.idle import Need, only_with
from impasto.commands.jobs import check_output_folder
from impasto.spelling import did_you_mean, not_there

if TYPE_CHECKING:
    from torch import Tensor

    from impasto.networks import TransformNet

_USES = "styles add PAINTING, styles list, or styles remove NAME"
# Photos that come with scikit-image and scikit-learn, unless others are given.
_PHOTOS = (
    *(
        f"package:skimage/data/{name}"
        for name in ("astronaut.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
    ),
    "package:sklearn/datasets/images/china.jpg",
    "package:sklearn/datasets/images/flower.jpg",
)
_ADDING = Need(
    "acts only with `styles add`; leave it out", lambda given: given["words"][:1] == ["add"]
)
_NEEDS = {"photos": only_with("fit"), "device": only_with("fit")} | dict.fromkeys(
    ("name", "network", "fit", "overwrite"), _ADDING
)
_CROP = 256  # side of the photos to fit on, in pixels
_PAINTING = 512  # longer side of a painting to fit to, in pixels: strokes as in training


def styles(arguments: list[str]) -> int:
    """Run the command with the arguments of a command line; return 0.

    Raises:
        ValueError: a mistake of the user.
    """
    words = {"words": f"what to do: {_USES}"}
    about = "Keep your own styles in a network file, each made of one painting."
    given = parsed("styles", about, change_styles, arguments, words, {}, several=True, needs=_NEEDS)
    return change_styles(**given)


def change_styles(
    words: list[str],
    name: str | None = None,
    file: str = "styles.safetensors",
    network: str = "any",
    fit: float = 0.0,
    photos: list[str] | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> int:
    """Add a style to a network file, list its styles, or remove one.

    Args:
        words: what to do
        name: name of the new style; if not given, that of the painting's file
        file: the network file with your styles; `add` makes it
        network: the network that reads the painting, or, with --fit, any network to begin from
        fit: seconds of fitting the style to its painting; 15 make it plainly nearer
        photos: photos or folders to fit on; if not given, six that come with scikit-image and
            scikit-learn
        device: for fitting: auto (cuda, else mps, else cpu), cpu, cuda, cuda:N or mps
        overwrite: replace a style of the same name
    """
    if not words or len(words) != {"add": 2, "list": 1, "remove": 2}.get(words[0]):
        given = f"{' '.join(words)}: not understood" if words else "nothing to do"
        raise ValueError(f"{given}; give {_USES} (--help tells more)")
    path = Path(file).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(f"--file {file}: must be a .safetensors")
    if words[0] == "add":
        if not (math.isfinite(fit) and fit >= 0):
            raise ValueError(f"--fit {fit}: must be a number of seconds, from 0")
        painting = Path(words[1]).expanduser()
        if not painting.is_file():
            raise ValueError(not_there(painting))
        return _add(painting, name or painting.stem, path, network, fit, photos, device, overwrite)
    if not path.is_file():
        raise ValueError(f"--file {not_there(path)}; `impasto styles add PAINTING` makes it")
    return _list(path) if words[0] == "list" else _remove(words[1], path)


def _add(
    painting: Path, name: str, path: Path, network: str, fit: float, photos: list[str] | None,
    device: str, overwrite: bool,
) -> int:  # fmt: skip
    """Add a painting to a network file; the arguments are those of `change_styles`."""
    # Imported here because torch takes seconds to import. Mistakes above are answered without it.
    import torch

    from impasto.images import read_image
    from impasto.images.paintings import check_style_names, thumbnail
    from impasto.networks import load_network, save_network
    from impasto.networks.predictor import AnyStyleNet
    from impasto.networks.rows import alike, joined, of_styles, with_one_row

    check_style_names([name])
    check_output_folder(path.parent)
    kept = _kept(path) if path.is_file() else None
    if kept and name in kept.styles:
        if not overwrite:
            raise ValueError(
                f"{path} has a style {name}: choose another --name, or --overwrite to replace it"
            )
        others = [style for style in kept.styles if style != name]
        kept = of_styles(kept, others) if others else None
    pixels = read_image(painting).pixels
    painter = load_network(network)
    if isinstance(painter, AnyStyleNet):
        code = painter.encode_style([(pixels, 1.0)])
    elif painter.any_picture:
        raise ValueError(f"--network {network}: has no styles to keep; use any")
    elif not fit:
        raise ValueError(
            f"--network {network}: knows its own styles only; to begin from them, fit the new one "
            "(--fit 60), or use --network any"
        )
    else:
        code = torch.full((1, painter.num_styles), 1 / painter.num_styles)
    made = with_one_row(painter, code)
    if kept and not alike(kept, made):
        raise ValueError(
            f"{path}: its styles are of another network than {network}; give another --file"
        )
    about: dict[str, Any] = {"name": name, "thumbnail": thumbnail(pixels)}
    loss = {key: value for key, value in painter.metadata.get("loss", {}).items() if key != "gaps"}
    made.metadata = {"loss": loss, "training": {"start_from": Path(network).stem}}
    if fit:
        about["fitted_steps"] = _fitted(made, pixels, photos, fit, device)
    made.metadata["styles"] = [about]
    made = joined(kept, made) if kept else made
    save_network(path, made, overwrite=True, half=True)
    print(
        f"{path}: {', '.join(made.styles)}\n"
        f"stylize with it: impasto infer PHOTO --network {path} --style {name}"
    )
    return 0


def _kept(path: Path) -> "TransformNet":
    """Return the network of a file that this command made.

    Raises:
        ValueError: the file is of another kind.
    """
    from impasto.networks import load_network

    network = load_network(path)
    if network.any_picture or len(network.metadata.get("styles", [])) != network.num_styles:
        raise ValueError(f"{path}: not a file of styles; give another --file")
    return network


def _fitted(
    network: "TransformNet", painting: "Tensor", photos: list[str] | None, seconds: float,
    device: str,
) -> int:  # fmt: skip
    """Fit a network of one style to its painting, with a bar; return the number of steps."""
    import torch

    from impasto.commands.progress import bar
    from impasto.data.crops import center_crop
    from impasto.data.sources import FolderPhotos
    from impasto.images import resize
    from impasto.inference.devices import find_device
    from impasto.training.fitting import fit_row

    found = FolderPhotos(photos or list(_PHOTOS))
    if len(found) < 2:
        raise ValueError("--photos: give two or more; the fitting is measured on them")
    chosen = range(0, len(found), -(-len(found) // 16))  # sixteen at most, spread over the folder
    crops = torch.stack([center_crop(found.open(number), _CROP) for number in chosen])
    network.to(find_device(device))
    with bar() as progress:
        task = progress.add_task("fitting", total=round(seconds))
        small = resize(painting, min(_PAINTING, max(painting.shape[-2:])))
        steps = fit_row(
            network, small, crops, seconds,
            lambda passed: progress.update(task, completed=round(passed)),
        )  # fmt: skip
    network.to("cpu")
    print(f"fitted in {steps} steps")
    return steps


def _list(path: Path) -> int:
    """Print the styles of a file."""
    for style in _kept(path).metadata["styles"]:
        steps = style.get("fitted_steps")
        print(f"{style['name']}{f'  fitted in {steps} steps' if steps else ''}")
    return 0


def _remove(name: str, path: Path) -> int:
    """Remove a style from a file."""
    from impasto.networks import save_network
    from impasto.networks.rows import of_styles

    network = _kept(path)
    if name not in network.styles:
        meant = did_you_mean(name, network.styles)
        raise ValueError(f"{path} has no style {name}: {meant}it has {', '.join(network.styles)}")
    others = [style for style in network.styles if style != name]
    if not others:
        raise ValueError(f"{name} is the only style of {path}: delete the file instead")
    save_network(path, of_styles(network, others), overwrite=True, half=True)
    print(f"{path}: {', '.join(others)}")
    return 0
