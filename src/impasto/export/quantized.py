"""Quantization of an exported network to int8, for CPUs.

Only the residual blocks and the first upsampling are quantized: there the picture changes little.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from impasto.export.compared import photo_cases
from impasto.networks import TransformNet
from impasto.networks.layers import Moments


def quantize(
    file: Path, network: TransformNet, photos: list[Path], *, pixels: str, part: bool
) -> None:
    """Rewrite an exported file with int8 arithmetic.

    Weights get a scale for each channel, features one for each layer. Measured on a photo of 512
    pixels, by the convolutions that are quantized (difference: mean, in grey levels; speed: times
    that of float32):

        the residual blocks                     difference 0.7, speed 1.35
        these and the first upsampling (taken)  difference 0.9, speed 1.5
        the blocks and one other convolution    difference 1.1 to 1.6
        all but the first and the last          difference 3.5, speed 1.75

    Args:
        file: an exported network in float32; it is replaced.
        network: the network it was exported from.
        photos: picture files, on which the ranges of the features are measured.
        pixels: see `ExportOptions`.
        part: whether the file holds a `Part` instead of a `Whole`.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        """Gives ONNX Runtime the inputs it calibrates with."""

        def __init__(self) -> None:
            self.cases = _inputs(network, photos, pixels, part)

        def get_next(self) -> dict[str, Any] | None:
            return next(self.cases, None)

    described = {item.key: item.value for item in onnx.load(file).metadata_props}
    quiet, before = logging.getLogger(), logging.getLogger().level
    quiet.setLevel(logging.ERROR)  # ONNX Runtime advises, for every file, to preprocess it first
    try:
        quantize_static(
            file, file, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            op_types_to_quantize=["Conv"], nodes_to_quantize=_convolutions(file, network),
            # With signed features, x86 would still compute most of it in float32.
            activation_type=QuantType.QUInt8,
        )  # fmt: skip
    finally:
        quiet.setLevel(before)
    model = onnx.load(file)
    onnx.helper.set_model_props(model, described)  # without quantize_static's notes
    onnx.save(model, file)


def _convolutions(file: Path, network: TransformNet) -> list[str]:
    """Return the names of the convolutions to quantize, found by the shapes of their weights.

    They are those of the residual blocks (4·width to 4·width channels) and of the first upsampling
    (4·width to 2·width).
    """
    import onnx

    graph = onnx.load(file).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    wide = 4 * network.arguments["width"]
    shapes = {(wide, wide, 3, 3), (wide // 2, wide, 3, 3)}
    return [
        node.name
        for node in graph.node
        if node.op_type == "Conv" and weights.get(node.input[1]) in shapes
    ]


def _inputs(
    network: TransformNet, photos: list[Path], pixels: str, part: bool
) -> Iterator[dict[str, Any]]:
    """Yield the inputs of the graph, as arrays by name, for each photo with a style."""
    for content, code in photo_cases(photos, network):
        given: dict[str, Tensor] = {"photo": content}
        if pixels == "uint8":
            given["photo"] = (
                (content * 255).round().permute(0, 2, 3, 1).to(torch.uint8).contiguous()
            )
        if network.num_styles > 1:
            given["style"] = code
        if part:
            moments = Moments()
            with torch.inference_mode():
                network(content, code, moments=moments)
            given |= {"statistics": moments.statistics, "origin": torch.zeros(2, dtype=torch.int64)}
        yield {name: value.numpy() for name, value in given.items()}
