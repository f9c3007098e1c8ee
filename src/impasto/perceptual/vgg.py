"""The layers of the loss networks, VGG19, VGG16 and `compact`, by name, and where their weights come from."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn

from impasto.choices import LossNetwork, Teacher
from impasto.shipped import CHECKPOINTS, COMPACT_FILE
from impasto.writing import write_bytes

COMPACT_FORMAT = 1
COMPACT_LAYERS = (
    "relu1_1",
    "relu2_1",
    "relu3_1",
    "relu4_1",
    "relu4_2",
    "relu5_1",
)  # those it predicts
COMPACT_RANKS = (16, 32, 64, 128, 256)
# torchvision's own files (IMAGENET1K_V1); the second name is the convolutions alone.
WEIGHT_FILES: dict[str, tuple[str, ...]] = {
    "vgg19": ("vgg19-dcbb9e9d.pth", "vgg19-features.pth"),
    "vgg16": ("vgg16-397923af.pth", "vgg16-features.pth"),
    "compact": (COMPACT_FILE,),
}
DOWNLOAD = "https://download.pytorch.org/models/"


class FactoredConvolution(nn.Module):
    """A 3×3 convolution to a few channels, then a 1×1 to all: factors of low rank (Zhang et al. 2015)."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inputs, rank, 3, padding=1, bias=False)
        self.wide = nn.Conv2d(rank, outputs, 1)

    def forward(self, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ h w"]:
        return self.wide(self.narrow(x))


def factored(teacher: Teacher, ranks: Sequence[int]) -> nn.Sequential:
    """The layers of `compact`: those of its teacher with every convolution but the first factored.

    Layers that nobody asks for (`COMPACT_LAYERS` are predicted) have half the teacher's channels.

    Args:
        teacher: the network it predicts.
        ranks: channels between the factors, in each of VGG's five blocks.

    Raises:
        ValueError: not five ranks, or one below 1.
    """
    if len(ranks) != 5 or min(ranks) < 1:
        raise ValueError(f"ranks {list(ranks)}: five numbers above 0, one for each block of VGG")
    network = architecture(teacher, random=False).to_empty(device="cpu")
    network = network[: layer_names(network).index("relu5_1") + 1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        inputs = 0
        for index, name in enumerate(layer_names(network)):
            module = network[index]
            if not isinstance(module, nn.Conv2d):
                continue
            if name == "conv1_1":
                module.reset_parameters()
                inputs = module.out_channels
                continue
            wanted = name.replace("conv", "relu") in COMPACT_LAYERS
            outputs = module.out_channels // (1 if wanted else 2)
            network[index] = FactoredConvolution(
                inputs, outputs, min(ranks[int(name[4]) - 1], outputs)
            )
            inputs = outputs
    return network


def width(network: nn.Sequential) -> int:
    """Channels of its last convolution."""
    last = next(
        module
        for module in reversed(network)
        if isinstance(module, nn.Conv2d | FactoredConvolution)
    )
    return last.wide.out_channels if isinstance(last, FactoredConvolution) else last.out_channels


def architecture(name: LossNetwork, random: bool) -> nn.Sequential:
    """torchvision's convolutions: without values, or with the same random ones in every process (He et al. 2015)."""
    import torchvision  # seconds, which only what judges pictures has to wait

    with torch.device(
        "meta"
    ):  # without values: torchvision's own would fill a large classifier too
        network: nn.Sequential = getattr(torchvision.models, name)(weights=None).features
    if random:
        network.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        for module in network:
            if isinstance(module, nn.Conv2d):
                weight, bias = module.parameters()
                nn.init.kaiming_normal_(
                    weight, mode="fan_out", nonlinearity="relu", generator=generator
                )
                nn.init.zeros_(bias)
    return network


def layer_names(network: nn.Sequential) -> list[str]:
    """conv1_1, relu1_1, …, pool1, conv2_1, …: the names of the papers, counted from torchvision's sequence."""
    names, block, conv = [], 1, 0
    for module in network:
        if isinstance(module, nn.Conv2d | FactoredConvolution):
            conv += 1
            names.append(f"conv{block}_{conv}")
        elif isinstance(module, nn.ReLU):
            names.append(f"relu{block}_{conv}")
        else:
            names.append(f"pool{block}")
            block, conv = block + 1, 0
    return names


def find_weights(name: LossNetwork, weights: str | None = None) -> Path:
    """The weight file: the path given (or in IMPASTO_WEIGHTS), torch's hub cache, a download with progress bar.

    Raises:
        ValueError: a path was given that holds no such file, or nothing was found and the download failed.
    """
    file = WEIGHT_FILES[name][0]
    if given := weights or os.environ.get("IMPASTO_WEIGHTS"):
        path = Path(given).expanduser()
        # A folder of the variable may hold the other network only: then the search goes on.
        if (
            weights
            or not path.is_dir()
            or any((path / known).is_file() for known in WEIGHT_FILES[name])
        ):
            return _weights_at(path, name)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                DOWNLOAD + file, str(cached), hash_prefix=Path(file).stem[-8:]
            )
        except (URLError, OSError, RuntimeError) as error:
            raise ValueError(
                f"no weights for {name}: {_not_given(given, name)}, none in torch's cache ({cached}), and the download "
                f"of {DOWNLOAD}{file} failed: {' '.join(str(error).split())}. --[model.]loss.network compact needs none"
            ) from error
    return cached


def _weights_at(path: Path, name: LossNetwork) -> Path:
    candidates = [path / file for file in WEIGHT_FILES[name]] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked_for = " or ".join(WEIGHT_FILES[name]) if path.is_dir() else "such file or folder"
    raise ValueError(
        f"weights for {name}: {path} holds no {looked_for} (weights: PATH, or IMPASTO_WEIGHTS)"
    )


def _not_given(folder: str | None, name: LossNetwork) -> str:
    """Where they were looked for first, and what would do."""
    if folder:
        others = [
            other
            for other, files in WEIGHT_FILES.items()
            if any(Path(folder, file).is_file() for file in files)
        ]
        held = (
            f"those of {' and '.join(others)} only (--[model.]loss.network)" if others else "none"
        )
        return f"IMPASTO_WEIGHTS={folder} holds {held}, not {' or '.join(WEIGHT_FILES[name])}"
    wanted = f"a folder with {WEIGHT_FILES[name][0]}, or a file"
    return f"none given (--[model.]loss.weights PATH, or the variable IMPASTO_WEIGHTS: {wanted})"


def load_convolutions(network: nn.Sequential, file: Path) -> None:
    """Fills the convolutions from torchvision's keys (`features.0.weight`); other keys, the classifier, are left."""
    wanted = [f"{index}.{part}" for index, module in enumerate(network) if isinstance(module, nn.Conv2d)
              for part in ("weight", "bias")]  # fmt: skip
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        state = {key: stored[f"features.{key}"].float().clone() for key in wanted}
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        if wrong := [key for key in wanted if state[key].shape != shapes[key]]:
            raise ValueError(f"features.{wrong[0]} has another shape")
        _check_finite(state)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{file}: not the weights of this network in torchvision's layout ({reason})"
        ) from error
    network.load_state_dict(state, assign=True)


