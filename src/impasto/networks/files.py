"""The networks by name, and the file format they are published in."""

import inspect
import json
from pathlib import Path
from typing import Any, get_args

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from impasto.images.paintings import check_style_names
from impasto.networks.transform import TransformNet
from impasto.shipped import CHECKPOINTS, COMPACT_FILE
from impasto.spelling import did_you_mean, not_there
from impasto.writing import write_bytes

NETWORKS: dict[str, type[TransformNet]] = {"TransformNet": TransformNet}
FORMAT = 2  # of the published file; a file of every format ever released keeps loading
# Names of networks published once, and the network that knows their styles now.
RETIRED = {"multistyle": "gallery"}
# What a network of format 1 runs with, whose file does not tell (2 records it among the arguments).
FORMAT_1: dict[str, Any] = {"canvas": 6.0, "grain": 2.0, "upsampling": "bilinear_smoothed"}


_MOST = 1e6  # of any argument


class NetworkError(ValueError):
    """A network that cannot be found or read; the message is one line that says what to do."""


def describe(network: TransformNet, **metadata: Any) -> dict[str, Any]:
    """The JSON that travels with a network: format, class, arguments, and what `metadata` adds (styles, loss, …)."""
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
    """Publishes a network: weights and JSON metadata in one `.safetensors`, written atomically.

    Args:
        path: where to; the suffix must be `.safetensors`.
        network: its weights are stored in the precision they have, unless `half`.
        overwrite: replace an existing file.
        half: store them in half precision; the pictures then differ by at most one grey level, in 1 % of the pixels
            (measured on three networks of this project).
        metadata: JSON values beside the network's own: `styles` (a list of dicts with a `name`), `loss`, `config`, ….

    Raises:
        NetworkError: another suffix, or the file exists.
        FileError: the place is unfit.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise NetworkError(f"{path}: a network is published as .safetensors")
    if path.exists() and not overwrite:
        raise NetworkError(f"{path} exists: choose another name, or overwrite")
    described = json.dumps(describe(network, **{**network.metadata, **metadata}))
    state = {name: (value.half() if half else value).detach().cpu().contiguous()
             for name, value in network.state_dict().items()}  # fmt: skip
    # Not save_file, which makes a file that nobody else may read.
    write_bytes(path, safetensors.torch.save(state, metadata={"impasto": described}), overwrite)
    return path


def load_network(name: str | Path) -> TransformNet:
    """A network ready to stylize (evaluation mode, CPU, float32), with its `.metadata`; runs no code of the file.

    Args:
        name: a published name (a file in `checkpoints/`), a `.safetensors`, or a training checkpoint `.ckpt`.

    Raises:
        NetworkError: no such network, a damaged file, or one this version does not know.
    """
    path = find_network(name)
    if path.suffix == ".onnx":
        raise NetworkError(
            f"{path}: exported already; give the .safetensors or .ckpt it was made from"
        )
    try:
        state, metadata = (
            _read_checkpoint(path) if path.suffix == ".ckpt" else _read_published(path)
        )
    except NetworkError:
        raise
    except (
        SafetensorError,
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        MemoryError,
    ) as error:
        raise NetworkError(
            f"{path}: damaged, or not a network ({' '.join(str(error).split())[:120]})"
        ) from error
    except Exception as error:  # what unpickling refuses under weights_only has no common class
        raise NetworkError(
            f"{path}: refused, not a checkpoint of impasto ({type(error).__name__})"
        ) from error
    return _build(path, state, metadata)


def upgraded(metadata: Any, path: Path) -> dict[str, Any]:
    """The metadata of a published file, of any format so far, as those of today's.

    Args:
        metadata: whatever JSON the file holds.
        path: of the file.

    Raises:
        NetworkError: a format of a later version, or metadata of another shape than any version wrote.
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
    """A list of tables, each with a name of its own that can be part of a file's name."""
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
    """Known names, and values of the types that the constructor states."""
    known = inspect.signature(network).parameters
    for name, value in arguments.items():
        kind = known[name].annotation if name in known else None
        number = (
            isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST
        )
        fits = (
            number and isinstance(value, kind | int)
            if kind in (int, float)
            else value in get_args(kind)
        )
        if not fits:
            what = f"argument {name[:40]!r} of {str(value)[:40]}"
            raise NetworkError(
                f"{path}: {what}: weights and metadata disagree; the file is damaged"
            )


def find_network(name: str | Path) -> Path:
    """The file of a published name or path; raises NetworkError naming what there is."""
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
    """Names of the networks that come with the project."""
    files = [
        file
        for folder in CHECKPOINTS
        for file in folder.glob("*.safetensors")
        if file.name != COMPACT_FILE
    ]
    return sorted({file.stem for file in files})


def published_styles() -> dict[str, list[str]]:
    """The styles that each network knows, of those that come with the project."""
    paths = {name: find_network(name) for name in published_networks()}
    described = {name: upgraded(_described(path), path) for name, path in paths.items()}
    return {
        name: [style["name"] for style in metadata.get("styles", [])]
        for name, metadata in described.items()
    }


def _described(path: Path) -> Any:
    """The metadata of a published file: JSON of whatever shape."""
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
        # Copies: a file that is changed while its network is in use would take the process with it.
        state = {key: value.to(torch.float32, copy=True) for key, value in state.items()}
        largest = max(len(state), *(max(value.shape, default=0) for value in state.values()))
        if (
            metadata["arguments"].get("residual_blocks", 0) > largest
        ):  # which would be built for minutes
            raise ValueError("a network larger than the weights")
        with torch.device("meta"):  # without values: a width that is wrong takes no memory
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
