"""The demo's server gives page, network and runtime, to this machine only; its command explains mistakes."""

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import onnx
import pytest
from exported import exported, properties
from heeding import HEEDING

from impasto.commands import run
from impasto.demo.properties import read_properties
from impasto.demo.runtime import FILES, find_runtime
from impasto.demo.server import PAGE, open_server

ROOT = Path(__file__).parents[1]


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder that has what the page asks for, by name."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(f"this is {name}")
    (folder / "ort.all.js").write_text("not asked for")
    return folder


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return exported(tmp_path / "other_name.onnx")


@pytest.fixture
def port(network: Path, runtime: Path) -> Iterator[int]:
    with open_server(network, runtime, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def ask(port: int, path: str, method: str = "GET", host: str = "127.0.0.1") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; the path goes out as it is, which a browser would not do with `..`."""
    connection = http.client.HTTPConnection(host, port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_page_network_and_runtime_are_served_with_their_types(port: int, network: Path) -> None:
    types = {"/": "text/html", "/gallery.onnx": "application/octet-stream", f"/runtime/{FILES[0]}": "text/javascript",
             f"/runtime/{FILES[1]}": "application/wasm"}  # fmt: skip
    bodies = dict(zip(types, (PAGE.read_bytes(), network.read_bytes(), b"this is " + FILES[0].encode()), strict=False))
    for path, kind in types.items():
        status, headers, body = ask(port, path)
        assert (status, headers["Content-Type"].split(";")[0]) == (200, kind)
        assert body == bodies.get(path, body)
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"  # both, or WASM has one thread
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert ask(port, "/?backend=wasm")[2] == PAGE.read_bytes()
    assert ask(port, "/", "HEAD")[::2] == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["/server.py", "/__init__.py", "/runtime/", "/runtime", "/runtime/ort.all.js", "/runtime/../other_name.onnx",
     "/../../../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/runtime/..%2fother_name.onnx", "//etc/passwd",
     "/other_name.onnx", "/favicon.ico"],
)  # fmt: skip
def test_nothing_else_is_served(path: str, port: int) -> None:
    status, _, body = ask(port, path)
    assert status == 404
    assert b"root:" not in body and b"Directory" not in body
    assert ask(port, "/", "POST")[0] == 501


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have one loopback address only")
def test_only_loopback_is_listened_on(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        ask(port, "/", host="127.0.0.2")  # would answer if the server listened on every address


def answer(port: int, request: str) -> tuple[str, bytes]:
    """The first line of the answer to what is sent as it is, and all of it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request.encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            whole = file.read()
    return whole.split(b"\r\n")[0].decode(), whole


@pytest.mark.parametrize(
    "target", ["//[", "//[::1", "http://[/", "/a b", "*", "/\xe9", "/a\x01", "//[?x", "gallery.onnx"]
)
def test_a_target_that_is_none_is_a_bad_request(target: str, port: int, capfd: pytest.CaptureFixture[str]) -> None:
    for method in ("GET", "HEAD"):
        line, whole = answer(port, f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.split()[1] == "400" and b"Traceback" not in whole
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:80", 200), ("LocalHost:1", 200), ("evil.example", 400),
     ("localhost.evil.example", 400), ("127.0.0.1.nip.io", 400), ("localhost:80@evil.example", 400), ("", 400),
     ("192.168.0.7", 400), ("localhost\r\nHost: evil.example", 400), (None, 400)],
)  # fmt: skip
def test_only_names_of_this_machine_are_served(host: str | None, status: int, port: int) -> None:
    """A page from elsewhere can have its own name lead to 127.0.0.1 (DNS rebinding)."""
    header = "" if host is None else f"Host: {host}\r\n"
    for path in ("/", "/gallery.onnx"):
        line, whole = answer(port, f"GET {path} HTTP/1.1\r\n{header}Connection: close\r\n\r\n")
        assert line.split()[1] == str(status) and (b"evil" not in whole)


