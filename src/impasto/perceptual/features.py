"""The frozen loss network: named features of an image, whole or band by band."""

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

# The statistics these networks were trained with (torchvision's documentation of the weights).
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BAND = 64  # rows of a band of `Bands` at least; there are at most eight


class FeatureNetwork(nn.Module):
    """VGG features by layer name, frozen; nothing past the deepest layer asked for is built.

    With `checkpointing` set, it takes less memory and more time (Chen et al. 2016). The first three blocks are computed
    in bands of the picture. Later layers that nobody asks for keep only the output of their pooling and ReLU. The rest
    is computed again in the backward pass.

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
        """Stays in evaluation mode whatever its owner does."""
        return super().train(False)

    def forward(
        self, image: Float[Tensor, "b 3 h w"], layers: Collection[str] | None = None
    ) -> dict[str, Tensor]:
        """Features B×C×H'×W' by layer name: those of `walk`, all at once."""
        return {layer: whole(features) for layer, features in self.walk(image, layers)}

    def walk(
        self, image: Float[Tensor, "b 3 h w"], layers: Collection[str] | None = None
    ) -> Iterator[tuple[str, "Tensor | Bands"]]:
        """Names and features B×C×H'×W' of an RGB image in [0, 1], layer by layer; the normalization happens here.

        With `checkpointing`, layers of the first three blocks come as `Bands`, which are not to be kept.

        Compute a layer's loss before asking for the next layer. Backward then reaches that loss just before its layer,
        so its large gradient is not held meanwhile.

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
            # What is asked for is kept in any case, by the Gram matrix.
            x = _in_parts(block, x) if self.checkpointing and layer not in self.layers else block(x)
            if layer in wanted:
                yield layer, x
                wanted.remove(layer)


class Bands:
    """Features of a block, computed again whenever they are needed, in bands of rows.

    In the first block a layer is as large as 64 pictures of one channel, and so is its gradient.

    Args:
        network: convolutions of 3×3 and ReLUs, at the size of the image.
        image: what they are applied to, B×C×H×W.
        after: pooling, and what follows it.
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
        """All bands together; only they are kept for the gradient."""
        return torch.cat(
            [checkpoint(self._band, rows, use_reentrant=False) for rows in self.rows], 2
        )

    def sum(self, of: Callable[[Tensor, slice], Tensor]) -> Tensor:
        """The sum over the bands of `of(features, rows)`; only the sums are kept for the gradient."""
        made = [
            checkpoint(lambda rows: of(self._band(rows), rows), rows, use_reentrant=False)
            for rows in self.rows
        ]
        return torch.stack(made).sum(0)

    def _band(self, rows: slice) -> Tensor:
        """Some rows of the features. Rows next to a cut would see zero padding, so more are computed and cut off."""
        top = max(0, rows.start - self.halo)
        seen = self.network(self.image[:, :, top : rows.stop + self.halo])
        return self.after(seen[:, :, rows.start - top : rows.stop - top])


def whole(features: Tensor | Bands) -> Float[Tensor, "b c h w"]:
    """Features as one tensor."""
    return features if isinstance(features, Tensor) else features.whole()


def _blocks(
    names: list[str], network: nn.Sequential, layers: Collection[str]
) -> Iterator[tuple[str, nn.Sequential]]:
    """Groups of layers: a convolution and what follows it, up to the next or to a layer asked for, by its last name."""
    begin = 0
    for end, name in enumerate(names, 1):
        if name in layers or names[end].startswith("conv"):
            yield name, network[begin:end]
            begin = end


def _in_parts(block: nn.Sequential, x: Tensor) -> Tensor:
    """The block, with only its output kept. Backward computes the rest again, a quarter of the channels at a time.

    Pooling and ReLU look at each channel alone. The output of conv1_2 with its gradient would need the most memory.
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
    """Swaps a ReLU and the pooling after it where nobody asks for the ReLU: same values, a quarter of the work."""
    parts = list(zip(names, network, strict=True))
    for i, (before, after) in enumerate(pairwise(names)):
        if before.startswith("relu") and before not in layers and after.startswith("pool"):
            parts[i], parts[i + 1] = parts[i + 1], parts[i]
    return nn.Sequential(*(module for _, module in parts)), [name for name, _ in parts]
