"""Photos and Parquet files: found, and found in installed packages."""

from pathlib import Path

import pytest
from pictures import save

from impasto.data.files import find_images, find_parquet, is_hub_id, located
from impasto.data.sources import FolderPhotos
from impasto.images import read_image


def test_images_are_found_at_any_depth_sorted_and_without_what_is_hidden(tmp_path: Path) -> None:
    for name in ["b/2.JPG", "a.txt", "b/1.png", ".hidden/x.png", "c/.y.png", "a.WebP", "b.jpeg"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.WebP", "b.jpeg", "b/1.png", "b/2.JPG"]


def test_no_folder_and_no_image_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^.*nowhere: no such folder; [^\n]*$"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"holds no image; [^\n]*\.jpg[^\n]*$"):
        find_images(tmp_path)


def test_parquet_is_meant_by_a_file_a_pattern_or_a_folder_without_images(tmp_path: Path) -> None:
    root, parquet = tmp_path, [str(tmp_path / f"{part}.parquet") for part in "ab"]
    for file in parquet:
        Path(file).touch()
    assert find_parquet(root) == parquet
    assert find_parquet(str(root / "*.parquet")) == parquet
    assert find_parquet(parquet[1]) == parquet[1:]
    (root / "photo.png").touch()
    assert find_parquet(root) == []
    with pytest.raises(ValueError, match=r"photo\.png: not a Parquet file; [^\n]+$"):
        find_parquet(root / "photo.png")


def test_a_file_of_an_installed_package_is_located() -> None:
    coffee = located("package:skimage/data/coffee.png")
    assert read_image(coffee).pixels.shape == (1, 3, 400, 600)
    assert located("~") == Path.home()
    with pytest.raises(ValueError, match=r"no package not_there is installed; pip install -e '\.\[quickstart\]'"):
        located("package:not_there/photo.png")


def test_a_list_of_folders_and_files_is_one_collection(tmp_path: Path) -> None:
    one = save(tmp_path / "one.png", 1)
    inside = [save(tmp_path / "folder" / "deep" / f"{i}.png", i) for i in range(2)]
    photos = FolderPhotos([str(one), str(tmp_path / "folder")])
    assert [photos.name(i) for i in range(len(photos))] == [str(file) for file in (one, *inside)]
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        FolderPhotos([str(one), str(tmp_path / "nowhere")])


def test_two_words_that_are_no_path_are_a_dataset_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my" / "photos").mkdir(parents=True)
    assert is_hub_id("detection-datasets/coco") and is_hub_id("a/b_c.d-2")
    paths = ("my/photos", "./photos", "../photos", "~/photos", "/photos", "photos", "photos/", "a/b/c", "a/*", "")
    assert not any(is_hub_id(path) for path in (*paths, "my/photo.JPG", "my/rows.parquet", "package:skimage/data"))
