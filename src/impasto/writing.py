"""Writing files whole or not at all.

A file is written under a temporary name in its folder, and renamed when it is complete. A folder
that only one process may write to is locked.
"""

import errno
import io
import os
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

REASONS = {
    errno.ENOENT: "no such file",
    errno.EISDIR: "is a folder: give the name of a file",
    errno.ENOTDIR: "a file is where its folder should be",
    errno.EACCES: "permission denied",
    errno.EEXIST: "exists already: choose another name, or pass --overwrite to replace it",
}
_TEMPORARY = ".impasto-{}.tmp"
_LOCK = ".lock"  # the file in a folder that is locked
_locks: dict[Path, IO[str]] = {}  # by folder, open until this process ends
Begin = Callable[[str | Path], BinaryIO]  # begins a file with this path


class FileError(ValueError):
    """A file cannot be written; the message is one line, "<path>: <reason>"."""


class FolderLocked(ValueError):
    """Another process has locked a folder.

    Attributes:
        holder: that process, as a message names it: "process 12 on host".
    """

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(one_line(folder, f"{holder} has locked it"))
        self.holder = holder


class _Draft(io.BufferedRandom):
    """A file without a public descriptor, so that Pillow writes through Python.

    Pillow itself ignores short writes: on a full disk it would lose the end of a file and report no
    error.
    """

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextmanager
def new_file(
    path: str | Path, overwrite: bool = False, *, durable: bool = False
) -> Iterator[BinaryIO]:
    """Yield a binary file to fill, which becomes `path` when the block ends without an error.

    Missing folders are created, and removed again after an error.

    Args:
        path: the file to write.
        overwrite: replace an existing file, keeping its permissions.
        durable: flush to the disk, so that the file survives a power cut once the block has ended.

    Raises:
        FileError: the file cannot be written there, exists (unless `overwrite`), or the disk is
            full. Other errors inside the block pass through.
    """
    with new_files(overwrite, durable=durable) as begin:
        yield begin(path)


@contextmanager
def new_files(overwrite: bool = False, *, durable: bool = False) -> Iterator[Begin]:
    """Yield a function that begins a file. When the block ends, all files get their names.

    After an error, no new file is left. Files that have already been replaced stay replaced.

    Args:
        overwrite: as in `new_file`.
        durable: as in `new_file`.

    Raises:
        FileError: as in `new_file`.
    """
    drafts: list[tuple[_Draft, Path, Path]] = []
    with ExitStack() as undo:

        def begin(path: str | Path) -> BinaryIO:
            path = Path(path)
            with _explained(path):
                for folder in _make_folder(path.parent):
                    undo.callback(_remove_empty, folder)
                temporary = path.parent / _TEMPORARY.format(secrets.token_hex(8))
                undo.callback(_remove, temporary)
                # `io.FileIO` follows the umask; tempfile would not.
                raw = io.FileIO(temporary, "x+")
                file = undo.enter_context(_Draft(raw))
                # This runs before the file is closed. Otherwise closing it would try once more to
                # write what a full disk has refused.
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
        # Flush all files before naming any, because a full disk may only show here.
        for file, _, path in drafts:
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
    """Write a file with these bytes; see `new_file`."""
    with new_file(path, overwrite) as file:
        file.write(data)


def write_text(path: str | Path, text: str, overwrite: bool = False) -> None:
    """Write a file with this text in UTF-8; see `new_file`."""
    write_bytes(path, text.encode(), overwrite)


def check_folder(folder: Path) -> None:
    """Check that a folder can be created and written to. A folder that was missing stays missing.

    Raises:
        OSError: it cannot; `NotADirectoryError` if the path is a file.
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
    """Raise FileError if the disk has no room for a file of `size` bytes at `path`."""
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(folder).free
    if free < size:
        room = f"it takes {size / 1e6:.1f} MB at least, {free / 1e6:.1f} MB are free there"
        raise FileError(f"{path}: the disk is full ({room}): make room, or choose another place")


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder.

    No other process may be writing to the folder.
    """
    for path in folder.glob(_TEMPORARY.format("*")):
        path.unlink(missing_ok=True)


def lock_folder(folder: Path, *inner: Path) -> bool:
    """Lock a folder for this process until it ends, however it ends.

    A missing folder is created. Temporary files of a killed process are removed from it, and from
    the `inner` folders. Nothing is locked or removed on Windows, or on a file system without locks.

    Returns:
        Whether the folder is new.

    Raises:
        FolderLocked: another process has locked it.
    """
    new = not folder.exists()
    try:
        import fcntl
    except ImportError:  # Windows
        folder.mkdir(parents=True, exist_ok=True)
        return new
    place = folder.resolve()
    if place in _locks:
        # Opening and closing the file once more would drop the lock.
        if _is_at(place / _LOCK, _locks[place]):
            return new
        _locks.pop(place).close()  # the folder was removed, and is another one now
    while True:
        _make_folder(place)
        try:
            file = (place / _LOCK).open("a+")
        except FileNotFoundError:  # another process has just removed the folder
            continue
        try:
            # Not flock: workers would inherit that lock, and may outlive this process.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            with file:
                file.seek(0)
                holder = file.read().strip()
            named = f"process {holder}" if holder else "another process"
            raise FolderLocked(folder, named) from None
        except OSError:  # a file system without locks
            file.close()
            return new
        if _is_at(place / _LOCK, file):
            break
        file.close()  # another process has just removed it
    _locks[place] = file
    for path in (place, *inner):  # no other process writes there now
        sweep(path)
    file.truncate(0)
    file.write(f"{os.getpid()} on {socket.gethostname()}")
    file.flush()
    return new


def empty_locked(folder: Path) -> None:
    """Remove all that is in a folder, but its lock.

    Raises:
        OSError: something cannot be removed.
    """
    for path in folder.iterdir():
        if path.name == _LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_locked(folder: Path) -> None:
    """Remove a folder that this process has locked, with all that is in it, and unlock it.

    Raises:
        OSError: something in it cannot be removed. The folder is locked still.
    """
    empty_locked(folder)
    place = folder.resolve()
    # The lock goes last: no other process can have the folder while anything else is in it.
    _remove(place / _LOCK)
    if file := _locks.pop(place, None):
        file.close()
    _remove_empty(place)


def one_line(path: object, reason: str) -> str:
    """Return an error message about a file, "path: reason", in one line."""
    return " ".join(f"{path}: {reason}".splitlines())


@contextmanager
def _explained(path: object) -> Iterator[None]:
    """Turn an OSError into a FileError about `path`."""
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0) or error.strerror or f"cannot be written ({error})"
        raise FileError(one_line(path, reason)) from error


def _is_at(path: Path, file: IO[str]) -> bool:
    """Whether an open file is the one that has this path now."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _make_folder(folder: Path) -> list[Path]:
    """Create a folder and its parents, and return the created ones, outermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()][::-1]
    made = []
    try:
        for path in missing:
            # Another process may have created it meanwhile. A file of that name fails later, when
            # a file inside it is opened.
            with suppress(FileExistsError):
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
    """Give the finished file its name, and return whether an existing file was replaced."""
    if overwrite:
        if there := path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
        return there
    try:
        os.link(temporary, path)  # unlike a move, a link never replaces a file
    except FileExistsError:
        raise
    except (OSError, AttributeError):
        # The file system or the operating system has no hard links: claim the name, then move.
        path.open("xb").close()
        try:
            temporary.replace(path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return False


def _flush_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that new names in it survive a power cut."""
    if hasattr(os, "O_DIRECTORY"):  # not on Windows
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
