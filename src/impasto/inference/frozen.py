"""A network for one style and one scene, as a small ONNX graph without norms: for real time.

With fixed statistics, an instance norm is a scale and an offset of each channel. Both go into the
weights of the convolution before it. What is left are convolutions, which ONNX Runtime chains
without a copy: at 640×480 pixels, a network for real time then needs 0.7 of the time.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from impasto.inference.backends import opened_session
from impasto.networks import TransformNet
from impasto.networks.adain import AdaINNet
from impasto.networks.layers import (
    ConvNormRelu,
    Convolution,
    Moments,
    ResidualBlock,
    SeparableConvolution,
)
from impasto.networks.preprocess import canvas, padding

_OPSET = 18

Frame = UInt8[np.ndarray, "h w 3"]


class FrozenPainter:
    """Paints frames of one size, with the statistics of one of them.

    `frozen = FrozenPainter(network, code, frame)`, then `frozen(frame)` for each frame.

    Args:
        network: on the CPU.
        code: the style, from the network's `encode_style`.
        frame: H×W×3; its statistics are those of all frames.
        threads: of ONNX Runtime; 0: as many as it takes.

    Raises:
        ValueError: the network cannot be frozen (adaptive instance norm, or a filter of grain), the
            frame is not larger than the network's margin, or the extra `export` is not installed.
    """

    def __init__(
        self, network: TransformNet, code: Float[Tensor, "1 n"], frame: Frame, threads: int = 0
    ) -> None:
        if what := unfrozen(network):
            raise ValueError(f"the network has {what}: it cannot be frozen")
        least = network.margin + network.multiple
        if min(frame.shape[:2]) <= least:
            height, width = frame.shape[:2]
            raise ValueError(f"frames of {width}×{height}: sides must be above {least} pixels")
        moments = Moments()
        content = torch.tensor(frame).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            network(content, code, moments=moments)
        self.statistics = moments.statistics
        model = _model(network, code, self.statistics, content)
        self._session = opened_session(model, "the frozen network", threads=threads)

    def __call__(self, frame: Frame) -> Frame:
        """Return the painted frame, H×W×3."""
        stylized: Frame = self._session.run(None, {"photo": frame[None]})[0][0]
        return stylized


def unfrozen(network: TransformNet) -> str:
    """Return what a network has that cannot be frozen; empty: nothing."""
    if isinstance(network, AdaINNet):
        return "adaptive instance norm"
    return "a filter of grain" if network.grain else ""


class _Graph:
    """Nodes and constants of an ONNX graph, which grow call by call."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError as error:
            raise ValueError("ONNX is not installed: pip install 'impasto[export]'") from error
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def __call__(self, operator: str, x: str, *constants: Any, **attributes: Any) -> str:
        """Add a node, and return the name of its output.

        Args:
            operator: of ONNX.
            x: name of the first input.
            constants: further inputs: names, or values that become constants.
            attributes: of the operator.
        """
        names = [x]
        for value in constants:
            if not isinstance(value, str):
                array = value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)
                name = f"constant{len(self.constants)}"
                self.constants.append(self.onnx.numpy_helper.from_array(np.array(array), name))
                value = name
            names.append(value)
        output = f"value{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(operator, names, [output], **attributes))
        return output


