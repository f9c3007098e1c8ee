"""Exported networks against PyTorch, in ONNX Runtime."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from impasto.export.graphs import ExportOptions
from impasto.images import read_image
from impasto.inference.backends import OnnxPainter
from impasto.networks import TransformNet
from impasto.networks.layers import Moments

# Height, width, batch: one pixel, smaller than the margin one way, odd, multiples of four, larger than the margin.
SIZES = ((1, 1, 1), (3, 200, 1), (37, 53, 3), (64, 64, 1), (131, 98, 1), (256, 255, 1))
# How far the file may be from PyTorch anywhere, in [0, 1]; one grey level where bytes come out.
LARGEST = {"fp32": 1e-3, "fp16": 4 / 255}
MEAN = 2 / 255  # of a photo, in eight bits: single pixels may differ by more
_PHOTO = 256  # longer side of photos


@dataclass(frozen=True)
class Difference:
    """How far a file is from PyTorch at one size: at most anywhere, and in the mean, in [0, 1]."""

    height: int
    width: int
    batch: int
    largest: float
    mean: float


def compare(
    network: TransformNet, file: Path, options: ExportOptions, photos: list[Path] | None = None
) -> list[Difference]:
    """The differences to PyTorch of the whole picture and, with a second file, of a part.

    Args:
        network: what was exported.
        file: the first file; the second, if asked for, lies beside it.
        options: what they were exported with.
        photos: to compare on, as is done for eight bits; without, on waves at each of SIZES.

    Raises:
        ValueError: a difference is larger than LARGEST, or than MEAN in eight bits.
    """
    painter = OnnxPainter(file, "cpu")
    cases = photo_cases(photos, network) if photos else _waves(network)
    found = [_difference(network, painter, options, *case) for case in cases]
    for difference in found:
        _check(difference, options)
    return found


def photo_cases(photos: list[Path], network: TransformNet) -> Iterator[tuple[Tensor, Tensor]]:
    """Each photo, 1×3×H×W in [0, 1] its longer side 256 pixels, with the code of one style after the other, 1×N."""
    for number, path in enumerate(photos):
        content = (read_image(path).resized(_PHOTO).pixels * 255).round() / 255
        yield content, network.encode_style(network.styles[number % network.num_styles])


def _waves(network: TransformNet) -> Iterator[tuple[Tensor, Tensor]]:
    """Smooth pictures with a little noise, B×3×H×W in [0, 1], each in a mixture, B×N; then all in the first, 1×N."""
    generator = torch.Generator().manual_seed(0)
    for height, width, batch in SIZES:
        y, x = torch.arange(height)[:, None] / 9, torch.arange(width) / 13
        smooth = torch.stack([0.45 + 0.45 * torch.sin(y * k + x / k) for k in (1.0, 0.7, 0.4)])
        content = smooth + 0.1 * torch.rand(batch, 3, height, width, generator=generator)
        weights = torch.rand(batch, network.num_styles, generator=generator).tolist()
        code = torch.cat([network.encode_style(dict(zip(network.styles, row, strict=True))) for row in weights])
        content = (content * 255).round() / 255
        yield content, code
        if batch > 1 and network.num_styles > 1:
            yield content, code[:1]


@torch.inference_mode()
def _difference(
    network: TransformNet, painter: OnnxPainter, options: ExportOptions, content: Tensor, code: Tensor
) -> Difference:
    moments = Moments()
    pairs = [(painter.paint(content, code), network(content, code, moments=moments))]
    if options.parts:
        statistics, origin, first, its = moments.statistics[:1], (8, 12), content[:1], code[:1]
        part = network(first, its, origin=origin, moments=Moments(statistics))
        pairs.append((painter.paint(first, its, statistics, origin), part))
    if options.pixels == "uint8":
        pairs = [(found, (wanted * 255).round() / 255) for found, wanted in pairs]
    apart = [(found - wanted).abs() for found, wanted in pairs]
    batch, _, height, width = content.shape
    largest, mean = (max(map(float, values)) for values in ((x.max() for x in apart), (x.mean() for x in apart)))
    return Difference(height, width, batch, largest, mean)


def _check(difference: Difference, options: ExportOptions) -> None:
    largest = max(LARGEST[options.precision], 1 / 255 if options.pixels == "uint8" else 0)
    found, allowed = (difference.mean, MEAN) if options.quantize == "int8" else (difference.largest, largest)
    if not found <= allowed + 1e-6:  # also NaN
        kind = "in the mean" if options.quantize == "int8" else "at most"
        raise ValueError(
            f"the exported network differs from PyTorch by {found:.2g} at {difference.width}×{difference.height}, "
            f"allowed is {allowed:.2g} {kind}; nothing was written"
        )
