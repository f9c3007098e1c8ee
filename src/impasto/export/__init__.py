"""Networks as ONNX files: dynamic sizes, one file, described by its own metadata, compared with PyTorch before use."""

import copy
import os
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from impasto.export.compared import Difference, compare
from impasto.export.graphs import ExportOptions, Part, Whole, exported
from impasto.export.quantized import quantize
from impasto.inference.backends import PARTS
from impasto.networks import TransformNet
from impasto.writing import new_files

__all__ = ["Difference", "ExportOptions", "export_network"]
_CALIBRATING, _JUDGING = 32, 8  # photos; those that judge are others than those that calibrate


def export_network(
    network: TransformNet, output: Path, options: ExportOptions | None = None, *,
    photos: list[Path] | None = None, overwrite: bool = False,
) -> list[Difference]:  # fmt: skip
    """Writes `output`, and its second file where asked for; both or none, and none that differs from PyTorch.

    Args:
        network: evaluation mode, float32, on the CPU, as `load_network` gives it.
        output: ends in `.onnx`.
        options: what kind of file; None: float32, one file.
        photos: for eight bits, 40 or more are best; 16 at least.
        overwrite: replace earlier files.

    Returns:
        The differences to PyTorch in ONNX Runtime, of the picture, and of a part where there is that file.

    Raises:
        ValueError: no `.onnx`, the file exists (unless `overwrite`), the `export` extra is missing, too few photos, or
            the exported network paints another picture: more than 0.001 apart in float32, one grey level in bytes, four
            in fp16, two in the mean in eight bits.
    """
    options = options or ExportOptions()
    outputs = [output, output.with_suffix(PARTS)] if options.parts else [output]
    _check(outputs, overwrite)
    _check_extra()
    calibrating, judging = _divided(photos or [], options)
    painted = copy.deepcopy(network).half() if options.precision == "fp16" else network
    with TemporaryDirectory() as place, new_files(overwrite) as begin:
        files = [Path(place, path.name) for path in outputs]
        for file, graph in zip(files, (Whole, Part), strict=False):
            file.write_bytes(exported(network, graph(painted, options.pixels), options))
            if calibrating:
                quantize(file, network, calibrating, pixels=options.pixels, part=graph is Part)
        differences = compare(network, files[0], options, judging)
        for path, file in zip(outputs, files, strict=True):
            begin(path).write(file.read_bytes())
    return differences


def _divided(photos: list[Path], options: ExportOptions) -> tuple[list[Path], list[Path]]:
    """Photos to calibrate with, and to judge by: spread over all there are; none but for eight bits."""
    if options.quantize == "none":
        return [], []
    if len(photos) < 2 * _JUDGING:
        raise ValueError(
            f"quantize int8: needs at least {2 * _JUDGING} photos (--photos FOLDER), there are {len(photos)}"
        )
    chosen = photos[:: max(1, len(photos) // (_CALIBRATING + _JUDGING))][: _CALIBRATING + _JUDGING]
    return chosen[:-_JUDGING], chosen[-_JUDGING:]


def _check(outputs: list[Path], overwrite: bool) -> None:
    """`ValueError` for another suffix, or a file that exists."""
    for path in outputs:
        if path.suffix != ".onnx":
            raise ValueError(f"--output {path}: an exported network ends in .onnx")
        if os.path.lexists(path) and not overwrite:
            raise ValueError(f"{path}: exists already; choose another --output, or --overwrite")


def _check_extra() -> None:
    try:
        for name in ("onnx", "onnxruntime", "onnxscript"):  # the last: what torch's exporter is made with
            import_module(name)
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'impasto[export]'") from error
