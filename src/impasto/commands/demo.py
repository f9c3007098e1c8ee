"""The command `impasto demo`: serves a page that paints photos in the browser."""

import webbrowser
from importlib.util import find_spec
from pathlib import Path

from impasto.demo.properties import read_properties
from impasto.demo.runtime import find_runtime
from impasto.demo.server import HOST, open_server
from impasto.spelling import not_there

_EXPORT = (
    "python scripts/export_onnx.py checkpoints/gallery.safetensors --pixels uint8 "
    "--output gallery.onnx"
)


def demo(
    network: str = "gallery.onnx", port: int = 8000, runtime: str | None = None, open: bool = True
) -> int:
    """Serve a page that paints photos in the browser, to this machine only; Ctrl-C ends it.

    Args:
        network: a network that was exported with --pixels uint8
        port: port of 127.0.0.1; 0: any free one
        runtime: a folder with the files of ONNX Runtime Web (`dist` of its npm package); if not
            given, a cache, which npm fills once
        open: open the page in the browser
    """
    path = _exported(network)
    with open_server(path, find_runtime(runtime), port) as server:
        address = f"http://{HOST}:{server.server_port}/"
        try:
            print(f"{address} paints with {path}; Ctrl-C ends it", flush=True)
            if open:
                webbrowser.open(address)
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def _exported(network: str) -> Path:
    """Return the path of an exported network.

    Raises:
        ValueError: the file is missing, or the page cannot paint with it.
    """
    path = Path(network).expanduser()
    if path.suffix != ".onnx":
        raise ValueError(
            f"--network {network}: must be an exported network, a .onnx file; make one with "
            f"`{_EXPORT}`"
        )
    if not path.is_file():
        raise ValueError(f"--network {not_there(network)}; make it with `{_EXPORT}`")
    # Imported here because it imports torch, which is slow and not needed for --help.
    from impasto.inference.backends import READER, OnnxPainter, exported_metadata
    from impasto.networks import NETWORKS

    metadata = exported_metadata(path, read_properties(path))
    if (pixels := metadata["pixels"]) != "uint8":
        raise ValueError(
            f"--network {network}: takes {pixels} pixels, the page has bytes; make it with "
            f"`{_EXPORT}`"
        )
    if NETWORKS[metadata["network"]].any_picture:
        if not (reader := path.with_suffix(READER)).is_file():
            raise ValueError(f"{reader}: not there, and needed to read a painting; export again")
        read_properties(reader)
    if find_spec("onnxruntime") is not None:
        OnnxPainter(path, "cpu")  # opens the graph, which otherwise only the page does
    return path.resolve()
