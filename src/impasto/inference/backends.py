"""Painters run a network, in torch or in ONNX Runtime, with the same methods."""

import copy
import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from impasto.choices import Backend
from impasto.inference.devices import find_device, of_memory
from impasto.networks import (
    NETWORKS,
    NetworkError,
    TransformNet,
    find_network,
    load_network,
    upgraded,
)
from impasto.networks.layers import Moments
from impasto.networks.preprocess import Origin
from impasto.networks.reading import for_reading
from impasto.networks.styles import style_weights

# Properties that an exported file must have besides the network's metadata, with valid values.
_PROPERTIES = {
    "pixels": "float32|uint8", "precision": "fp32|fp16", "quantize": "none|int8",
    "part": "whole", "reach": "[0-9]{1,6}",
}  # fmt: skip
# Suffix of the second file of an export, which paints parts of a larger picture.
PARTS = ".parts.onnx"
# Suffix of the file of an export that gives the code of a painting.
READER = ".style.onnx"


class TorchPainter:
    """Runs a network in torch, in float32 and channels-last.

    Attributes:
        any_picture: whether a picture is a style, and names are not.
        multiple: parts of a picture begin at multiples of this many pixels.
        canvas: standard deviation, in grey levels, of the pattern that the network adds to a photo.
        takes_statistics: whether `paint` takes the statistics of another picture.
    """

    takes_statistics = True

    def __init__(self, network: TransformNet, device: str = "auto") -> None:
        self.device = find_device(device)
        self.styles, self.metadata, self.reach = network.styles, network.metadata, network.reach
        self.any_picture, self.multiple = network.any_picture, network.multiple
        self.canvas = float(network.arguments.get("canvas", 0))
        self.network = (
            network.eval().to(self.device, torch.float32).to(memory_format=torch.channels_last)
        )

    def encode_style(self, style: Any) -> Float[Tensor, "1 n"]:
        """Return the code of a style; see `encode_style` of the network."""
        with torch.inference_mode():
            return self.network.encode_style(style)

    def paint(
        self, content: Float[Tensor, "b 3 h w"], code: Float[Tensor, "_ n"],
        statistics: Float[Tensor, "1 s"] | None = None, origin: Origin = (0, 0),
    ) -> Float[Tensor, "b 3 h w"]:  # fmt: skip
        """Return the stylized pictures, in [0, 1].

        Args:
            content: photos in [0, 1], or a part of a larger picture.
            code: styles, B×N or 1×N.
            statistics: result of `statistics` for the larger picture; None: measure `content`.
            origin: position (down, right), in pixels, of `content` in the larger picture.
        """
        return self.network(
            self._here(content), code.to(self.device), origin=origin, moments=Moments(statistics)
        )

    def statistics(
        self, content: Float[Tensor, "1 3 h w"], code: Float[Tensor, "1 n"]
    ) -> Float[Tensor, "1 s"]:
        """Return the instance-norm statistics of a picture, for painting its parts."""
        moments = Moments()
        self.network(self._here(content), code.to(self.device), moments=moments)
        return moments.statistics

    def _here(self, content: Tensor) -> Tensor:
        return content.to(self.device, memory_format=torch.channels_last)


