"""The graphs that are exported with torch's own exporter.

`Whole` paints a picture. `Part` paints one tile of a larger picture. `Reader` gives the code of a
painting, for a network for any painting.
"""

import gc
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
from impasto.networks.reading import AnyPaintingNet


@dataclass(frozen=True)
class ExportOptions:
    """What kind of ONNX file is exported.

    Args:
        pixels: RGB format of the photo and of the stylized picture. float32: B×3×H×W in [0, 1];
            uint8: B×H×W×3 bytes, which is what apps have.
        precision: fp32, or fp16 for GPUs: half the size; on a CPU, ONNX Runtime computes most of
            an fp16 file in float32.
        opset: version of ONNX's operators, 18 to 23; most runtimes read the lowest.
        parts: also write NAME.parts.onnx, which paints one tile of a picture too large to be
            painted whole. It takes the `statistics` that the first file outputs for a smaller
            copy of the picture, and the place where the tile begins.
        quantize: none, or int8 for CPUs: most of the arithmetic in eight bits; needs photos.
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
            raise ValueError(
                f"quantize int8 with precision {self.precision}: eight bits are made from fp32 only"
            )


class Whole(nn.Module):
    """The graph that paints a whole picture: `network` with the exported inputs and outputs.

    Args:
        network: float32 or, for fp16, half precision.
        options: its `pixels`; and with `parts`, the picture's statistics are a second output.
    """

    def __init__(self, network: TransformNet, options: ExportOptions) -> None:
        super().__init__()
        self.network, self.pixels, self.parts = network, options.pixels, options.parts

    def forward(self, photo: Tensor, style: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the stylized picture and, with `parts`, its statistics.

        Args:
            photo: B×3×H×W in [0, 1], or B×H×W×3 bytes.
            style: code of the style, B×N or 1×N; None where N = 1.

        Returns:
            The picture, in the format and size of the photo. Then variance and mean of every
            channel of every normalization, B×S float32 (`Moments.statistics`).
        """
        moments = Moments() if self.parts else None
        stylized = self._out(self.network(self._in(photo), _of_each(photo, style), moments=moments))
        return (stylized, moments.statistics) if moments else stylized

    def _in(self, photo: Tensor) -> Tensor:
        content = photo.permute(0, 3, 1, 2).float() / 255 if self.pixels == "uint8" else photo
        return content.to(self.network.to_rgb.weight.dtype)

    def _out(self, stylized: Tensor) -> Tensor:
        if self.pixels == "uint8":
            return (
                (stylized.float() * 255).round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)
            )
        return stylized.float()


class Part(Whole):
    """The graph that paints one part of a picture, under the statistics of the whole picture."""

    def forward(  # type: ignore[override]
        self,
        photo: Tensor,
        statistics: Float[Tensor, "1 s"],
        origin: Int[Tensor, "2"],
        style: Tensor | None = None,
    ) -> Tensor:
        """Return the stylized part, in the format and size of `photo`.

        Args:
            photo: the part, as in `Whole`.
            statistics: 1×S, of the whole picture or of a smaller copy, as `Whole` returns them.
            origin: where in the whole picture the part begins, in pixels (down, right).
            style: as in `Whole`.
        """
        moments = Moments(statistics)
        return self._out(
            self.network(self._in(photo), _of_each(photo, style), origin=origin, moments=moments)
        )


class Reader(nn.Module):
    """The graph that gives the code of a painting, for a network for any painting."""

    def __init__(self, network: AnyPaintingNet) -> None:
        super().__init__()
        self.network, self.reader = network, network.reader

    def forward(self, painting: Float[Tensor, "1 3 _ _"]) -> Float[Tensor, "1 n"]:
        """Return the code of a painting 1×3×H×W in [0, 1], scaled down as `for_reading` does."""
        return self.network.read(painting)


