"""The networks by name, and the file format they are published in."""

import json
import subprocess
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from impasto.networks.transform import TransformNet
from impasto.spelling import did_you_mean
from impasto.vgg import CHECKPOINTS, COMPACT_FILE
from impasto.writing import write_bytes

NETWORKS: dict[str, type[TransformNet]] = {"TransformNet": TransformNet}
FORMAT = 2  # of the published file; a file of every format ever released keeps loading
# What a network of format 1 runs with, whose file does not tell (2 records it among the arguments).
FORMAT_1: dict[str, Any] = {"canvas": 6.0, "grain": 2.0, "upsampling": "bilinear_smoothed"}


class NetworkError(ValueError):
    """A network that cannot be found or read; the message is one line that says what to do."""


def describe(network: TransformNet, **metadata: Any) -> dict[str, Any]:
    """The JSON that travels with a network: format, class, arguments, and what `metadata` adds (styles, loss, …)."""
    return {"format": FORMAT, "network": type(network).__name__, "arguments": network.arguments, **metadata}


def save_network(
    path: str | Path, network: TransformNet, *, overwrite: bool = False, half: bool = False, **metadata: Any
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
        raise NetworkError(f"{path}: exported already; give the .safetensors or .ckpt it was made from")
    try:
        state, metadata = _read_checkpoint(path) if path.suffix == ".ckpt" else _read_published(path)
    except NetworkError:
        raise
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise NetworkError(f"{path}: damaged, or not a network ({' '.join(str(error).split())[:120]})") from error
    except Exception as error:  # what unpickling refuses under weights_only has no common class
        raise NetworkError(f"{path}: refused, not a checkpoint of impasto ({type(error).__name__})") from error
    return _build(path, state, metadata)


def upgraded(metadata: dict[str, Any], path: Path) -> dict[str, Any]:
    """The metadata of a published file, of any format so far, as those of today's.

    Raises:
        NetworkError: a format of a later version.
    """
    if metadata.get("format") == 1 and isinstance(metadata.get("arguments"), dict):
        return {**metadata, "format": FORMAT, "arguments": {**FORMAT_1, **metadata["arguments"]}}
    if metadata.get("format") != FORMAT:
        known = f"this version reads 1 to {FORMAT}"
        raise NetworkError(f"{path}: format {metadata.get('format')}, {known}; update impasto")
    return metadata


def find_network(name: str | Path) -> Path:
    """The file of a published name or path; raises NetworkError naming what there is."""
    if (path := Path(name).expanduser()).is_file():
        return path
    for folder in CHECKPOINTS:
        if (published := folder / f"{name}.safetensors").is_file():
            return published
    names = published_networks()
    known = f"neither a file nor a published name; published: {', '.join(names) or 'none yet'}"
    raise NetworkError(f"network {str(name)!r}: {did_you_mean(str(name), names)}{known}")


def published_networks() -> list[str]:
    """Names of the networks that come with the project."""
    files = [file for folder in CHECKPOINTS for file in folder.glob("*.safetensors") if file.name != COMPACT_FILE]
    return sorted({file.stem for file in files})


def published_styles() -> dict[str, list[str]]:
    """The styles that each network knows, of those that come with the project."""
    return {name: [str(style["name"]) for style in _described(find_network(name)).get("styles", [])]
            for name in published_networks()}  # fmt: skip


def _described(path: Path) -> dict[str, Any]:
    """The metadata of a published file."""
    with safe_open(path, framework="pt") as file:
        described = (file.metadata() or {}).get("impasto")
    if described is None:
        raise NetworkError(f"{path}: a .safetensors without impasto's metadata; not one of our networks")
    return dict(json.loads(described))


def _read_published(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    metadata = _described(path)
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118


def _read_checkpoint(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    if "impasto" not in checkpoint:
        raise NetworkError(f"{path}: a checkpoint, but not one of impasto's training")
    state = {key.removeprefix("network."): value for key, value in checkpoint["state_dict"].items()}
    return state, checkpoint["impasto"]["network"]


def _build(path: Path, state: dict[str, torch.Tensor], metadata: dict[str, Any]) -> TransformNet:
    if "loss_network" in metadata:
        raise NetworkError(f"{path}: a loss network, for training (--model.loss.network); it stylizes nothing")
    metadata = upgraded(metadata, path)
    if metadata.get("network") not in NETWORKS:
        raise NetworkError(f"{path}: network {metadata.get('network')!r} is not one of {', '.join(NETWORKS)}")
    try:
        network = NETWORKS[metadata["network"]](**metadata["arguments"])
        network.load_state_dict({key: value.float() for key, value in state.items()})
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise NetworkError(f"{path}: weights and metadata disagree; the file is damaged") from error
    network.metadata = {key: value for key, value in metadata.items() if key not in describe(network)}
    return network.eval().requires_grad_(False)


__all__ = [
    "FORMAT", "NETWORKS", "NetworkError", "TransformNet",
    "describe", "find_network", "load_network", "published_networks", "published_styles",
    "save_network", "upgraded",
]  # fmt: skip


def commit() -> str:
    """The commit of the source in use, with a + where it was changed since; empty outside a checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():  # installed, perhaps below a repository that is not ours
        return ""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