def _check_finite(state: dict[str, Tensor]) -> None:
    if bad := [key for key, value in state.items() if not value.isfinite().all()]:
        raise ValueError(f"{bad[0]} holds what is no number")


def save_compact(
    path: Path, network: nn.Sequential, teacher: Teacher, ranks: Sequence[int], **about: Any
) -> Path:
    """Writes the compact loss network in half precision, with its teacher, ranks and what else is said of it."""
    described = {
        "format": COMPACT_FORMAT,
        "loss_network": "compact",
        "teacher": teacher,
        "ranks": list(ranks),
        **about,
    }
    state = {
        name: value.detach().half().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    write_bytes(
        path,
        safetensors.torch.save(state, metadata={"impasto": json.dumps(described)}),
        overwrite=True,
    )
    return path


def load_compact(weights: str | None) -> nn.Sequential:
    """The layers of the compact network: of the file given, or of the one that comes with the project."""
    if weights == "random":
        return factored("vgg16", COMPACT_RANKS)
    file = _weights_at(Path(weights).expanduser(), "compact") if weights else _shipped_compact()
    try:
        with safe_open(file, framework="pt") as stored:
            described = json.loads((stored.metadata() or {})["impasto"])
            state = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
        if described["loss_network"] != "compact" or described["format"] != COMPACT_FORMAT:
            raise ValueError(f"format {described['format']}, this version reads {COMPACT_FORMAT}")
        network = factored(described["teacher"], described["ranks"])
        network.load_state_dict(state)
        _check_finite(state)
    except Exception as error:  # what is wrong with metadata of another shape has no common class
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: not the compact loss network ({reason})") from error
    return network


def _shipped_compact() -> Path:
    for folder in CHECKPOINTS:
        if (file := folder / COMPACT_FILE).is_file():
            return file
    raise ValueError(
        f"the compact loss network, {CHECKPOINTS[0] / COMPACT_FILE}, is missing: install impasto anew"
    )
