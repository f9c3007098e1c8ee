"""The command `impasto demo`: a page that paints photos in the browser."""

import webbrowser
from importlib.util import find_spec
from pathlib import Path

from impasto.demo.runtime import find_runtime
from impasto.demo.server import HOST, open_server
from impasto.spelling import not_there

_EXPORT = "python scripts/export_onnx.py checkpoints/gallery.safetensors --pixels uint8 --output gallery.onnx"


def demo(
    network: str = "gallery.onnx", port: int = 8000, runtime: str | None = None, open: bool = True
) -> int:
    """A page that paints photos in the browser, served to this machine only; Ctrl-C ends it.

    Args:
        network: the exported network; with its pixels as bytes (--pixels uint8)
        port: of 127.0.0.1; 0: any free one
        runtime: a folder with the files of ONNX Runtime Web (`dist` of its npm package); if not given, they are taken
            from a cache, which npm fills once
        open: show the page in the browser
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
    """The file of the network; `ValueError` where there is none, or one that the page cannot paint with."""
    path = Path(network).expanduser()
    if path.suffix != ".onnx":
        raise ValueError(
            f"--network {network}: must be an exported network, a .onnx file; make one with `{_EXPORT}`"
        )
    if not path.is_file():
        raise ValueError(f"--network {not_there(network)}; make it with `{_EXPORT}`")
    if find_spec("onnxruntime") is not None:  # without it the page says the same
        from impasto.inference.backends import (
            OnnxPainter,
        )  # and torch, for which --help need not wait

        if (pixels := OnnxPainter(path, "cpu").metadata["pixels"]) != "uint8":
            raise ValueError(
                f"--network {network}: takes {pixels} pixels, the page has bytes; make it with `{_EXPORT}`"
            )
    return path.resolve()
