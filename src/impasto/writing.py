"""Files that are written whole or not at all: beside their place under another name, then given their own."""

import errno
import io
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

REASONS = {
    errno.ENOENT: "no such file",
    errno.EISDIR: "is a folder: give the name of a file",
    errno.ENOTDIR: "a file is where its folder should be",
    errno.EACCES: "permission denied",
    errno.EEXIST: "exists already: choose another name, or pass --overwrite to replace it",
}
_TEMPORARY = ".impasto-{}.tmp"
Begin = Callable[[str | Path], BinaryIO]


class FileError(ValueError):
    """A file cannot be written; the message is one line, "<path>: <reason>"."""


class _Draft(io.BufferedRandom):
    """A file without a public descriptor, so that Pillow writes through Python.

    Pillow itself ignores short writes: on a full disk it would lose the end of a file and report no error.
    """

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextmanager
def new_file(path: str | Path, overwrite: bool = False, *, durable: bool = False) -> Iterator[BinaryIO]:
    """A file to fill, in a folder made for it, that gets the name `path` at the end: whole or not at all.

    Args:
        path: where it is to be.
        overwrite: replace an earlier file, keeping its permissions.
        durable: it survives a power cut once it has its name.

    Raises:
        FileError: the place is unfit, or taken (unless `overwrite`), or the disk is full. Other errors of whoever fills
            the file pass.
    """
    with new_files(overwrite, durable=durable) as begin:
        yield begin(path)


@contextmanager
def new_files(overwrite: bool = False, *, durable: bool = False) -> Iterator[Begin]:
    """Gives a function that begins a file, as `new_file`; at the end all of them get their names, or none does."""
    drafts: list[tuple[_Draft, Path, Path]] = []
    with ExitStack() as undo:

        def begin(path: str | Path) -> BinaryIO:
            path = Path(path)
            with _explained(path):
                for folder in _make_folder(path.parent):
                    undo.callback(_remove_empty, folder)
                temporary = path.parent / _TEMPORARY.format(secrets.token_hex(8))
                undo.callback(_remove, temporary)
                raw = io.FileIO(temporary, "x+")  # follows the umask, which tempfile does not
                file = undo.enter_context(_Draft(raw))
                # Runs before the file is closed, which would otherwise write once more what a full disk refused.
                undo.callback(file.raw.close)
            drafts.append((file, temporary, path))
            return file

        try:
            yield begin
        except OSError as error:
            if error.filename is not None or not drafts:
                raise
            with _explained(drafts[-1][2]):
                raise
        for file, _, path in drafts:  # a full disk shows here, before any has its name
            with _explained(path):
                file.flush()
                if durable:
                    os.fsync(file.raw.fileno())
                file.close()
        named: list[Path] = []
        try:
            for _, temporary, path in drafts:
                with _explained(path):
                    if not _publish(temporary, path, overwrite):
                        named.append(path)
        except BaseException:
            for path in named:
                path.unlink(missing_ok=True)
            raise
        if durable:
            for folder in {path.parent for _, _, path in drafts}:
                _flush_folder(folder)


def write_bytes(path: str | Path, data: bytes, overwrite: bool = False) -> None:
    """`new_file` with that content."""
    with new_file(path, overwrite) as file:
        file.write(data)


def write_text(path: str | Path, text: str, overwrite: bool = False) -> None:
    """`new_file` with that text, in UTF-8."""
    write_bytes(path, text.encode(), overwrite)


def check_folder(folder: Path) -> None:
    """Refuses a folder that cannot be made or written; makes none that was not there.

    Raises:
        OSError: as the system says it, `NotADirectoryError` where it is a file.
    """
    made = _make_folder(folder)
    try:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file has that name")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, REASONS[errno.EACCES])
    finally:
        for path in reversed(made):
            _remove_empty(path)


def check_room(path: Path, size: int) -> None:
    """`FileError` where the disk has no room for a file of `size` bytes at that place."""
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if free < size:
        room = f"it takes {size / 1e6:.1f} MB at least, {free / 1e6:.1f} MB are free there"
        raise FileError(f"{path}: the disk is full ({room}): make room, or choose another place")


def sweep(folder: Path) -> None:
    """Removes what a killed process left of its files, from a folder that no other process writes to."""
    for path in folder.glob(_TEMPORARY.format("*")):
        path.unlink(missing_ok=True)


def one_line(path: object, reason: str) -> str:
    """The message of an error about a file."""
    return " ".join(f"{path}: {reason}".splitlines())


@contextmanager
def _explained(path: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0) or error.strerror or f"cannot be written ({error})"
        raise FileError(one_line(path, reason)) from error


def _make_folder(folder: Path) -> list[Path]:
    """Makes a folder; gives those that were not there, the outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    made = []
    try:
        for path in missing:
            with suppress(FileExistsError):  # of another process, meanwhile; a file of that name is met by open()
                path.mkdir()
                made.append(path)
    except OSError:
        for path in reversed(made):
            _remove_empty(path)
        raise
    return made


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _publish(temporary: Path, path: Path, overwrite: bool) -> bool:
    """Gives the finished file its name; whether another file had it. A link, unlike a move, never replaces one."""
    if overwrite:
        if there := path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
        return there
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except (OSError, AttributeError):  # a file system, or a system, without hard links: claim the name, then move
        path.open("xb").close()
        try:
            temporary.replace(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return False


def _flush_folder(folder: Path) -> None:
    """The new name, too, is to survive a power cut."""
    if hasattr(os, "O_DIRECTORY"):  # not on Windows
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
