"""Small ONNX files, made without torch's exporter: a graph that gives back the photo, with impasto's metadata."""

import json
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

DESCRIBED: dict[str, Any] = {
    "format": 2, "network": "TransformNet", "styles": [{"name": "wave", "title": "The Great Wave"}],
    "arguments": {"num_styles": 1, "width": 4, "residual_blocks": 0, "canvas": 0.0, "grain": 0.0,
                  "upsampling": "nearest"},
}  # fmt: skip


def properties(pixels: str = "uint8", **changes: str) -> dict[str, str]:
    """What an export says of itself."""
    return {
        "impasto": json.dumps(DESCRIBED), "styles": json.dumps(DESCRIBED["styles"]), "pixels": pixels,
        "precision": "fp32", "quantize": "none", "part": "whole", "reach": "25", **changes,
    }  # fmt: skip


def exported(
    path: Path, about: dict[str, str] | None = None, operator: str = "Identity", output: str = "stylized"
) -> Path:
    """The file; of `operator`, such as Neg, the picture is made."""
    about = properties() if about is None else about
    kind = TensorProto.FLOAT if about.get("pixels") == "float32" else TensorProto.UINT8
    shape: list[Any] = ["b", 3, "h", "w"] if kind == TensorProto.FLOAT else ["b", "h", "w", 3]
    value = helper.make_tensor_value_info
    nodes = [helper.make_node(operator, ["photo"], [output])]
    graph = helper.make_graph(nodes, "g", [value("photo", kind, shape)], [value(output, kind, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    helper.set_model_props(model, about)
    onnx.save(model, path)
    return path
