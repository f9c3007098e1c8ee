"""Comparison of an exported network in ONNX Runtime with the network in PyTorch."""

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
from impasto.networks.reading import AnyPaintingNet

# Height, width and batch of the test inputs. The cases: one pixel; one side below the network's
# margin of 32; odd sides; multiples of four; sides well above the margin.
SIZES = ((1, 1, 1), (3, 200, 1), (37, 53, 3), (64, 64, 1), (131, 98, 1), (256, 255, 1))
# The largest difference allowed at any pixel, for values in [0, 1]. With byte pixels at least one
# grey level, 1/255, is allowed.
LARGEST = {"fp32": 1e-3, "fp16": 4 / 255}
MEAN = 2 / 255  # the mean difference allowed on a photo in int8; single pixels may differ by more
_PHOTO = 256  # longer side in pixels to which photos are resized


@dataclass(frozen=True)
class Difference:
    """How far an export is from PyTorch on one input.

    Args:
        height: of the input in pixels.
        width: of the input in pixels.
        batch: pictures in the input.
        largest: the largest absolute difference at any pixel; pixels are in [0, 1].
        mean: the mean absolute difference, in the same unit.
    """

    height: int
    width: int
    batch: int
    largest: float
    mean: float


def compare(
    network: TransformNet, file: Path, options: ExportOptions, photos: list[Path] | None = None
) -> list[Difference]:
    """Return the differences between an export and PyTorch, one for each test input.

    Args:
        network: the network that was exported.
        file: the first file of the export; with `options.parts`, the second lies beside it and is
            compared too.
        options: the options of the export.
        photos: picture files to compare on, as for int8; None or empty: generated pictures at each
            of SIZES.

    Raises:
        ValueError: a largest difference is above LARGEST or, with int8, a mean one above MEAN.
    """
    painter = OnnxPainter(file, "cpu")
    if isinstance(network, AnyPaintingNet):
        _check_codes(network, painter)
    cases = photo_cases(photos, network) if photos else _waves(network)
    found = [_difference(network, painter, options, *case) for case in cases]
    for difference in found:
        _check(difference, options)
    return found


@torch.inference_mode()
def _check_codes(network: AnyPaintingNet, painter: OnnxPainter) -> None:
    """Raise `ValueError` if the exported reader gives other codes than PyTorch."""
    generator = torch.Generator().manual_seed(0)
    for shape in ((16, 16), (37, 131), (300, 200), (700, 500)):
        painting = [(torch.rand(1, 3, *shape, generator=generator), 1.0)]
        apart = float((painter.encode_style(painting) - network.encode_style(painting)).abs().max())
        if not apart <= LARGEST["fp32"]:  # so written, NaN fails too
            raise ValueError(
                f"the exported reader of paintings differs from PyTorch by {apart:.2g} "
                f"at {shape[1]}×{shape[0]}; nothing was written"
            )


def photo_cases(photos: list[Path], network: TransformNet) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each photo with the code of a style; photo i gets style i mod N, or a random painting.

    The photo is 1×3×H×W in [0, 1], of 256 pixels on its longer side, in steps of 1/255. The code
    is 1×N.
    """
    codes = torch.eye(network.num_styles)
    if network.any_picture:
        codes = network.example_codes(8, torch.Generator().manual_seed(0))
    for number, path in enumerate(photos):
        content = (read_image(path).resized(_PHOTO).pixels * 255).round() / 255
        yield content, codes[number % len(codes)][None]


def _waves(network: TransformNet) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield smooth pictures with a little noise, at each of SIZES, with codes of random mixtures.

    The pictures are B×3×H×W in [0, 1]. The code has a row for each picture, B×N. A batch comes a
    second time with the first row alone, 1×N, which then holds for all pictures.
    """
    generator = torch.Generator().manual_seed(0)
    for height, width, batch in SIZES:
        y, x = torch.arange(height)[:, None] / 9, torch.arange(width) / 13
        smooth = torch.stack([0.45 + 0.45 * torch.sin(y * k + x / k) for k in (1.0, 0.7, 0.4)])
        content = smooth + 0.1 * torch.rand(batch, 3, height, width, generator=generator)
        code = network.example_codes(batch, generator)
        content = (content * 255).round() / 255
        yield content, code
        if batch > 1 and network.num_styles > 1:
            yield content, code[:1]


@torch.inference_mode()
def _difference(
    network: TransformNet,
    painter: OnnxPainter,
    options: ExportOptions,
    content: Tensor,
    code: Tensor,
) -> Difference:
    """Return the difference on one input: the larger of the whole picture's and the part's."""
    moments = Moments()
    pairs = [(painter.paint(content, code), network(content, code, moments=moments))]
    if options.parts:
        statistics, origin, first, first_code = (
            moments.statistics[:1],
            (8, 12),
            content[:1],
            code[:1],
        )
        part = network(first, first_code, origin=origin, moments=Moments(statistics))
        pairs.append((painter.paint(first, first_code, statistics, origin), part))
    if options.pixels == "uint8":
        pairs = [(found, (wanted * 255).round() / 255) for found, wanted in pairs]
    apart = [(found - wanted).abs() for found, wanted in pairs]
    batch, _, height, width = content.shape
    largest, mean = (
        max(map(float, values)) for values in ((x.max() for x in apart), (x.mean() for x in apart))
    )
    return Difference(height, width, batch, largest, mean)


def _check(difference: Difference, options: ExportOptions) -> None:
    """Raise `ValueError` if a difference is above what LARGEST or MEAN allows."""
    largest = max(LARGEST[options.precision], 1 / 255 if options.pixels == "uint8" else 0)
    found, allowed = (
        (difference.mean, MEAN) if options.quantize == "int8" else (difference.largest, largest)
    )
    if not found <= allowed + 1e-6:  # so written, NaN fails too
        kind = "in the mean" if options.quantize == "int8" else "at most"
        raise ValueError(
            f"the exported network differs from PyTorch by {found:.2g} "
            f"at {difference.width}×{difference.height}, "
            f"allowed is {allowed:.2g} {kind}; nothing was written"
        )