def test_a_browser_that_goes_away_leaves_no_traceback(
    port: int, network: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for sent in (b"", b"GET /", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no goodbye
            connection.sendall(sent)
    network.unlink()
    assert ask(port, "/gallery.onnx")[0] == 404
    assert ask(port, "/")[0] == 200 and capfd.readouterr().err == ""


def test_what_comes_after_a_body_is_no_second_request(port: int) -> None:
    head = "GET / HTTP/1.1\r\nHost: localhost\r\n"
    _, whole = answer(port, f"{head}Content-Length: 60\r\n\r\n{head}\r\n")
    assert whole.startswith(b"HTTP/1.1 400") and whole.count(b"HTTP/1.1 ") == 1


def test_the_page_needs_nothing_from_elsewhere() -> None:
    text = PAGE.read_text().replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in text and "https://" not in text


def test_the_command_serves_until_it_is_interrupted(network: Path, runtime: Path) -> None:
    command = [sys.executable, ROOT / "scripts" / "demo.py", "--network", network, "--runtime", runtime,
               "--port", "0", "--open", "false"]  # fmt: skip
    with subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **HEEDING
    ) as process:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:") and str(network) in line, process.stderr.read()
        assert ask(int(line.split("/")[2].split(":")[1]), "/")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def complaint(capsys: pytest.CaptureFixture[str], *options: str | Path) -> str:
    """The one line that the command says of a mistake."""
    assert run("demo", "--open=false", *map(str, options)) == 2
    said = capsys.readouterr().err.strip()
    return said.splitlines()[-1]


@pytest.mark.parametrize("with_runtime", [True, False], ids=["onnxruntime", "without onnxruntime"])
def test_mistakes_are_explained_before_the_server_starts(
    with_runtime: bool, network: Path, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    if not with_runtime:  # as where `pip install impasto` brought no extra
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        monkeypatch.setattr("impasto.commands.demo.find_spec", lambda name: None)
    assert "--network gallery.onnx: no such file; make it with `python scripts/export_onnx.py" in complaint(capsys)
    assert "must be an exported network" in complaint(capsys, "--network=gallery.safetensors")
    for name, content in {"empty": b"", "bytes": bytes(range(256)), "text": b"hello" * 100}.items():
        (damaged := tmp_path / f"{name}.onnx").write_bytes(content)
        assert f"{name}.onnx: damaged, or not an ONNX file" in complaint(capsys, f"--network={damaged}")
    foreign, floats = exported(tmp_path / "f.onnx", {"by": "you"}), exported(tmp_path / "g.onnx", properties("float32"))
    part = exported(tmp_path / "h.onnx", properties(part="part"))
    described = {"format": 2, "network": "AnyStyleNet", "styles": [], "arguments": {}}
    paintings = exported(tmp_path / "i.onnx", properties(impasto=json.dumps(described), styles="[]"))
    assert "i.style.onnx: not there, and needed to read a painting" in complaint(capsys, f"--network={paintings}")
    (tmp_path / "i.style.onnx").write_bytes(b"cut off")
    assert "i.style.onnx: damaged, or not an ONNX file" in complaint(capsys, f"--network={paintings}")
    for length in (60, network.stat().st_size // 2, network.stat().st_size - 1):
        (cut := tmp_path / "cut.onnx").write_bytes(network.read_bytes()[:length])
        assert "cut.onnx: damaged, or not an ONNX file" in complaint(capsys, f"--network={cut}")
    assert "not one of impasto's" in complaint(capsys, f"--network={foreign}")
    assert "takes float32 pixels, the page has bytes" in complaint(capsys, f"--network={floats}")
    assert "paints parts of pictures" in complaint(capsys, f"--network={part}")
    (runtime / FILES[3]).unlink()
    assert f"has no {FILES[3]}" in complaint(capsys, f"--network={network}", f"--runtime={runtime}")


def test_properties_are_those_that_the_package_onnx_reads(network: Path, tmp_path: Path) -> None:
    long = exported(tmp_path / "long.onnx", {"a": "", "é": "ü" * 70_000, "by": "you"})
    for file in (network, long, ROOT / "tests" / "golden" / "format_2.onnx"):
        expected = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        assert read_properties(file) == expected and expected
    damaged, whole, random = tmp_path / "damaged.onnx", network.read_bytes(), Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        damaged.write_bytes(data)
        try:
            read_properties(damaged)
        except ValueError as error:
            assert str(error) == f"{damaged}: damaged, or not an ONNX file"


@pytest.mark.parametrize("port", [-1, 65536])
def test_ports_that_do_not_exist(port: int, network: Path, runtime: Path) -> None:
    with pytest.raises(ValueError, match=f"--port {port}: must be from 0"):
        open_server(network, runtime, port)


def test_a_taken_port(network: Path, runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        said = complaint(capsys, f"--network={network}", f"--runtime={runtime}", f"--port={taken}")
    assert said == f"impasto demo: --port {taken}: is taken; choose another, or 0 for any free one"


def test_without_npm_both_ways_out_are_said(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    said = complaint(capsys, f"--network={network}")
    assert "install npm" in said and "--runtime" in said


def install_npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = folder / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))


def test_npm_that_fails_leaves_no_half_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_npm(tmp_path, "echo 'npm error network: no way out' >&2; exit 1", monkeypatch)
    with pytest.raises(ValueError, match=r"npm pack onnxruntime-web@.*no way out.*--runtime"):
        find_runtime()
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_filled_with_all_files_or_none(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_npm(tmp_path, f"cp {tmp_path}/package.tgz .", monkeypatch)
    for files in (FILES[:-1], FILES):
        with tarfile.open(tmp_path / "package.tgz", "w:gz") as package:
            for name in files:
                package.add(runtime / name, f"package/dist/{name}")
        if files == FILES:
            found = find_runtime()
            assert {path.name: path.read_bytes() for path in found.iterdir()} == {
                name: (runtime / name).read_bytes() for name in FILES
            }
        else:
            with pytest.raises(ValueError, match=f"has no dist/{FILES[-1]}"):
                find_runtime()
            assert not (tmp_path / "cache").exists()


def test_a_filled_cache_needs_no_npm(runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from impasto.demo.runtime import cache_folder

    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache_folder().parent.mkdir(parents=True)
    runtime.rename(cache_folder())
    assert find_runtime() == cache_folder()
