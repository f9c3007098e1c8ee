"""The frozen loss network: named VGG features of an image, and where the weights come from."""

import json
import os
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.error import URLError

import safetensors.torch
import torch
import torchvision
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Teacher = Literal["vgg19", "vgg16"]
LossNetwork = Literal[Teacher, "compact"]

# What comes with the project: in a checkout, and in an installed wheel.
CHECKPOINTS = (Path(__file__).parents[2] / "checkpoints", Path(__file__).parent / "checkpoints")
COMPACT_FILE = "compact.safetensors"
COMPACT_FORMAT = 1
COMPACT_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu4_2", "relu5_1")  # those it predicts
COMPACT_RANKS = (16, 32, 72, 144, 256)
# torchvision's own files (IMAGENET1K_V1); the second name is the convolutions alone.
WEIGHT_FILES: dict[str, tuple[str, ...]] = {
    "vgg19": ("vgg19-dcbb9e9d.pth", "vgg19-features.pth"),
    "vgg16": ("vgg16-397923af.pth", "vgg16-features.pth"),
    "compact": (COMPACT_FILE,),
}
DOWNLOAD = "https://download.pytorch.org/models/"
# The statistics these networks were trained with (torchvision's documentation of the weights).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class FeatureNetwork(nn.Module):
    """VGG features by layer name, frozen; nothing past the deepest layer asked for is built.

    With `checkpointing` set, the layers that nobody asks for keep only what their pooling and ReLU leave; the rest is
    computed anew for the gradient (Chen et al. 2016): less memory, more time.

    Args:
        name: vgg19 or vgg16 (Simonyan & Zisserman 2015), or compact: ours, which predicts their features.
        layers: names of ReLU outputs, such as `relu4_2`: block 4, second convolution, after the ReLU.
        weights: a file or a folder holding the weights, `random` for tests; None looks as `find_weights` says.
        network: layers to use instead of loading any (`factored`).

    Raises:
        ValueError: unknown network or layer, or weights that cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: LossNetwork, layers: Sequence[str], weights: str | None = None, network: nn.Sequential | None = None
    ) -> None:
        super().__init__()
        if name not in get_args(LossNetwork):
            raise ValueError(f"loss network {name!r}: choose one of {', '.join(get_args(LossNetwork))}")
        self.layers = tuple(layers)
        self.checkpointing = False
        random = weights == "random"
        if network is None:
            network = _load_compact(weights) if name == "compact" else _architecture(name, random)
        names = layer_names(network)
        known = COMPACT_LAYERS if name == "compact" else [layer for layer in names if layer.startswith("relu")]
        if unknown := set(layers) - set(known):
            raise ValueError(f"{name} has no layer {', '.join(sorted(unknown))}: choose from {', '.join(known)}")
        depth = max(names.index(layer) for layer in layers) + 1
        self.network, self.names = _pooled_first(network[:depth], names[:depth], layers)
        self.smallest = 2 ** sum(layer.startswith("pool") for layer in self.names)
        if name != "compact" and not random:
            _load_convolutions(self.network, find_weights(name, weights))
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stays in evaluation mode whatever its owner does."""
        return super().train(False)

    def forward(self, image: Float[Tensor, "b 3 h w"], layers: Collection[str] | None = None) -> dict[str, Tensor]:
        """Features B×C×H'×W' by layer name: those of `walk`, all at once."""
        return dict(self.walk(image, layers))

    def walk(
        self, image: Float[Tensor, "b 3 h w"], layers: Collection[str] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Names and features B×C×H'×W' of an RGB image in [0, 1], layer by layer; the normalization happens here.

        What is computed from a layer before the walk goes on has its gradient taken when the layer's turn comes, not
        first of all and kept till then: memory for the largest layers.

        Args:
            image: RGB in [0, 1].
            layers: those wanted, of the network's; nothing is computed past the deepest. None: all.

        Raises:
            ValueError: the image is too small for the deepest layer.
        """
        if min(image.shape[-2:]) < self.smallest:
            raise ValueError(
                f"image of {image.shape[-1]}×{image.shape[-2]} pixels: the loss network needs at least "
                f"{self.smallest}×{self.smallest} for {self.names[-1]}"
            )
        x = (image - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        wanted = set(self.layers if layers is None else layers)
        for layer, block in _blocks(self.names, self.network, self.layers):
            if not wanted:
                return
            # What is asked for is kept in any case, by the Gram matrix.
            x = _in_parts(block, x) if self.checkpointing and layer not in self.layers else block(x)
            if layer in wanted:
                yield layer, x
                wanted.remove(layer)


def _blocks(names: list[str], network: nn.Sequential, layers: Collection[str]) -> Iterator[tuple[str, nn.Sequential]]:
    """A convolution with what follows it, up to the next or to a layer that is asked for; by the name of its last."""
    begin = 0
    for end, name in enumerate(names, 1):
        if name in layers or names[end].startswith("conv"):
            yield name, network[begin:end]
            begin = end


def _in_parts(block: nn.Sequential, x: Tensor) -> Tensor:
    """The block, of which only the output is kept; the rest is computed anew, a quarter of the channels at a time:
    pooling and ReLU look at each alone, and conv1_2's output, with its gradient, would be the most of all memory."""
    first, rest = block[0], block[1:]
    if not isinstance(first, nn.Conv2d):
        return checkpoint(block, x, use_reentrant=False)
    assert first.bias is not None
    parts = zip(first.weight.chunk(4), first.bias.chunk(4), strict=True)
    return torch.cat(
        [checkpoint(lambda w, b: rest(F.conv2d(x, w, b, padding=1)), *p, use_reentrant=False) for p in parts], 1
    )


def _pooled_first(network: nn.Sequential, names: list[str], layers: Collection[str]) -> tuple[nn.Sequential, list[str]]:
    """Where nobody asks for a ReLU's output, the pooling after it goes before it: the same values and gradients, a
    quarter of the work."""
    parts = list(zip(names, network, strict=True))
    for i, (before, after) in enumerate(pairwise(names)):
        if before.startswith("relu") and before not in layers and after.startswith("pool"):
            parts[i], parts[i + 1] = parts[i + 1], parts[i]
    return nn.Sequential(*(module for _, module in parts)), [name for name, _ in parts]


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
    network = _architecture(teacher, random=False).to_empty(device="cpu")
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
            network[index] = FactoredConvolution(inputs, outputs, min(ranks[int(name[4]) - 1], outputs))
            inputs = outputs
    return network


def _architecture(name: LossNetwork, random: bool) -> nn.Sequential:
    """torchvision's convolutions: without values, or with the same random ones in every process."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu" if random else "meta"):
        torch.manual_seed(0)
        return getattr(torchvision.models, name)(weights=None).features


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
        if weights or not path.is_dir() or any((path / known).is_file() for known in WEIGHT_FILES[name]):
            return _weights_at(path, name)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / file
    if not cached.exists():
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(DOWNLOAD + file, str(cached), hash_prefix=Path(file).stem[-8:])
        except (URLError, OSError, RuntimeError) as error:
            raise ValueError(
                f"no weights for {name}: none given (--[model.]loss.weights PATH, or the variable IMPASTO_WEIGHTS: a "
                f"folder with {file}, or a file), none in torch's cache ({cached}), and the download of "
                f"{DOWNLOAD}{file} failed: {' '.join(str(error).split())}. --[model.]loss.network compact needs none"
            ) from error
    return cached


def _weights_at(path: Path, name: LossNetwork) -> Path:
    candidates = [path / file for file in WEIGHT_FILES[name]] if path.is_dir() else [path]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked_for = " or ".join(WEIGHT_FILES[name]) if path.is_dir() else "such file or folder"
    raise ValueError(f"weights for {name}: {path} holds no {looked_for} (weights: PATH, or IMPASTO_WEIGHTS)")


def _load_convolutions(network: nn.Sequential, file: Path) -> None:
    """Fills the convolutions from torchvision's keys (`features.0.weight`); other keys, the classifier, are left."""
    wanted = [f"{index}.{part}" for index, module in enumerate(network) if isinstance(module, nn.Conv2d)
              for part in ("weight", "bias")]  # fmt: skip
    try:
        stored = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        state = {key: stored[f"features.{key}"].float().clone() for key in wanted}
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        if wrong := [key for key in wanted if state[key].shape != shapes[key]]:
            raise ValueError(f"features.{wrong[0]} has another shape")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: not the weights of this network in torchvision's layout ({reason})") from error
    network.load_state_dict(state, assign=True)


def save_compact(path: Path, network: nn.Sequential, teacher: Teacher, ranks: Sequence[int], **about: Any) -> Path:
    """Writes the compact loss network in half precision, with its teacher, ranks and what else is said of it."""
    described = {"format": COMPACT_FORMAT, "loss_network": "compact", "teacher": teacher, "ranks": list(ranks), **about}
    state = {name: value.detach().half().cpu().contiguous() for name, value in network.state_dict().items()}
    path.write_bytes(safetensors.torch.save(state, metadata={"impasto": json.dumps(described)}))
    return path


def _load_compact(weights: str | None) -> nn.Sequential:
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
    except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: not the compact loss network ({reason})") from error
    return network


def _shipped_compact() -> Path:
    for folder in CHECKPOINTS:
        if (file := folder / COMPACT_FILE).is_file():
            return file
    raise ValueError(f"the compact loss network, {CHECKPOINTS[0] / COMPACT_FILE}, is missing: install impasto anew")
