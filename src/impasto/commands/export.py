"""The command `impasto export`: writes a network as an ONNX file."""

from pathlib import Path
from typing import Literal

from impasto.choices import OPSETS
from impasto.commands.arguments import parsed
from impasto.commands.idle import only_with
from impasto.commands.jobs import check_output_folder
from impasto.data.files import find_images


def export(arguments: list[str]) -> int:
    """Run the command with the arguments of a command line; return 0.

    Raises:
        ValueError: a mistake of the user.
    """
    network = {"network": "a published name, a .safetensors, or a training checkpoint (.ckpt)"}
    allowed = {"opset": f"a whole number from {OPSETS[0]} to {OPSETS[-1]}"}
    given = parsed(
        "export", "Write a network as one ONNX file.", export_file, arguments, network, allowed,
        needs={"photos": only_with("quantize", "int8")},
    )  # fmt: skip
    return export_file(**given)


def export_file(
    network: str,
    output: str | None = None,
    pixels: Literal["float32", "uint8"] = "float32",
    precision: Literal["fp32", "fp16"] = "fp32",
    opset: int = OPSETS[0],
    parts: bool = False,
    quantize: Literal["none", "int8"] = "none",
    photos: str | None = None,
    overwrite: bool = False,
) -> int:
    """Export a network, and print how far its pictures are from PyTorch's.

    Args:
        network: a published name, a .safetensors, or a training checkpoint (.ckpt)
        output: the file to write; if not given, NETWORK.onnx in the current folder
        pixels: input and output: float32: B×3×H×W in [0, 1]; uint8: B×H×W×3 bytes
        precision: fp16: half the size, for GPUs; within four grey levels
        opset: version of ONNX's operators; the lowest runs in most places
        parts: also write NAME.parts.onnx, which paints pictures that are too large to be painted
            whole
        quantize: int8: most arithmetic in eight bits, for CPUs; faster, and on average one grey
            level different
        photos: a folder of photos, needed for int8; 40 of them are used
        overwrite: replace an earlier file
    """
    # Imported here because torch takes seconds to import. Mistakes above are answered without it.
    from impasto.export import ExportOptions, check_extra, export_network
    from impasto.inference.backends import PARTS, READER
    from impasto.networks import find_network, load_network

    path = find_network(network)
    target = Path(output or f"{path.stem}.onnx").expanduser()
    options = ExportOptions(pixels, precision, opset, parts, quantize)
    found_photos = find_images(photos) if photos else []
    loaded = load_network(path)
    check_output_folder(target.parent)
    check_extra()
    print(f"{path}: exporting, which takes a quarter of a minute", flush=True)
    differences = export_network(loaded, target, options, photos=found_photos, overwrite=overwrite)
    for found in differences:
        size = f"{found.width}×{found.height}, batch {found.batch}"
        print(
            f"  {size}: difference to PyTorch at most {found.largest:.1e}, "
            f"in the mean {found.mean:.1e}"
        )
    files = [target, *([target.with_suffix(PARTS)] if parts else [])]
    if loaded.any_picture:
        files.append(target.with_suffix(READER))
    for file in files:
        print(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    return 0
