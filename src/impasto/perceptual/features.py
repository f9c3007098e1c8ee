"""The frozen loss network, which gives features of an image by layer name."""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import pairwise
from typing import get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from impasto.perceptual.vgg import (
    COMPACT_LAYERS,
    LossNetwork,
    architecture,
    find_weights,
    layer_names,
    load_compact,
    load_convolutions,
    width,
)

# Normalization with which these networks were trained (torchvision's documentation of the weights).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BAND = 64  # least number of rows in a band of `Bands`, which has at most eight bands


class FeatureNetwork(nn.Module):
    """A frozen VGG that returns features by layer name, built up to the deepest layer requested.

    Args:
        name: vgg19 or vgg16 (Simonyan & Zisserman 2015), or compact, this project's network that
            predicts their features.
        layers: names of the ReLU outputs to return. `relu4_2` is block 4, second convolution,
            after the ReLU.
        weights: a file or folder with the weights, or `random` for tests; None: see `find_weights`.
        network: layers to use instead of loading any, such as those of `factored`.

    Attributes:
        checkpointing: whether to save memory at the cost of time (Chen et al. 2016). The first
            three blocks are then computed in bands of rows (`Bands`). Of later layers that are not
            requested, only the output after ReLU and pooling is kept. Backward recomputes the rest.
        smallest: least side, in pixels, of an image that reaches the deepest layer.

    Raises:
        ValueError: unknown network or layer, or weights that are missing or unfit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: LossNetwork,
        layers: Sequence[str],
        weights: str | None = None,
        network: nn.Sequential | None = None,
    ) -> None:
        super().__init__()
        if name not in get_args(LossNetwork):
            raise ValueError(
                f"loss network {name!r}: choose one of {', '.join(get_args(LossNetwork))}"
            )
        self.layers = tuple(layers)
        self.checkpointing = False
        random = weights == "random"
        if network is None:
            network = load_compact(weights) if name == "compact" else architecture(name, random)
        names = layer_names(network)
        known = (
            COMPACT_LAYERS
            if name == "compact"
            else [layer for layer in names if layer.startswith("relu")]
        )
        if unknown := set(layers) - set(known):
            raise ValueError(
                f"{name} has no layer {', '.join(sorted(unknown))}: choose from {', '.join(known)}"
            )
        depth = max(names.index(layer) for layer in layers) + 1
        self.network, self.names = _pooled_first(network[:depth], names[:depth], layers)
        self.smallest = 2 ** sum(layer.startswith("pool") for layer in self.names)
        if name != "compact" and not random:
            load_convolutions(self.network, find_weights(name, weights))
        self.requires_grad_(False).eval()
        self.to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stay in evaluation mode, also when the module that owns this one is trained."""
        return super().train(False)

    def forward(
        self, image: Float[Tensor, "b 3 h w"], layers: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """Return features B×C×H'×W' by layer name: the results of `walk`, all at once."""
        return {layer: whole(features) for layer, features in self.walk(image, layers)}

    def walk(
        self, image: Float[Tensor, "b 3 h w"], layers: Collection[str] | None = None
    ) -> Iterator[tuple[str, "Tensor | Bands"]]:
        """Yield the name and the features B×C×H'×W' of each requested layer, in order of depth.

        Compute a layer's loss before asking for the next layer. Backward then reaches that loss
        just before its layer, so its large gradient is not held meanwhile.

        With `checkpointing`, layers of the first three blocks come as `Bands`. Use them before
        asking for the next layer too (`Bands.sum`, `whole`).

        Args:
            image: RGB in [0, 1], normalized here.
            layers: a selection of the network's `layers`; None: all. Nothing past the deepest of
                them is computed.

        Raises:
            ValueError: the image is smaller than `smallest`.
        """
        if min(image.shape[-2:]) < self.smallest:
            raise ValueError(
                f"image of {image.shape[-1]}×{image.shape[-2]} pixels: the loss network needs "
                f"at least {self.smallest}×{self.smallest} for {self.names[-1]}"
            )
        x = (image - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        wanted = set(self.layers if layers is None else layers)
        begin = 0
        for number in (1, 2, 3):
            if not self.checkpointing or f"pool{number}" not in self.names:
                break
            pool, end = (
                self.names.index(name) for name in (f"pool{number}", f"conv{number + 1}_1")
            )
            for layer in [name for name in self.names[begin:end] if name in wanted]:
                yield layer, Bands(self.network[begin : self.names.index(layer) + 1], x)
                wanted.remove(layer)
            if wanted:
                x = Bands(self.network[begin:pool], x, self.network[pool:end]).whole()
            begin = end
        for layer, block in _blocks(self.names[begin:], self.network[begin:], self.layers):
            if not wanted:
                return
            # Requested layers need no checkpoint: the loss keeps them for backward anyway.
            x = _in_parts(block, x) if self.checkpointing and layer not in self.layers else block(x)
            if layer in wanted:
                yield layer, x
                wanted.remove(layer)


class Bands:
    """Features of a VGG block that are not stored, but computed when needed, in bands of rows.

    A layer of the first block has 64 values per pixel, and its gradient as many.

    Args:
        network: 3×3 convolutions and ReLUs, which keep the size of the image.
        image: input of the block, B×C×H×W.
        after: layers to apply to each band, such as pooling; None: none.

    Attributes:
        halo: rows beyond each edge of a band that its features depend on.
        shape: shape of the features before `after`.
        rows: rows of each band.
    """

    def __init__(
        self, network: nn.Sequential, image: Tensor, after: nn.Sequential | None = None
    ) -> None:
        self.network, self.image, self.after = network, image, after or nn.Sequential()
        self.halo = sum(not isinstance(module, nn.ReLU) for module in network)
        self.shape = torch.Size([len(image), width(network), *image.shape[-2:]])
        number = min(8, max(1, image.shape[-2] // BAND))
        edges = [i * image.shape[-2] // number // 2 * 2 for i in range(number)] + [image.shape[-2]]
        self.rows = [slice(top, bottom) for top, bottom in pairwise(edges)]

    def whole(self) -> Float[Tensor, "b c _ _"]:
        """Return the features in one tensor; backward recomputes them band by band."""
        return torch.cat(
            [checkpoint(self._band, rows, use_reentrant=False) for rows in self.rows], 2
        )

    def sum(self, of: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """Return Σ `of(features, rows)` over the bands; backward recomputes the features."""
        made = [
            checkpoint(lambda rows: of(self._band(rows), rows), rows, use_reentrant=False)
            for rows in self.rows
        ]
        return torch.stack(made).sum(0)

    def _band(self, rows: slice) -> Tensor:
        """Return some rows of the features."""
        # Rows at a cut would see zero padding. So compute `halo` more rows, and drop them.
        top = max(0, rows.start - self.halo)
        seen = self.network(self.image[:, :, top : rows.stop + self.halo])
        return self.after(seen[:, :, rows.start - top : rows.stop - top])


def whole(features: Tensor | Bands) -> Float[Tensor, "b c h w"]:
    """Return features as one tensor, B×C×H×W."""
    return features if isinstance(features, Tensor) else features.whole()


def _blocks(
    names: list[str], network: nn.Sequential, layers: Collection[str]
) -> Iterator[tuple[str, nn.Sequential]]:
    """Yield groups of layers, each with the name of its last layer.

    A group ends before the next convolution, and after each requested layer.
    """
    begin = 0
    for end, name in enumerate(names, 1):
        if name in layers or names[end].startswith("conv"):
            yield name, network[begin:end]
            begin = end


def _in_parts(block: nn.Sequential, x: Tensor) -> Tensor:
    """Return `block(x)` and keep only x and the result for backward.

    Backward recomputes the block for a quarter of the channels at a time, since pooling and ReLU
    treat each channel alone. The convolution's output and gradient are then never held whole.
    """
    first, rest = block[0], block[1:]
    if not isinstance(first, nn.Conv2d):
        return checkpoint(block, x, use_reentrant=False)
    assert first.bias is not None
    parts = zip(first.weight.chunk(4), first.bias.chunk(4), strict=True)
    return torch.cat(
        [
            checkpoint(lambda w, b: rest(F.conv2d(x, w, b, padding=1)), *p, use_reentrant=False)
            for p in parts
        ],
        1,
    )


def _pooled_first(
    network: nn.Sequential, names: list[str], layers: Collection[str]
) -> tuple[nn.Sequential, list[str]]:
    """Put pooling before a ReLU that is not requested: same values, a quarter of the work."""
    parts = list(zip(names, network, strict=True))
    for i, (before, after) in enumerate(pairwise(names)):
        if before.startswith("relu") and before not in layers and after.startswith("pool"):
            parts[i], parts[i + 1] = parts[i + 1], parts[i]
    return nn.Sequential(*(module for _, module in parts)), [name for name, _ in parts]
