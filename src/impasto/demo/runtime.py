"""Finds the files of ONNX Runtime Web: in a given folder, or in a cache that npm fills once."""

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
    # For the CPU:
    "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm",
    # For WebGPU, twice as large:
    "ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
)  # fmt: skip
_PACKAGE = f"onnxruntime-web@{VERSION}"
_SECONDS = 600  # time limit for npm, which downloads 33 MB


def find_runtime(folder: str | None = None) -> Path:
    """Return the folder with the runtime's files.

    Args:
        folder: a folder that has them, such as `dist` of the npm package; None: the cache, which
            is filled if files are missing.

    Raises:
        ValueError: the given folder lacks files; or the cache does, and npm is missing or fails.
    """
    if folder is not None:
        given = Path(folder).expanduser()
        if missing := _missing(given):
            raise ValueError(
                f"--runtime {folder}: has no {', '.join(missing)}; "
                f"give `dist` of the package {_PACKAGE}"
            )
        return given.resolve()
    cache = cache_folder()
    if _missing(cache):
        _fill(cache)
    return cache


def cache_folder() -> Path:
    """Return the cache folder of this version, in $XDG_CACHE_HOME/impasto or ~/.cache/impasto."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "impasto" / f"onnxruntime-web-{VERSION}"


def _missing(folder: Path) -> list[str]:
    return [name for name in FILES if not (folder / name).is_file()]


def _fill(cache: Path) -> None:
    """Fill the cache with all files from npm, or with none."""
    print(f"fetching {_PACKAGE} with npm, once, into {cache}", file=sys.stderr, flush=True)
    with (
        TemporaryDirectory() as place,
        tarfile.open(_packed(Path(place))) as package,
        new_files(overwrite=True) as begin,
    ):
        for name in FILES:
            begin(cache / name).write(_packed_file(package, name))


def _packed(folder: Path) -> Path:
    """Download the package into the folder with `npm pack`, which checks it; return its .tgz file.

    Raises:
        ValueError: npm is missing, fails, or takes longer than `_SECONDS`.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            f"the page needs {_PACKAGE}: install npm, which fetches it, "
            "or name a folder that has its files (--runtime)"
        )
    command = [npm, "pack", _PACKAGE, "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
        reason = done.stderr.strip()[-200:] or f"status {done.returncode}"
    except subprocess.TimeoutExpired:
        reason = f"not done after {_SECONDS} seconds"
    packed = next(folder.glob("*.tgz"), None)
    if packed is None:
        raise ValueError(
            f"npm pack {_PACKAGE}: {reason}; --runtime names a folder that has its files"
        )
    return packed


def _packed_file(package: tarfile.TarFile, name: str) -> bytes:
    """Return one file of the package's `dist`; raise `ValueError` if it is missing."""
    try:
        source = package.extractfile(f"package/dist/{name}")
    except KeyError:
        source = None
    if source is None:
        raise ValueError(f"{_PACKAGE} has no dist/{name}; --runtime names a folder that has it")
    return source.read()
