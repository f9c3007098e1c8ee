"""The demo's server: it gives page, network and runtime to this machine only, and nothing else."""

import errno
import os
import re
import socket
import sys
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

from impasto.demo.runtime import FILES

HOST = "127.0.0.1"
# Host names that this server answers to. They keep out DNS rebinding: a foreign page whose own name
# was made to point to this machine asks with that name.
NAMES = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
READER = ".style.onnx"  # as in `inference.backends`, which imports torch
PAGE = Path(__file__).with_name("index.html")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",  # only with this type do browsers compile it while downloading
    ".onnx": "application/octet-stream",
}
# The target of a request (RFC 3986): a path and, after a question mark, a query for the page.
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)(?:\?[!-~]*)?")
HEADERS = {
    # Browsers let the threads of WASM share memory only in a page that is isolated from others.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    # The same address may serve another network next time.
    "Cache-Control": "no-cache",
    # Browsers let the page connect to this server only, so photos cannot be sent elsewhere.
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'unsafe-inline'; "
        "script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob:; "
        "worker-src 'self' blob:; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self' blob: data:"
    ),
}


def open_server(network: Path, runtime: Path, port: int) -> ThreadingHTTPServer:
    """Return a server that listens already; `serve_forever` starts it. It is a context manager.

    Args:
        network: exported network, served as /gallery.onnx. If the file that reads paintings lies
            beside it, that is served as /gallery.style.onnx.
        runtime: folder with the runtime's files, served below /runtime/.
        port: of 127.0.0.1; 0: any free one.

    Raises:
        ValueError: the port is out of range, taken, or reserved.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port {port}: must be from 0 (any free one) to 65535")
    table = {"/": PAGE, "/index.html": PAGE, "/gallery.onnx": network}
    if (reader := network.with_suffix(READER)).is_file():
        table["/gallery.style.onnx"] = reader
    table |= {f"/runtime/{name}": runtime / name for name in FILES}
    try:
        return Server((HOST, port), partial(Handler, table))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reason = "is taken" if error.errno == errno.EADDRINUSE else "is not for ordinary users"
        raise ValueError(
            f"--port {port}: {reason}; choose another, or 0 for any free one"
        ) from error


class Server(ThreadingHTTPServer):
    """A server with a thread for each connection."""

    def handle_error(
        self, request: socket.socket | tuple[bytes, socket.socket], client_address: object
    ) -> None:
        """Print errors, except that the browser closed the connection or was silent too long."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers requests that name this machine (NAMES) for the paths of a table.

    No file name is built from a path, so nothing outside the table can be reached.

    Args:
        table: the file for each path.
        arguments: those of `BaseHTTPRequestHandler`.
    """

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds after which a silent connection is closed

    def __init__(self, table: dict[str, Path], *arguments: object) -> None:
        self.table = table
        super().__init__(*arguments)  # type: ignore[arg-type]  # http.server's own three

    def do_GET(self) -> None:
        """Send the file of the path, or 404."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Send what GET sends, without the file."""
        self._answer(with_body=False)

    def log_message(self, format: str, *values: object) -> None:
        """Log no requests, so that the terminal keeps to messages for the user."""

    def end_headers(self) -> None:
        """Add HEADERS to every answer, also to errors."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def _answer(self, *, with_body: bool) -> None:
        """Check the request, then send a file of the table, or an error."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not NAMES.fullmatch(hosts[0].strip()):
            self.close_connection = True
            self.send_error(HTTPStatus.BAD_REQUEST, f"Ask for http://{HOST}, as this is")
            return
        asked = _PATH.fullmatch(self.path)
        if (
            asked is None
            or self.headers.get("Content-Length", "0") != "0"
            or "Transfer-Encoding" in self.headers
        ):
            self.close_connection = True  # a body may follow, which is not read
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        path = self.table.get(asked[1])
        try:
            file = path.open("rb") if path is not None else None
        except OSError:  # the file was removed meanwhile
            file = None
        if path is None or file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            length = os.fstat(file.fileno()).st_size
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", TYPES[path.suffix])
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if with_body:
                self._send(file, length)

    def _send(self, file: BinaryIO, length: int) -> None:
        while length and (part := file.read(min(length, 2**20))):
            self.wfile.write(part)
            length -= len(part)
        if length:  # the file became shorter meanwhile: do not let the browser wait for the rest
            self.close_connection = True
