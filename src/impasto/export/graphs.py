"""The graphs that are exported: a whole picture, or a part of one; made by torch's own exporter."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.export import Dim

from impasto.choices import OPSETS
from impasto.networks import TransformNet, describe
from impasto.networks.layers import Moments


@dataclass(frozen=True)
class ExportOptions:
    """What kind of file.

    Args:
        pixels: float32: B×3×H×W in [0, 1]; uint8: B×H×W×3 bytes, what apps have. Both RGB, and the same
            for photo and stylized picture.
        precision: fp32, or fp16: half the size, for GPUs; on a CPU, ONNX Runtime computes most of it in float32.
        opset: version of ONNX's operators, 18 to 23; the lowest reaches farthest.
        parts: a second file, NAME.parts.onnx, for pictures too large to go through whole: it takes the `statistics`
            that the first gives for a smaller copy, and where the part begins.
        quantize: int8: most of the arithmetic in eight bits, for CPUs; needs photos.
    """

    pixels: Literal["float32", "uint8"] = "float32"
    precision: Literal["fp32", "fp16"] = "fp32"
    opset: int = OPSETS[0]
    parts: bool = False
    quantize: Literal["none", "int8"] = "none"

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise ValueError(f"opset {self.opset}: must be from {OPSETS[0]} to {OPSETS[-1]}")
        if self.quantize == "int8" and self.precision != "fp32":
            raise ValueError(f"quantize int8 with precision {self.precision}: eight bits are made from fp32 only")


class Whole(nn.Module):
    """The graph of a picture: photo and code of a style in, the stylized picture and its statistics out."""

    def __init__(self, network: TransformNet, pixels: str) -> None:
        super().__init__()
        self.network, self.pixels = network, pixels

    def forward(self, photo: Tensor, style: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The stylized picture, as the photo, and its statistics B×S, float32.

        Args:
            photo: B×3×H×W in [0, 1], or B×H×W×3 bytes.
            style: its code, B×N or 1×N; none where N = 1.
        """
        moments = Moments()
        stylized = self._out(self.network(self._in(photo), _of_each(photo, style), moments=moments))
        return stylized, moments.statistics

    def _in(self, photo: Tensor) -> Tensor:
        content = photo.permute(0, 3, 1, 2).float() / 255 if self.pixels == "uint8" else photo
        return content.to(self.network.to_rgb.weight.dtype)

    def _out(self, stylized: Tensor) -> Tensor:
        if self.pixels == "uint8":
            return (stylized.float() * 255).round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)
        return stylized.float()


class Part(Whole):
    """The graph of a part of a picture: as `Whole`, with the statistics of the whole and where the part begins."""

    def forward(  # type: ignore[override]
        self, photo: Tensor, statistics: Float[Tensor, "1 s"], origin: Int[Tensor, "2"], style: Tensor | None = None
    ) -> Tensor:
        moments = Moments(statistics)
        return self._out(self.network(self._in(photo), _of_each(photo, style), origin=origin, moments=moments))


def _of_each(photo: Tensor, style: Tensor | None) -> Tensor | None:
    """A code for each photo, B×N, from B×N or 1×N.

    By index: broadcasting would make the exporter take the two batches for one. `len` would fix their sizes.
    """
    if style is None:
        return None
    last = torch.arange(style.shape[0])[-1]
    return style[torch.minimum(torch.arange(photo.shape[0]), last)]


def exported(network: TransformNet, graph: Whole, options: ExportOptions) -> bytes:
    """The file of one graph, without what the exporter notes on its way (places in our source among it)."""
    import onnx

    part = isinstance(graph, Part)
    inputs, shapes = _inputs(network, options, part)
    with _quiet():
        program = torch.onnx.export(
            graph.eval(), kwargs=inputs, dynamo=True, opset_version=options.opset, verbose=False,
            dynamic_shapes=shapes, input_names=list(inputs),
            output_names=["stylized"] if part else ["stylized", "statistics"],
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
    onnx.helper.set_model_props(model, _properties(network, options, "part" if part else "whole"))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _inputs(network: TransformNet, options: ExportOptions, part: bool) -> tuple[dict[str, Tensor], Any]:
    """Examples by name, and which of their sides are free."""
    photo = torch.rand(2, 3, 37, 45)
    style = network.encode_style(dict.fromkeys(network.styles, 1)).expand(2, -1)
    free = Dim.DYNAMIC
    inputs: dict[str, Tensor] = {"photo": photo}
    shapes: dict[str, Any] = {"photo": {0: free, 2: free, 3: free}}
    if options.pixels == "uint8":
        inputs["photo"] = (photo * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        shapes["photo"] = {0: free, 1: free, 2: free}
    if part:
        moments = Moments()
        with torch.no_grad():
            network(photo, style, moments=moments)
        inputs |= {"statistics": moments.statistics[:1], "origin": torch.tensor([4, 8])}
        shapes |= {"statistics": {}, "origin": {}}
    if network.num_styles > 1:
        inputs, shapes = inputs | {"style": style}, shapes | {"style": {0: free}}
    return inputs, shapes


def _properties(network: TransformNet, options: ExportOptions, part: str) -> dict[str, str]:
    """What the file says of itself; every value can be read with `onnx` alone."""
    metadata = describe(network, **network.metadata)
    styles = metadata.get("styles") or [{"name": name} for name in network.styles]
    ranges = {"uint8": "RGB, bytes 0 to 255, B×H×W×3", "float32": "RGB, 0 to 1, B×3×H×W"}
    return {
        "impasto": json.dumps({**metadata, "styles": styles}), "format": str(metadata["format"]),
        "styles": json.dumps(styles), "licence": _licence(metadata.get("licence"), styles),
        "value_range": ranges[options.pixels], "pixels": options.pixels, "precision": options.precision,
        "quantize": options.quantize,
        "part": part, "reach": str(network.reach),
    }  # fmt: skip


def _licence(network: str | None, styles: list[dict[str, Any]]) -> str:
    """Of the network, and of the paintings it was made from."""
    paintings = ", ".join(f"{style['name']}: {style.get('licence', 'not stated')}" for style in styles)
    return f"network: {network or 'not stated'}; {paintings}"


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what is settled here (example sizes, its own internals)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