def _model(
    network: TransformNet,
    code: Float[Tensor, "1 n"],
    statistics: Float[Tensor, "1 s"],
    content: Float[Tensor, "1 3 h w"],
) -> bytes:
    """Return the ONNX file: bytes 1×H×W×3 in and out, of the size of `content`."""
    add = _Graph()
    helper, number = add.onnx.helper, add.onnx.TensorProto
    height, width = content.shape[-2:]
    margin = network.margin
    x = add("Cast", add("Transpose", "photo", perm=[0, 3, 1, 2]), to=number.FLOAT)
    x = add("Mul", x, np.float32(1 / 255))
    fill = [-side % network.multiple for side in (height, width)]
    x = add("Pad", x, [0, 0, margin, margin, 0, 0, margin + fill[0], margin + fill[1]],
            mode="reflect")  # fmt: skip
    if network.canvas:
        down, right = (padding(content, axis, margin, network.multiple)[1] for axis in (-2, -1))
        x = add("Add", x, canvas(down, right, network.canvas)[None, None])
    moments = Moments(statistics)
    for layer in network.layers:
        if isinstance(layer, ResidualBlock):
            inside = _layer(add, layer.first, x, code, moments)
            x = add("Add", _layer(add, layer.second, inside, code, moments), x)
        else:
            assert isinstance(layer, ConvNormRelu)
            x = _layer(add, layer, x, code, moments)
    x = _convolution(add, network.to_rgb, x, network.to_rgb.weight, network.to_rgb.bias)
    patch = network.patch
    first, rows, columns = margin // patch, -(-height // patch), -(-width // patch)
    x = add("Slice", x, [first, first], [first + rows, first + columns], [2, 3])
    if patch > 1:
        x = add("DepthToSpace", x, blocksize=patch, mode="CRD")
        x = add("Slice", x, [0, 0], [height, width], [2, 3])  # of a square at the edge, a part
    x = add("Sigmoid", x)
    x = add("Cast", add("Round", add("Mul", x, np.float32(255))), to=number.UINT8)
    x = add("Transpose", x, perm=[0, 2, 3, 1])
    shape = [1, height, width, 3]
    photo, stylized = (
        helper.make_tensor_value_info(name, number.UINT8, shape) for name in ("photo", x)
    )
    graph = helper.make_graph(add.nodes, "frozen", [photo], [stylized], add.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    return model.SerializeToString()


def _layer(
    add: _Graph, layer: ConvNormRelu, x: str, code: Float[Tensor, "1 n"], moments: Moments
) -> str:
    """Add a convolution with its norm inside, and return its output."""
    if layer.upsampling:
        mode = {"mode": "nearest", "nearest_mode": "floor"}
        if layer.upsampling != "nearest":
            mode = {"mode": "linear"}
        asymmetric = "asymmetric" if layer.upsampling == "nearest" else "half_pixel"
        x = add("Resize", x, "", np.array([1, 1, 2, 2], np.float32),
                coordinate_transformation_mode=asymmetric, **mode)  # fmt: skip
    last = layer.convolution
    if isinstance(last, SeparableConvolution):
        x = _convolution(add, last.depthwise, x, last.depthwise.weight, last.depthwise.bias)
        last = last.pointwise
    variance, mean = moments(last.weight.transpose(0, 1))  # given: only the channels are counted
    scale = (code @ layer.norm.gamma) * torch.rsqrt(variance[..., 0, 0] + layer.norm.eps)
    offset = code @ layer.norm.beta - mean[..., 0, 0] * scale
    weight = last.weight * scale[0][:, None, None, None]
    assert last.bias is not None
    x = _convolution(add, last, x, weight, last.bias * scale[0] + offset[0])
    if layer.upsampling == "bilinear_smoothed":  # it keeps scales and offsets
        line = torch.tensor([0.25, 0.5, 0.25])
        kernel = torch.outer(line, line).expand(len(weight), 1, 3, 3)
        x = add("Conv", _padded(add, x, 1), kernel.contiguous(), group=len(weight))
    return add("Relu", x) if layer.relu else x


def _convolution(
    add: _Graph, layer: Convolution, x: str, weight: Tensor, bias: Tensor | None
) -> str:
    if layer.border:
        x = _padded(add, x, layer.border)
    pads = [*layer.padding, *layer.padding]
    return add("Conv", x, weight, bias, strides=list(layer.stride), pads=pads, group=layer.groups)


def _padded(add: _Graph, x: str, border: int) -> str:
    return add("Pad", x, [0, 0, border, border] * 2, mode="reflect")