class OnnxPainter:
    """Runs an exported network in ONNX Runtime.

    Attributes:
        any_picture: whether a picture is a style, and names are not.
        multiple: parts of a picture begin at multiples of this many pixels.
        canvas: standard deviation, in grey levels, of the pattern that the network adds to a photo.
        takes_statistics: whether `paint` takes the statistics of another picture.

    Args:
        path: the exported file.
        device: auto (CUDA if ONNX Runtime has it, else the CPU), cpu, or a CUDA device.

    Raises:
        NetworkError: the file is damaged, not one of ours, or of a newer format.
        ValueError: ONNX Runtime is not installed, or lacks the device.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        runtime = _onnxruntime()
        cuda = device != "cpu" and "CUDAExecutionProvider" in runtime.get_available_providers()
        if device not in ("auto", "cpu") and not (cuda and device.startswith("cuda")):
            raise ValueError(
                f"device {device}: this ONNX Runtime has the CPU only; use cpu or auto"
            )
        # Pictures enter and leave on the CPU; the session itself moves them to a GPU.
        self.device = torch.device("cpu")
        self._path = path
        self._providers = ["CUDAExecutionProvider"] * cuda + ["CPUExecutionProvider"]
        self._session = self._opened(path)
        self._parts: Any = None
        self.metadata = exported_metadata(path, self._session.get_modelmeta().custom_metadata_map)
        kind = NETWORKS[self.metadata["network"]]
        self.any_picture, self.multiple = kind.any_picture, kind.multiple
        self.styles = [str(style["name"]) for style in self.metadata["styles"]]
        self._reader: Any = None
        self.reach = int(self.metadata["reach"])
        self.canvas = float(self.metadata["arguments"].get("canvas", 0))
        self.takes_statistics = path.with_suffix(PARTS).is_file()

    def encode_style(self, style: Any) -> Float[Tensor, "1 n"]:
        """Return the code of a style; see `style_weights`, or `AnyPaintingNet.encode_style`.

        Raises:
            ValueError: the file of the export that reads paintings is missing.
        """
        if not self.any_picture:
            return style_weights(style, self.styles)
        path = self._path.with_suffix(READER)
        if not path.is_file():
            raise ValueError(f"{path}: not there, and needed to read a painting; export again")
        self._reader = self._reader or self._opened(path)
        total = sum(weight for _, weight in style)
        codes = [
            self._reader.run(None, {"painting": for_reading(painting).cpu().numpy()})[0] * weight
            for painting, weight in style
        ]
        return torch.from_numpy(sum(codes)) / total

    def paint(
        self, content: Float[Tensor, "b 3 h w"], code: Float[Tensor, "_ n"],
        statistics: Float[Tensor, "1 s"] | None = None, origin: Origin = (0, 0),
    ) -> Float[Tensor, "b 3 h w"]:  # fmt: skip
        """Return the stylized pictures; see `TorchPainter.paint`.

        Without `statistics`, `origin` is ignored.

        Raises:
            NetworkError: the file cannot be run.
            ValueError: with `statistics`, the second file of the export is missing.
        """
        if statistics is None:
            return self._run(self._session, content, code)[0]
        self._parts = self._parts or self._opened(self._second_file())
        more = {"statistics": statistics, "origin": torch.as_tensor(origin)}
        return self._run(self._parts, content, code, **more)[0]

    def statistics(
        self, content: Float[Tensor, "1 3 h w"], code: Float[Tensor, "1 n"]
    ) -> Float[Tensor, "1 s"]:
        """Return the instance-norm statistics of a picture, for painting its parts.

        Raises:
            NetworkError: the file gives no statistics.
            ValueError: the second file of the export is missing, which these are for.
        """
        self._second_file()
        found = self._run(self._session, content, code)
        if len(found) < 2:
            raise NetworkError(f"{self._path}: gives no statistics of the picture; export it again")
        return found[1]

    def _run(self, session: Any, content: Tensor, code: Tensor, **more: Tensor) -> list[Tensor]:
        """Return the outputs of a session, the first as floats B×3×H×W in [0, 1].

        Pictures are converted from and to bytes if the file works with these.
        """
        photo, bytes_wanted = content, self.metadata["pixels"] == "uint8"
        if bytes_wanted:
            photo = content.permute(0, 2, 3, 1).mul(255).round().clamp(0, 255).to(torch.uint8)
        given = {"photo": photo, "style": code.expand(len(content), -1), **more}
        names = {value.name for value in session.get_inputs()}
        arrays = {
            name: value.contiguous().cpu().numpy() for name, value in given.items() if name in names
        }
        try:
            found = [torch.from_numpy(value) for value in session.run(None, arrays)]
        except Exception as error:  # ONNX Runtime's errors have no common class
            if of_memory(error):
                raise RuntimeError(f"{self._path}: {error}") from error
            raise NetworkError(
                f"{self._path}: cannot be run ({' '.join(str(error).split())[:200]})"
            ) from error
        if not found or found[0].shape != photo.shape or found[0].dtype != photo.dtype:
            raise NetworkError(
                f"{self._path}: paints pictures of another shape than it is given; export it again"
            )
        if bytes_wanted:
            found[0] = found[0].permute(0, 3, 1, 2).float() / 255
        return found

    def _second_file(self) -> Path:
        path = self._path.with_suffix(PARTS)
        if not path.is_file():
            more = (
                "needed for pictures in tiles; export again with --parts, "
                "or paint whole with --tile never"
            )
            raise ValueError(f"{path}: not there, and {more}")
        return path

    def _opened(self, path: Path) -> Any:
        return opened_session(path, str(path), self._providers)


def opened_session(
    model: Path | bytes, name: str, providers: Sequence[str] = ("CPUExecutionProvider",),
    threads: int = 0,
) -> Any:  # fmt: skip
    """Return ONNX Runtime's session for a model.

    Args:
        model: its file, or the bytes of one.
        name: for the message.
        providers: ONNX Runtime's, the preferred first.
        threads: of an operation; 0: ONNX Runtime's choice.

    Raises:
        NetworkError: the model is damaged.
        ValueError: ONNX Runtime is not installed.
    """
    runtime = _onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # silence its log; errors are reported in one line below
    options.intra_op_num_threads = threads
    try:
        return runtime.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime's errors have no common class
        raise NetworkError(
            f"{name}: damaged, or not an ONNX file ({' '.join(str(error).split())[:120]})"
        ) from error


def exported_metadata(path: Path, properties: dict[str, str]) -> dict[str, Any]:
    """Return the network's metadata and the properties that the export added.

    Args:
        path: the file, for messages.
        properties: `metadata_props` of the ONNX file.

    Raises:
        NetworkError: the file is not an export of impasto, is damaged, or is of a newer format.
    """
    if "impasto" not in properties:
        raise NetworkError(
            f"{path}: an ONNX file, but not one of impasto's (scripts/export_onnx.py makes them)"
        )
    try:
        described = json.loads(properties["impasto"])
    except (ValueError, RecursionError) as error:
        raise NetworkError(f"{path}: its metadata are no JSON; the file is damaged") from error
    metadata = upgraded(described, path)
    if properties.get("part") == "part":
        raise NetworkError(
            f"{path}: paints parts of pictures; give the file without .parts, which uses this one"
        )
    for key, allowed in _PROPERTIES.items():
        if not re.fullmatch(allowed, properties.get(key, "")):
            raise NetworkError(
                f"{path}: {key} {properties.get(key, '')[:40]!r} is not known; "
                "update impasto, or export again"
            )
    if not metadata.get("styles") and not NETWORKS[metadata["network"]].any_picture:
        raise NetworkError(f"{path}: names no styles; export it again")
    return {
        **metadata,
        **{key: properties[key] for key in ("pixels", "reach", "precision", "quantize")},
    }


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError("ONNX Runtime is not installed: pip install 'impasto[export]'") from error
    return onnxruntime


Painter = TorchPainter | OnnxPainter


def open_painter(
    network: TransformNet | str | Path, backend: Backend = "auto", device: str = "auto"
) -> Painter:
    """Return the painter for a network.

    Under `auto` on a CPU, the export of a network is used instead of the network if it lies beside
    it, as NAME.onnx with NAME.parts.onnx, in float32. ONNX Runtime was 1.1, 1.4 and 2.2 times as
    fast as torch at 256, 512 and 1024 pixels (`impasto benchmark --what inference`).

    Args:
        network: a published name, a `.safetensors`, `.ckpt` or `.onnx` file, or a network, which is
            copied.
        backend: onnx for `.onnx` files, torch for the others, or auto for whichever fits.
        device: see `find_device`.

    Raises:
        ValueError: a network that cannot be found or read, a device that is missing, or a backend
            that cannot run the file.
    """
    path = None if isinstance(network, TransformNet) else find_network(network)
    if path is not None and path.suffix == ".onnx":
        if backend == "torch":
            raise ValueError(
                f"{path}: an exported network, for --backend onnx; "
                "torch runs what it was exported from"
            )
        return OnnxPainter(path, device)
    if backend == "onnx":
        raise ValueError(
            f"{path or 'a network in memory'}: --backend onnx needs an exported file; "
            f"make one with `python scripts/export_onnx.py {path or 'NETWORK.safetensors'}`"
        )
    loaded = copy.deepcopy(network) if isinstance(network, TransformNet) else load_network(network)
    exported = (
        _export_beside(path, loaded, device) if path is not None and backend == "auto" else None
    )
    return exported or TorchPainter(loaded, device)


def _export_beside(path: Path, network: TransformNet, device: str) -> OnnxPainter | None:
    """Return the painter of the export beside a network, or None.

    The export must run here, be of this network, and be in float32, so that it paints the same.
    """
    exported = path.with_suffix(".onnx")
    there = (
        exported.is_file()
        and exported.with_suffix(PARTS).is_file()
        and find_spec("onnxruntime") is not None
    )
    if not there or find_device(device).type != "cpu":
        return None
    try:
        painter = OnnxPainter(exported, "cpu")
    except NetworkError:  # a foreign or damaged file does no harm: the network itself will run
        return None
    metadata = painter.metadata
    same = all(metadata.get(key) == value for key, value in network.metadata.items())
    return (
        painter
        if same and (metadata["precision"], metadata["quantize"]) == ("fp32", "none")
        else None
    )
