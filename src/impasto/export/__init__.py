"""Export of a network to ONNX.

One file takes photos of every size. Its metadata describe it. Each export is compared with PyTorch
before its file gets its name.
"""

import copy
import os
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from impasto.export.compared import Difference, compare
from impasto.export.graphs import ExportOptions, Part, Whole, exported, exported_reader
from impasto.export.quantized import quantize
from impasto.inference.backends import PARTS, READER
from impasto.networks import TransformNet
from impasto.networks.reading import AnyPaintingNet
from impasto.writing import new_files

__all__ = ["Difference", "ExportOptions", "check_extra", "export_network"]
# For int8: the number of photos that calibrate the export, and of others that check it.
_CALIBRATING, _JUDGING = 32, 8


def export_network(
    network: TransformNet, output: Path, options: ExportOptions | None = None, *,
    photos: list[Path] | None = None, overwrite: bool = False,
) -> list[Difference]:  # fmt: skip
    """Write a network as an ONNX file, and with `options.parts` a second file beside it.

    A network for any painting gets one more file, NAME.style.onnx, which gives the code of a
    painting. Either all files are written or none. Nothing is written if the export differs from
    PyTorch.

    Args:
        network: in evaluation mode, float32 and on the CPU, as `load_network` returns it.
        output: path that ends in `.onnx`; the second file is NAME.parts.onnx.
        options: what kind of file; None: float32, one file.
        photos: picture files, needed for int8 only: at least 16, better 40 or more.
        overwrite: replace earlier files.

    Returns:
        The differences between ONNX Runtime and PyTorch, one for each test input. With a second
        file, its output is compared too.

    Raises:
        ValueError: `output` does not end in `.onnx`; a file exists (unless `overwrite`); the
            `export` extra is missing; there are too few photos; or the export differs from PyTorch
            by more than is allowed: at any pixel 0.001 in fp32, one grey level with byte pixels,
            four in fp16; with int8 two grey levels in the mean.
    """
    options = options or ExportOptions()
    outputs = [output, output.with_suffix(PARTS)] if options.parts else [output]
    readers = [output.with_suffix(READER)] if isinstance(network, AnyPaintingNet) else []
    _check([*outputs, *readers], overwrite)
    check_extra()
    calibrating, judging = _split_photos(photos or [], options)
    painted = copy.deepcopy(network).half() if options.precision == "fp16" else network
    with TemporaryDirectory() as place, new_files(overwrite) as begin:
        files = [Path(place, path.name) for path in outputs]
        if isinstance(network, AnyPaintingNet):
            reader = Path(place, readers[0].name)
            reader.write_bytes(exported_reader(network, options))
        for file, graph in zip(files, (Whole, Part), strict=False):
            file.write_bytes(exported(network, graph(painted, options), options))
            if calibrating:
                quantize(file, network, calibrating, pixels=options.pixels, part=graph is Part)
        differences = compare(network, files[0], options, judging)
        for path in [*outputs, *readers]:
            begin(path).write(Path(place, path.name).read_bytes())
    return differences


def _split_photos(photos: list[Path], options: ExportOptions) -> tuple[list[Path], list[Path]]:
    """Return the photos that calibrate int8 and those that check it; no photos without int8.

    At most 40 are taken, at equal distances in the list; the last 8 of them check.
    """
    if options.quantize == "none":
        return [], []
    if len(photos) < 2 * _JUDGING:
        raise ValueError(
            f"quantize int8: needs at least {2 * _JUDGING} photos (--photos FOLDER), "
            f"there are {len(photos)}"
        )
    count = min(len(photos), _CALIBRATING + _JUDGING)
    chosen = [photos[number * len(photos) // count] for number in range(count)]
    return chosen[:-_JUDGING], chosen[-_JUDGING:]


def _check(outputs: list[Path], overwrite: bool) -> None:
    """Raise `ValueError` for a suffix other than `.onnx`, or a file that exists."""
    for path in outputs:
        if path.suffix != ".onnx":
            raise ValueError(f"--output {path}: an exported network ends in .onnx")
        if os.path.lexists(path) and not overwrite:
            raise ValueError(f"{path}: exists already; choose another --output, or --overwrite")


def check_extra() -> None:
    """Raise ValueError if the packages of the extra `export` are not installed."""
    try:
        # torch's exporter needs onnxscript. It imports dynamo itself, and takes a Ctrl-C meanwhile
        # for an error of the export.
        for name in ("onnx", "onnxruntime", "onnxscript", "torch._dynamo"):
            import_module(name)
    except ImportError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'impasto[export]'") from error
