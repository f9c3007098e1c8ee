"""Layers and weights of the loss networks VGG19, VGG16 and `compact`."""

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

# Configurations D and E of Simonyan & Zisserman 2015: channels and convolutions of each block.
BLOCK_CHANNELS = (64, 128, 256, 512, 512)
BLOCK_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
COMPACT_FORMAT = 1
# The teacher's layers that the compact network predicts.
COMPACT_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")
COMPACT_RANKS = (16, 32, 64, 128, 256)
# torchvision's files (IMAGENET1K_V1). The second name is of a file with the convolutions only.
WEIGHT_FILES: dict[str, tuple[str, ...]] = {
    "vgg19": ("vgg19-dcbb9e9d.pth", "vgg19-features.pth"),
    "vgg16": ("vgg16-397923af.pth", "vgg16-features.pth"),
    "compact": (COMPACT_FILE,),
}
DOWNLOAD = "https://download.pytorch.org/models/"


class FactoredConvolution(nn.Module):
    """A convolution of low rank: 3×3 to `rank` channels, then 1×1 (Zhang et al. 2015)."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(inputs, rank, 3, padding=1, bias=False)
        self.wide = nn.Conv2d(rank, outputs, 1)

    def forward(self, x: Float[Tensor, "b _ h w"]) -> Float[Tensor, "b _ h w"]:
        return self.wide(self.narrow(x))


def factored(teacher: Teacher, ranks: Sequence[int]) -> nn.Sequential:
    """Return the layers of the compact network, with random weights from a fixed seed.

    They are the teacher's layers up to relu5_1, with every convolution but the first factored.
    Layers outside `COMPACT_LAYERS` have half the teacher's channels.

    Args:
        teacher: the network to predict.
        ranks: channels between the two factors, for each of VGG's five blocks.

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
    """Return the number of output channels of the last convolution."""
    last = next(
        module
        for module in reversed(network)
        if isinstance(module, nn.Conv2d | FactoredConvolution)
    )
    return last.wide.out_channels if isinstance(last, FactoredConvolution) else last.out_channels


def architecture(name: LossNetwork, random: bool) -> nn.Sequential:
    """Return VGG's layers up to the last pooling, numbered as in torchvision (`features`).

    Every convolution is 3×3, and a ReLU follows it; a pooling halves the size after each block.

    Args:
        name: vgg19 or vgg16.
        random: whether to set weights at random (He et al. 2015), the same in every process.
            Otherwise they have no values yet.
    """
    layers: list[nn.Module] = []
    inputs = 3
    with torch.device("meta"):  # no values
        for outputs, convolutions in zip(BLOCK_CHANNELS, BLOCK_CONVOLUTIONS[name], strict=True):
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
    network = nn.Sequential(*layers)
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
    """Return the papers' names of the layers: conv1_1, relu1_1, …, pool1, conv2_1, …."""
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
    """Return the path of a weight file.

    It is searched for at `weights`, at the path in IMPASTO_WEIGHTS and in torch's hub cache. If
    none has it, it is downloaded into the cache, with a progress bar.

    Args:
        name: vgg19 or vgg16.
        weights: a file, or a folder with the file; None: search elsewhere.

    Raises:
        ValueError: the given path does not have the file, or no place has it and the download
            failed.
    """
    file = WEIGHT_FILES[name][0]
    if given := weights or os.environ.get("IMPASTO_WEIGHTS"):
        path = Path(given).expanduser()
        # A folder in IMPASTO_WEIGHTS may hold another network only. The search then continues.
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
                f"no weights for {name}: {_not_given(given, name)}, none in torch's cache "
                f"({cached}), and the download of {DOWNLOAD}{file} failed: "
                f"{' '.join(str(error).split())}. --[model.]loss.network compact needs none"
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
    """Return the part of an error message that says why no given path has the weights."""
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
    """Load the weights of the convolutions from a file of torchvision.

    Keys have the form `features.0.weight`; keys of the classifier are ignored.

    Args:
        network: VGG's layers, changed in place.
        file: the weight file.

    Raises:
        ValueError: the file does not hold finite weights of these layers.
    """
    wanted = [
        f"{index}.{part}"
        for index, module in enumerate(network)
        if isinstance(module, nn.Conv2d)
        for part in ("weight", "bias")
    ]
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
    """Write the compact loss network to a `.safetensors` in half precision, replacing the file.

    Args:
        path: the file to write.
        network: the layers, as `factored` makes them.
        teacher: the network that it predicts.
        ranks: as in `factored`.
        about: further JSON values to store with it.

    Returns:
        The path.
    """
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
    """Return the layers of the compact network with their weights.

    Args:
        weights: a file, a folder with the file, or `random`; None: the file that comes with the
            project.

    Raises:
        ValueError: the file is missing, damaged, or of another network.
    """
    if weights == "random":
        return factored("vgg16", COMPACT_RANKS)
    file = _weights_at(Path(weights).expanduser(), "compact") if weights else shipped_compact()
    try:
        with safe_open(file, framework="pt") as stored:
            described = json.loads((stored.metadata() or {})["impasto"])
            state = {key: stored.get_tensor(key).float() for key in stored.keys()}  # noqa: SIM118
        if described["loss_network"] != "compact" or described["format"] != COMPACT_FORMAT:
            raise ValueError(f"format {described['format']}, this version reads {COMPACT_FORMAT}")
        network = factored(described["teacher"], described["ranks"])
        network.load_state_dict(state)
        _check_finite(state)
    except Exception as error:  # unfit metadata can raise errors of any class
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: not the compact loss network ({reason})") from error
    return network


def shipped_compact() -> Path:
    """Return the file of the compact network that comes with the project.

    Raises:
        ValueError: it is missing.
    """
    for folder in CHECKPOINTS:
        if (file := folder / COMPACT_FILE).is_file():
            return file
    raise ValueError(
        f"the compact loss network, {CHECKPOINTS[0] / COMPACT_FILE}, is missing: "
        "install impasto anew"
    )
