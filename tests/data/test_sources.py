"""Photos are found in one order, read whatever they are, and cropped by (seed, number) alone."""

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from impasto.data.crops import center_crop
from impasto.data.sources import (
    DatasetPhotos,
    FolderPhotos,
    Skipped,
    draw,
)
from impasto.images import ImageError

GREYS = 12  # photo i is of one colour, 16·i + 8, by which any crop of it is known


def encoded(i: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32), (16 * i + 8,) * 3).save(buffer, kind)
    return buffer.getvalue()


def which(sample: Tensor) -> int:
    return int((sample.mean() * 255 - 8).div(16).round())


def which_image(photo: Image.Image) -> int:
    return which(center_crop(photo, 16))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(GREYS):
        path = tmp_path / "photos" / f"{i % 3}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(i))
    return tmp_path / "photos"


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    rows = [{"bytes": encoded(i), "path": None} for i in range(GREYS)]
    rows[3]["bytes"] = rows[3]["bytes"][:60]
    features = datasets.Features({"picture": datasets.Image(), "number": datasets.Value("int32")})
    columns = {"picture": rows, "number": list(range(GREYS))}
    whole = datasets.Dataset.from_dict(columns, features=features)
    files = [str(tmp_path / f"{part}.parquet") for part in "ab"]
    whole.select(range(6)).to_parquet(files[0])
    whole.select(range(6, GREYS)).to_parquet(files[1])
    return files


def test_every_epoch_holds_every_photo_once_in_another_order(folder: Path) -> None:
    photos, skipped = FolderPhotos(folder), []
    orders = [[which(draw(photos, 16, 0, n, skipped)) for n in range(first, first + GREYS)] for first in (0, GREYS)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(GREYS))
    assert orders[0] != orders[1] and not skipped


def test_samples_depend_on_the_seed_and_the_number_only(folder: Path) -> None:
    photos = FolderPhotos(folder)
    first = [draw(photos, 16, 5, n, []) for n in range(GREYS)]
    again = [draw(FolderPhotos(folder), 16, 5, n, []) for n in reversed(range(GREYS))]
    assert all(torch.equal(a, b) for a, b in zip(first, reversed(again), strict=True))
    assert [which(a) for a in first] != [which(draw(photos, 16, 6, n, [])) for n in range(GREYS)]


def test_each_sample_has_a_crop_of_its_own(tmp_path: Path) -> None:
    Image.effect_noise((64, 64), 50).save(tmp_path / "noise.png")
    samples = [draw(FolderPhotos(tmp_path), 16, 0, n, []) for n in range(4)]
    assert all((a - b).abs().max() > 0.1 for a, b in itertools.combinations(samples, 2))


def test_an_unreadable_photo_is_replaced_named_and_the_same_each_time(folder: Path) -> None:
    bad = folder / "0" / "00.png"
    bad.write_bytes(bad.read_bytes()[:60])
    photos = FolderPhotos(folder)
    runs: list[list[tuple[int, Skipped]]] = [[], []]
    for run in runs:
        for n in range(20 * GREYS):
            skipped: Skipped = []
            run.append((which(draw(photos, 16, 0, n, skipped)), skipped))
    assert runs[0] == runs[1]
    instead = [photo for photo, skipped in runs[0] if skipped]
    assert len(instead) == 20 and 0 not in instead and len(set(instead)) > 5
    assert {name for _, skipped in runs[0] for name, _ in skipped} == {str(bad)}
    assert not any(str(bad) in reason for _, skipped in runs[0] for _, reason in skipped)


def test_a_folder_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_text("not a picture")
    with pytest.raises(ValueError, match=r"^[^\n]*no readable photo, 2 tried, such as [^\n]*$"):
        draw(FolderPhotos(tmp_path), 16, 0, 0, [])


def test_part_of_a_collection_keeps_its_names(folder: Path) -> None:
    photos = FolderPhotos(folder)
    part = photos.only([7, 2])
    assert (len(part), len(photos)) == (2, GREYS)
    assert [part.name(0), part.name(1)] == [photos.name(7), photos.name(2)]
    assert part.open(1).tobytes() == photos.open(2).tobytes()


def test_a_dataset_finds_its_images_and_survives_a_damaged_one(parquet: list[str]) -> None:
    photos = DatasetPhotos(parquet)
    assert len(photos) == GREYS
    assert [which_image(photos.open(i)) for i in (0, 5, 6, 11)] == [0, 5, 6, 11]
    with pytest.raises(ImageError):
        which_image(photos.open(3))
    skipped: Skipped = []
    drawn = {which(draw(photos, 16, 0, n, skipped)) for n in range(GREYS)}
    assert drawn == set(range(GREYS)) - {3}
    assert [name for name, _ in skipped] == [f"{parquet[0]} row 3"]


def test_a_dataset_without_such_a_column_says_which_there_are(parquet: list[str]) -> None:
    assert len(DatasetPhotos(parquet, image_column="picture")) == GREYS
    with pytest.raises(ValueError, match=r"no column photo; set --data\.image_column to one of: picture$"):
        DatasetPhotos(parquet, image_column="photo")


def test_a_dataset_out_of_reach_is_refused_in_one_line_with_a_way_out() -> None:
    code = (
        "from impasto.data.sources import DatasetPhotos\n"
        "try: DatasetPhotos('someone/paintings', 'test')\n"
        "except ValueError as error: print(error)"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    message = done.stdout.strip()
    assert message.startswith("someone/paintings: no such folder, and no dataset of the hub with a split test ")
    assert message.endswith("pass --data.photos FOLDER") and "\n" not in message


def test_a_folder_needs_no_datasets(folder: Path) -> None:
    code = (
        "import sys\n"
        "from impasto.data.modules import Photos\n"
        f"data = Photos({str(folder)!r}, crop=16, num_workers=0); data.setup()\n"
        "next(iter(data.train_dataloader()))\n"
        "print('datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
