"""Files below folders: each once, behind links too, and patterns as `glob` reads them where nothing goes in circles."""

import glob
import os
from pathlib import Path

import pytest
from PIL import Image

from impasto.choices import IMAGE_SUFFIXES
from impasto.commands.jobs import find
from impasto.data.files import find_images, find_parquet
from impasto.data.folders import search, walk


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos in photos/ and, outside of it, elsewhere/, which a link leads to; four links go in circles."""
    for name in ("photos/a.png", "photos/b/c.jpg", "photos/b/.hidden.png", "photos/.git/d.png", "elsewhere/deep/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    links = {
        "linked": "../elsewhere",
        "again": "../elsewhere/deep",
        "own": "b",
        "round": ".",
        "b/back": "..",
        "b/up": ".",
    }
    for name, target in links.items():
        (tmp_path / "photos" / name).symlink_to(target)
    (tmp_path / "elsewhere" / "home").symlink_to(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_links_are_followed_and_each_folder_is_visited_once(tree: Path) -> None:
    # again/ is the link that comes first; what has a path of its own keeps it.
    assert list(walk("photos")) == [Path("photos", name) for name in ("a.png", "b/c.jpg", "again/e.png")]
    (tree / "photos" / "again").unlink()
    assert list(map(str, walk("photos"))) == ["photos/a.png", "photos/b/c.jpg", "photos/linked/deep/e.png"]


def test_every_command_finds_them(tree: Path) -> None:
    expected = ["photos/a.png", "photos/again/e.png", "photos/b/c.jpg"]
    assert list(map(str, find_images("photos"))) == expected
    for photos in ("photos", "photos/**", "photos/**/*.*"):
        assert sorted(str(one.photo) for one in find([photos], Path("stylized"))) == expected
    below = {one.photo: one.below for one in find(["photos"], Path("stylized"))}
    assert below[Path("photos/again/e.png")] == Path("again")


def test_a_folder_of_links_holds_images(tree: Path) -> None:
    Path("album").mkdir()
    Path("album/photo.png").symlink_to(tree / "photos" / "a.png")
    Path("album/trip").symlink_to(tree / "elsewhere")
    Path("shelf").symlink_to("album")
    for folder in ("album", "shelf"):
        assert {path.name for path in find_images(folder)} == {"photo.png", "a.png", "c.jpg", "e.png"}


def test_results_are_not_found_behind_links_either(tree: Path) -> None:
    Path("stylized/b").mkdir(parents=True)
    Path("stylized/b/a.png").touch()
    Path("photos/results").symlink_to("../stylized")
    Path("photos/some").symlink_to("../stylized/b")
    names = {one.photo.name for one in find(["photos"], Path("stylized"))}
    assert names == {"a.png", "c.jpg", "e.png"}
    assert len(find(["photos"], Path("stylized"))) == 3
    assert [str(one.photo) for one in find(["stylized"], Path("stylized"))] == ["stylized/b/a.png"]


PATTERNS = ["photos/*", "photos/*.png", "*/*/*.jpg", "**/*.png", "**", "photos/**/c.*", "p*s/**/b/**/*", "no/**/*.png"]


@pytest.mark.parametrize("pattern", [*PATTERNS, "photos/**/[ab].*", "photos/.git/*"])
def test_patterns_mean_what_glob_says(tree: Path, pattern: str) -> None:
    for root, names, _ in os.walk("."):
        for link in (Path(root, name) for name in names if Path(root, name).is_symlink()):
            link.unlink()  # glob itself goes in circles until paths are too long
    expected = [path for path in map(Path, glob.glob(pattern, recursive=True)) if path.is_file()]  # noqa: PTH207
    assert [path for path in search(Path(pattern)) if path.is_file()] == sorted(expected, key=str)
    absolute = [tree / path for path in expected]
    assert [path for path in search(tree / pattern) if path.is_file()] == sorted(absolute, key=str)


def test_parquet_behind_a_link(tree: Path) -> None:
    Path("elsewhere/rows.parquet").touch()
    Path("data").mkdir()
    Path("data/part").symlink_to("../elsewhere")
    Path("elsewhere/home").unlink()
    Path("elsewhere/deep/e.png").unlink()
    assert find_parquet("data") == find_parquet("data/**/*.parquet") == ["data/part/rows.parquet"]


def test_every_suffix_of_the_formats_we_read_is_looked_for() -> None:
    formats = {"JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF"}
    Image.init()
    of_pillow = {suffix for suffix, kind in Image.registered_extensions().items() if kind in formats}
    assert of_pillow <= set(IMAGE_SUFFIXES) and set(IMAGE_SUFFIXES) - of_pillow == {".heic", ".heif", ".hif"}


def test_pictures_of_other_kinds_are_said_to_be_left_out(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("x.CR2", "y.cr2", "z.jxl", "notes.txt"):
        (tree / "photos" / name).touch()
    for look in (lambda: find_images("photos"), lambda: find(["photos"], Path("stylized"))):
        caplog.clear()
        assert len(look()) == 3
        (record,) = caplog.records
        assert "cannot be read: 2 .cr2, 1 .jxl; convert them" in record.getMessage()
