"""The demo's server: the page, the network and the runtime's files, to this machine only, and nothing else."""

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
# What a page of this machine calls it. A page from elsewhere whose name was made to lead here has another (rebinding).
NAMES = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
PAGE = Path(__file__).with_name("index.html")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".mjs": "text/javascript",
    ".wasm": "application/wasm",  # with another type a browser does not compile it while it comes in
    ".onnx": "application/octet-stream",
}
# Of a request (RFC 3986), with what a page is to know after a question mark.
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)(?:\?[!-~]*)?")
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
        return Server((HOST, port), partial(Handler, table))
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reason = "is taken" if error.errno == errno.EADDRINUSE else "is not for ordinary users"
        raise ValueError(f"--port {port}: {reason}; choose another, or 0 for any free one") from error


class Server(ThreadingHTTPServer):
    """A thread for each connection, which may break off without a word."""

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """Nothing where the browser went away; else as ever."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers for the paths of a table, asked for by a name of this machine; no path is made into a file's name."""

    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that a connection may say nothing

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
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not NAMES.fullmatch(hosts[0].strip()):
            self.close_connection = True
            self.send_error(HTTPStatus.BAD_REQUEST, f"Ask for http://{HOST}, as this is")
            return
        asked = _PATH.fullmatch(self.path)
        if asked is None or self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # what follows is no request
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        path = self.table.get(asked[1])
        try:
            file = path.open("rb") if path is not None else None
        except OSError:  # it was taken away meanwhile
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
        if length:  # it became shorter meanwhile: the browser is not to wait for the rest
            self.close_connection = True
