"""The demo's server: the page, the network and the runtime's files, to this machine only, and nothing else."""

import errno
import shutil
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from impasto.demo.runtime import FILES

HOST = "127.0.0.1"
PAGE = Path(__file__).with_name("index.html")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",  # with another type a browser does not compile it while it comes in
    ".onnx": "application/octet-stream",
}
HEADERS = {
    # Only a page that is isolated from others may share memory between the threads of WASM.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    # Another network may be served here tomorrow.
    "Cache-Control": "no-cache",
    # The browser itself keeps the promise that photos go nowhere: the page can reach this server only.
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
        "worker-src 'self' blob:; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self' blob: data:"
    ),
}


def open_server(network: Path, runtime: Path, port: int) -> ThreadingHTTPServer:
    """A server that is bound and listens, not yet serving; it is a context manager.

    Raises:
        ValueError: the port is none, or taken.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port}: must be from 0 (any free one) to 65535")
    table = {"/": PAGE, "/index.html": PAGE, "/gallery.onnx": network}
    table |= {f"/runtime/{name}": runtime / name for name in FILES}
    try:
        return ThreadingHTTPServer((HOST, port), partial(Handler, table))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reason = "is taken" if error.errno == errno.EADDRINUSE else "is not for ordinary users"
        raise ValueError(f"--port {port}: {reason}; choose another, or 0 for any free one") from error


class Handler(BaseHTTPRequestHandler):
    """Answers for the paths of a table; no path is ever made into a file's name."""

    protocol_version = "HTTP/1.1"

    def __init__(self, table: dict[str, Path], *arguments: object) -> None:
        self.table = table
        super().__init__(*arguments)  # type: ignore[arg-type]  # http.server's own three

    def do_GET(self) -> None:
        """The file, or 404."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """The same without the file."""
        self._answer(with_body=False)

    def log_message(self, format: str, *values: object) -> None:
        """Nothing: the terminal is for what a person should read."""

    def end_headers(self) -> None:
        """Errors carry the headers as well."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def _answer(self, *, with_body: bool) -> None:
        path = self.table.get(urlsplit(self.path).path)
        if path is None or not path.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", TYPES[path.suffix])
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            if with_body:
                self._send(file)

    def _send(self, file: BinaryIO) -> None:
        try:
            shutil.copyfileobj(file, self.wfile)
        except (BrokenPipeError, ConnectionResetError):  # the page was closed or reloaded meanwhile
            self.close_connection = True
