"""Networks by name, and the `.safetensors` format in which they are published."""

import inspect
import json
from pathlib import Path
from typing import Any, get_args

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from impasto.images.paintings import check_style_names
from impasto.networks.adain import AdaINNet
from impasto.networks.predictor import AnyStyleNet
from impasto.networks.transform import TransformNet
from impasto.shipped import CHECKPOINTS, COMPACT_FILE
from impasto.spelling import did_you_mean, not_there
from impasto.writing import write_bytes

NETWORKS: dict[str, type[TransformNet]] = {
    "TransformNet": TransformNet,
    "AnyStyleNet": AnyStyleNet,
    "AdaINNet": AdaINNet,
}
# Version of the file format. Files of earlier versions keep loading: 3 added arguments, whose
# defaults are what networks of format 2 do.
FORMAT = 3
# Networks that are no longer published, and the network that has their styles now.
RETIRED = {"multistyle": "gallery"}
# Arguments of every network of format 1, which was trained on few photos and needed all three.
# Files of format 1 do not record them; later ones do.
FORMAT_1: dict[str, Any] = {"canvas": 6.0, "grain": 2.0, "upsampling": "bilinear_smoothed"}

_LARGEST_ARGUMENT = 1e6  # largest absolute value of a numeric argument that is not taken for damage


class NetworkError(ValueError):
    """A network cannot be found or read. The message is one line and says what to do."""


def describe(network: TransformNet, **metadata: Any) -> dict[str, Any]:
    """Return the JSON table stored with a network: format, class, arguments and `metadata`.

    Args:
        network: the network to describe.
        metadata: further JSON values by key, such as `styles` and `loss`.
    """
    return {
        "format": FORMAT,
        "network": type(network).__name__,
        "arguments": network.arguments,
        **metadata,
    }


