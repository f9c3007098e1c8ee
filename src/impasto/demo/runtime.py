"""Where the files of ONNX Runtime Web come from: a folder given, a cache, or once from npm."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from impasto.writing import new_files

VERSION = "1.30.0"
FILES = (
    "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm",  # for the CPU
    "ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm",  # for WebGPU; twice the download
)  # fmt: skip
_PACKAGE = f"onnxruntime-web@{VERSION}"
_SECONDS = 600  # npm fetches 33 MB; one that hangs is given up


def find_runtime(folder: str | None = None) -> Path:
    """The folder with the runtime's files.

    Raises:
        ValueError: the folder given lacks some; or none is given, the cache is empty, and npm is missing or fails.
    """
    if folder is not None:
        given = Path(folder).expanduser()
        if missing := _missing(given):
            raise ValueError(f"--runtime {folder}: has no {', '.join(missing)}; give `dist` of the package {_PACKAGE}")
        return given.resolve()
    cache = cache_folder()
    if _missing(cache):
        _fill(cache)
    return cache


def cache_folder() -> Path:
    """The user's cache, a folder for each version: $XDG_CACHE_HOME/impasto, or ~/.cache/impasto."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "impasto" / f"onnxruntime-web-{VERSION}"


def _missing(folder: Path) -> list[str]:
    return [name for name in FILES if not (folder / name).is_file()]


def _fill(cache: Path) -> None:
    """All files from npm, or none."""
    print(f"fetching {_PACKAGE} with npm, once, into {cache}", file=sys.stderr, flush=True)
    with (
        TemporaryDirectory() as place,
        tarfile.open(_packed(Path(place))) as package,
        new_files(overwrite=True) as begin,
    ):
        for name in FILES:
            begin(cache / name).write(_packed_file(package, name))


def _packed(folder: Path) -> Path:
    """What `npm pack` leaves in the folder: the package as one file, which npm has checked."""
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            f"the page needs {_PACKAGE}: install npm, which fetches it, or name a folder that has its files (--runtime)"
        )
    command = [npm, "pack", _PACKAGE, "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
        reason = done.stderr.strip()[-200:] or f"status {done.returncode}"
    except subprocess.TimeoutExpired:
        reason = f"not done after {_SECONDS} seconds"
    packed = next(folder.glob("*.tgz"), None)
    if packed is None:
        raise ValueError(f"npm pack {_PACKAGE}: {reason}; --runtime names a folder that has its files")
    return packed


def _packed_file(package: tarfile.TarFile, name: str) -> bytes:
    """One file of the package; `ValueError` where it is not there."""
    try:
        source = package.extractfile(f"package/dist/{name}")
    except KeyError:
        source = None
    if source is None:
        raise ValueError(f"{_PACKAGE} has no dist/{name}; --runtime names a folder that has it")
    return source.read()
