"""Files are written whole or not at all, several of them all or none, and nothing else is left."""

import errno
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from impasto import commands as cli
from impasto import writing
from impasto.writing import FileError, check_folder, lock_folder, new_file, new_files, remove_locked, write_bytes


def found(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def unsupported(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_rename_that_fails_leaves_what_was_there(overwrite: bool, tmp_path: Path, monkeypatch) -> None:
    if overwrite:
        (tmp_path / "a.bin").write_bytes(b"precious")
    before = found(tmp_path)
    monkeypatch.setattr(os, "link", unsupported)  # a file system without hard links: the name is claimed first
    monkeypatch.setattr(Path, "replace", unsupported)
    with pytest.raises(FileError, match=r"a\.bin: Operation not permitted$"):
        write_bytes(tmp_path / "a.bin", b"new", overwrite)
    assert found(tmp_path) == before


def test_several_files_get_their_names_together_or_none_does(tmp_path: Path) -> None:
    with new_files() as begin:
        for name in ("new/a", "b"):
            begin(tmp_path / name).write(name.encode())
        assert not {"new/a", "b"} & {*found(tmp_path)}
    assert found(tmp_path) == {"new": b"", "new/a": b"new/a", "b": b"b"}

    def late() -> None:
        with new_files() as begin:
            begin(tmp_path / "c").write(b"c")
            begin(tmp_path / "other" / "d").write(b"d")
            begin(tmp_path / "e").write(b"e")
            (tmp_path / "e").write_bytes(b"precious")  # of another process, meanwhile

    with pytest.raises(FileError, match="e: exists already"):
        late()
    assert found(tmp_path) == {"new": b"", "new/a": b"new/a", "b": b"b", "e": b"precious"}


def test_a_full_disk_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"x/a: No space left on device$"), new_file(tmp_path / "x" / "a") as file:
        file.write(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert found(tmp_path) == {}


def test_a_disk_that_takes_all_but_the_last_byte_is_full(tmp_path: Path) -> None:
    """Pillow writes to a descriptor by itself, and takes a part of its last block for the whole."""
    image, before = Image.effect_noise((300, 200), 100), resource.getrlimit(resource.RLIMIT_FSIZE)
    with new_file(tmp_path / "a") as file:
        image.save(file, "TIFF")
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "a").stat().st_size - 1, before[1]))
    try:
        with pytest.raises(FileError, match=r"b: File too large$"), new_file(tmp_path / "b") as file:
            image.save(file, "TIFF")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [*found(tmp_path)] == ["a"]


def test_a_disk_that_shows_full_only_at_the_end_leaves_none_of_several(tmp_path: Path, monkeypatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FileError, match="Disk quota exceeded"), new_files(durable=True) as begin:
        begin(tmp_path / "a").write(b"a")
        begin(tmp_path / "b").write(b"b")
    assert found(tmp_path) == {}


def test_a_folder_is_tried_without_being_left(tmp_path: Path) -> None:
    check_folder(tmp_path / "deep" / "er")
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        check_folder(tmp_path / "file" / "x")
    with pytest.raises(OSError, match="too long"):
        check_folder(tmp_path / "new" / ("n" * 300))
    assert found(tmp_path) == {"file": b""}


def test_no_room_is_said_before(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: SimpleNamespace(free=2_000_000))
    writing.check_room(tmp_path / "not" / "there" / "a", 2_000_000)
    with pytest.raises(FileError, match=r"disk is full \(it takes 3\.0 MB at least, 2\.0 MB are free there\)"):
        writing.check_room(tmp_path / "not" / "there" / "a", 3_000_000)


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("command", ["infer", "optimize", "evaluate", "export", "demo", "benchmark", "train"])
def test_a_signal_that_ends_a_command_leaves_nothing(name: str, status: int, command: str, tmp_path, monkeypatch):
    def work(*_: object, **__: object) -> int:
        with new_files() as begin:
            begin(tmp_path / "new" / "a").write(b"half")
            os.kill(os.getpid(), getattr(signal, name))
        return 0

    class Module(SimpleNamespace):
        def __getattr__(self, _: str) -> object:
            return work

    monkeypatch.setattr(cli, "import_module", lambda _: Module())
    monkeypatch.setattr("impasto.commands.arguments.parsed", lambda *_, **__: {})
    if command == "train":
        monkeypatch.setattr("impasto.commands.train.train", work)
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # nohup would have it ignored
    try:
        assert cli.run(command, *(["fit"] if command == "train" else [])) == status
        assert found(tmp_path) == {} and signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_signal_that_is_ignored_stays_so(monkeypatch) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli._ending_as_ctrl_c() as came:
            os.kill(os.getpid(), signal.SIGHUP)
        assert came == [] and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_lock_ends_with_its_folder(tmp_path: Path) -> None:
    """A folder that was removed, in whichever way, is locked again by another process."""
    place = tmp_path / "run"
    taking = (
        "import sys; from pathlib import Path; from impasto.writing import FolderLocked, lock_folder\n"
        "try:\n    lock_folder(Path(sys.argv[1]))\nexcept FolderLocked as error:\n    print(error.holder)"
    )
    other = lambda: subprocess.run([sys.executable, "-c", taking, place], capture_output=True, text=True).stdout  # noqa: E731
    assert lock_folder(place) and not lock_folder(place), "its process may have it twice"
    (place / "pictures").mkdir()
    assert other() == f"process {os.getpid()} on {socket.gethostname()}\n"
    remove_locked(place)
    assert not place.exists() and other() == "" and place.exists()
    shutil.rmtree(place)
    assert lock_folder(place) and other() != ""
    shutil.rmtree(place)
    assert lock_folder(place) and other() != "", "the lock of the folder before is not taken for this one's"