def save_network(
    path: str | Path,
    network: TransformNet,
    *,
    overwrite: bool = False,
    half: bool = False,
    **metadata: Any,
) -> Path:
    """Write a network's weights and JSON metadata to one `.safetensors`, whole or not at all.

    Args:
        path: the file to write; its suffix must be `.safetensors`.
        network: the network to save.
        overwrite: replace an existing file.
        half: store the weights in half precision instead of their own. Pictures then differ by at
            most one grey level, in 1 % of the pixels (measured on three networks of this project).
        metadata: JSON values to add to the network's own metadata, such as `styles` (a list of
            dicts with a `name`), `loss` or `config`.

    Returns:
        The path.

    Raises:
        NetworkError: another suffix, or the file exists and `overwrite` is false.
        FileError: the file cannot be written there.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise NetworkError(f"{path}: a network is published as .safetensors")
    if path.exists() and not overwrite:
        raise NetworkError(f"{path} exists: choose another name, or overwrite")
    described = json.dumps(describe(network, **{**network.metadata, **metadata}))
    state = {
        name: (value.half() if half else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    # `save_file` of safetensors would create a file that only its owner can read.
    write_bytes(path, safetensors.torch.save(state, metadata={"impasto": described}), overwrite)
    return path


def load_network(name: str | Path) -> TransformNet:
    """Load a network for stylizing: in evaluation mode, on the CPU, in float32, with its metadata.

    No code from the file is run.

    Args:
        name: a published name, a `.safetensors` file, or a training checkpoint (`.ckpt`).

    Raises:
        NetworkError: no such network, a damaged file, or one of a format that this version does not
            know.
    """
    path = find_network(name)
    if path.suffix == ".onnx":
        raise NetworkError(
            f"{path}: exported already; give the .safetensors or .ckpt it was made from"
        )
    try:
        read = _read_checkpoint if path.suffix == ".ckpt" else _read_published
        state, metadata = read(path)
    except NetworkError:
        raise
    except (
        SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError, MemoryError,
    ) as error:  # fmt: skip
        raise NetworkError(
            f"{path}: damaged, or not a network ({' '.join(str(error).split())[:120]})"
        ) from error
    except Exception as error:  # refusals of `weights_only` unpickling have no common class
        raise NetworkError(
            f"{path}: refused, not a checkpoint of impasto ({type(error).__name__})"
        ) from error
    return _build(path, state, metadata)


def upgraded(metadata: Any, path: Path) -> dict[str, Any]:
    """Return the metadata of a published file, converted from its format to the current one.

    Args:
        metadata: the JSON of the file, not yet checked.
        path: the file, for messages.

    Raises:
        NetworkError: the format is newer than this version, or no version wrote such metadata.
    """
    if not isinstance(metadata, dict):
        raise NetworkError(f"{path}: its metadata are no table; the file is damaged")
    version, arguments = metadata.get("format"), metadata.get("arguments")
    if version not in range(1, FORMAT + 1):
        raise NetworkError(
            f"{path}: format {str(version)[:20]}, this version reads 1 to {FORMAT}; update impasto"
        )
    if not isinstance(arguments, dict) or not all(
        isinstance(metadata.get(key, {}), dict) for key in ("loss", "training")
    ):
        raise NetworkError(
            f"{path}: arguments, loss and training must be tables; the file is damaged"
        )
    known = metadata.get("network")
    if not isinstance(known, str) or known not in NETWORKS:
        raise NetworkError(
            f"{path}: network {str(known)[:40]!r} is not one of {', '.join(NETWORKS)}"
        )
    _check_styles(metadata.get("styles", []), path)
    if version == 1:
        arguments = {**FORMAT_1, **arguments}
    _check_arguments(NETWORKS[known], arguments, path)
    return {**metadata, "format": FORMAT, "arguments": arguments}


def _check_styles(styles: Any, path: Path) -> None:
    """Raise NetworkError unless `styles` is a list of dicts with distinct, valid names."""
    named = isinstance(styles, list) and all(
        isinstance(style, dict) and isinstance(style.get("name"), str) for style in styles
    )
    if not named or len({style["name"] for style in styles}) < len(styles):
        raise NetworkError(
            f"{path}: styles must be a list of tables, each with another name; the file is damaged"
        )
    try:
        check_style_names(style["name"] for style in styles)
    except ValueError as error:
        raise NetworkError(f"{path}: {error}") from error


def _check_arguments(network: type[TransformNet], arguments: dict[str, Any], path: Path) -> None:
    """Raise NetworkError unless the constructor has each argument and its type fits."""
    known = inspect.signature(network).parameters
    for name, value in arguments.items():
        kind = known[name].annotation if name in known else None
        number = (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) <= _LARGEST_ARGUMENT
        )
        if kind is bool:
            fits = isinstance(value, bool)
        elif kind in (int, float):
            fits = number and isinstance(value, kind | int)
        else:
            # 2.0 and True equal whole numbers.
            fits = any(value == one and type(value) is type(one) for one in get_args(kind))
        if not fits:
            what = f"argument {name[:40]!r} of {str(value)[:40]}"
            raise NetworkError(
                f"{path}: {what}: weights and metadata disagree; the file is damaged"
            )


def find_network(name: str | Path) -> Path:
    """Return the path of a network's file.

    Args:
        name: an existing file, or a published name, also of a retired network.

    Raises:
        NetworkError: it is neither; the message lists the published names.
    """
    if (path := Path(name).expanduser()).is_file():
        return path
    for folder in CHECKPOINTS:
        if (published := folder / f"{RETIRED.get(str(name), name)}.safetensors").is_file():
            return published
    names = published_networks()
    if ":/" in str(path):
        raise NetworkError(not_there(path))
    known = f"neither a file nor a published name; published: {', '.join(names) or 'none yet'}"
    raise NetworkError(f"network {str(name)!r}: {did_you_mean(str(name), names)}{known}")


def published_networks() -> list[str]:
    """Return the names of the networks that come with the project, sorted."""
    files = [
        file
        for folder in CHECKPOINTS
        for file in folder.glob("*.safetensors")
        if file.name != COMPACT_FILE
    ]
    return sorted({file.stem for file in files})


def published_metadata() -> dict[str, dict[str, Any]]:
    """Return the metadata of each network that comes with the project, by name."""
    paths = {name: find_network(name) for name in published_networks()}
    return {name: upgraded(_described(path), path) for name, path in paths.items()}


def published_styles() -> dict[str, list[str]]:
    """Return the names of the styles of each network that comes with the project."""
    return {
        name: [style["name"] for style in metadata.get("styles", [])]
        for name, metadata in published_metadata().items()
    }


def _described(path: Path) -> Any:
    """Return the metadata of a published file, as JSON that is not yet checked."""
    with safe_open(path, framework="pt") as file:
        described = (file.metadata() or {}).get("impasto")
    if described is None:
        raise NetworkError(
            f"{path}: a .safetensors without impasto's metadata; not one of our networks"
        )
    return json.loads(described)


def _read_published(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    metadata = _described(path)
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118


def _read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if "impasto" not in checkpoint:
        raise NetworkError(f"{path}: a checkpoint, but not one of impasto's training")
    state = {key.removeprefix("network."): value for key, value in checkpoint["state_dict"].items()}
    return state, checkpoint["impasto"]["network"]


def _build(path: Path, state: dict[str, torch.Tensor], metadata: Any) -> TransformNet:
    if isinstance(metadata, dict) and "loss_network" in metadata:
        raise NetworkError(
            f"{path}: a loss network, for training (--model.loss.network); it stylizes nothing"
        )
    metadata = upgraded(metadata, path)
    try:
        # Copy, because safetensors maps the file into memory. If the file changed while the network
        # is in use, the process would crash.
        state = {key: value.to(torch.float32, copy=True) for key, value in state.items()}
        largest = max(len(state), *(max(value.shape, default=0) for value in state.values()))
        # A damaged number of blocks could take minutes to build.
        if metadata["arguments"].get("residual_blocks", 0) > largest:
            raise ValueError("a network larger than the weights")
        with torch.device("meta"):  # no memory is taken, however wrong the width is
            network = NETWORKS[metadata["network"]](**metadata["arguments"])
        network.load_state_dict(state, assign=True)
    except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise NetworkError(f"{path}: weights and metadata disagree; the file is damaged") from error
    if not all(value.isfinite().all() for value in state.values()):
        raise NetworkError(
            f"{path}: weights that are not finite numbers; the file is damaged, or of a failed run"
        )
    network.metadata = {
        key: value for key, value in metadata.items() if key not in describe(network)
    }
    return network.eval().requires_grad_(False)