def _of_each(photo: Tensor, style: Tensor | None) -> Tensor | None:
    """Return a code for each photo, B×N, from codes B×N or 1×N.

    Rows are picked by index. Broadcasting would make the exporter take the two batch sizes for one
    and the same; `len` would fix them to those of the example.
    """
    if style is None:
        return None
    last = torch.arange(style.shape[0])[-1]
    return style[torch.minimum(torch.arange(photo.shape[0]), last)]


def exported(network: TransformNet, graph: Whole, options: ExportOptions) -> bytes:
    """Return the bytes of the ONNX file of one graph that paints."""
    part = isinstance(graph, Part)
    inputs, shapes = _inputs(network, options, part)
    outputs = ["stylized", "statistics"] if options.parts and not part else ["stylized"]
    properties = _properties(network, options, "part" if part else "whole")
    return _onnx(graph, inputs, shapes, outputs, options.opset, properties)


def exported_reader(network: AnyPaintingNet, options: ExportOptions) -> bytes:
    """Return the bytes of the ONNX file that gives the code of a painting, always in float32."""
    inputs = {"painting": torch.rand(1, 3, 70, 90)}
    shapes = {"painting": {2: Dim("height", min=16), 3: Dim("width", min=16)}}
    properties = _properties(network, options, "style")
    return _onnx(Reader(network), inputs, shapes, ["style"], options.opset, properties)


def _onnx(
    graph: nn.Module,
    inputs: dict[str, Tensor],
    shapes: Any,
    outputs: list[str],
    opset: int,
    properties: dict[str, str],
) -> bytes:
    """Return a graph as ONNX, with properties.

    The exporter's notes at nodes and values, which name places in our source, are removed.
    """
    import onnx

    with _quiet():
        program = torch.onnx.export(
            graph.eval(), kwargs=inputs, dynamo=True, opset_version=opset, verbose=False,
            dynamic_shapes=shapes, input_names=list(inputs), output_names=outputs,
        )  # fmt: skip
    assert program is not None
    model = program.model_proto
    for item in (
        *model.graph.node,
        *model.graph.value_info,
        *model.graph.input,
        *model.graph.output,
    ):
        del item.metadata_props[:]
        item.doc_string = ""
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _inputs(
    network: TransformNet, options: ExportOptions, part: bool
) -> tuple[dict[str, Tensor], Any]:
    """Return example inputs by name and, for each, the axes whose size stays free."""
    photo = torch.rand(2, 3, 37, 45)
    style = network.example_codes(2, torch.Generator().manual_seed(0))
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
    """Return the metadata of the file, as strings, readable without impasto."""
    metadata = describe(network, **network.metadata)
    styles = metadata.get("styles") or [{"name": name} for name in network.styles]
    ranges = {"uint8": "RGB, bytes 0 to 255, B×H×W×3", "float32": "RGB, 0 to 1, B×3×H×W"}
    return {
        "impasto": json.dumps({**metadata, "styles": styles}), "format": str(metadata["format"]),
        "styles": json.dumps(styles), "licence": _licence(metadata.get("licence"), styles),
        "value_range": ranges[options.pixels], "pixels": options.pixels,
        "precision": options.precision, "quantize": options.quantize,
        "part": part, "reach": str(network.reach),
    }  # fmt: skip


def _licence(network: str | None, styles: list[dict[str, Any]]) -> str:
    """Return a line with the licences of the network and of the paintings it learned from."""
    paintings = ", ".join(
        f"{style['name']}: {style.get('licence', 'not stated')}" for style in styles
    )
    return f"network: {network or 'not stated'}; {paintings}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's exporter, whose warnings are of no use here (example sizes, internals).

    It also speeds it up. Python's search for unreachable objects, which took a sixth of the time,
    is off meanwhile: the exporter keeps nearly all of the many objects that it makes.
    """
    logger = logging.getLogger("torch.onnx")
    level, searching = logger.level, gc.isenabled()
    logger.setLevel(logging.ERROR)
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        if searching:
            gc.enable()
