"""Batches are the same however they are made: by one rank or two, by workers or none, at once or resumed."""

import io
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from impasto.data.batches import Batches, Cursors, Loader, PhotoBatches
from impasto.data.modules import Photos
from impasto.data.sources import FolderPhotos

GREYS = 24  # photo i is of one colour, 10·i + 8, by which any crop of it is known

Batch = dict[str, Any]


def grey(i: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32), (10 * i + 8,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def which(content: Tensor) -> list[int]:
    return (content.mean((1, 2, 3)) * 255 - 8).div(10).round().int().tolist()


def seen(batches: list[Batch]) -> list[int]:
    return [photo for batch in batches for photo in which(batch["content"])]


def take(loader: Any, count: int) -> list[Batch]:
    return [batch for batch, _ in zip(loader, range(count), strict=False)]


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return len(ours) == len(theirs) and all(
        torch.equal(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) for key in ("content", "index")
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(GREYS):
        (tmp_path / "photos" / f"{i:02}.png").write_bytes(grey(i))
    return tmp_path / "photos"


@pytest.fixture
def parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / ".cache")
    rows = [{"bytes": grey(i)[: 60 if i == 3 else None], "path": None} for i in range(GREYS)]
    whole = datasets.Dataset.from_dict({"image": rows}, features=datasets.Features({"image": datasets.Image()}))
    for part in range(2):
        whole.shard(2, part, contiguous=True).to_parquet(tmp_path / "parquet" / f"{part}.parquet")
    return str(tmp_path / "parquet")


def photos(place: Path | str, **options: Any) -> Photos:
    data = Photos(str(place), **{"crop": 16, "batch_size": 4, "num_workers": 0, **options})
    data.setup()
    return data


class Recorder(pl.LightningModule):
    """Remembers what it is shown, and moves one weight."""

    def __init__(self, ask_early: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[Batch] = []
        self.ask_early = ask_early

    def training_step(self, batch: Batch) -> Tensor:
        self.batches.append(batch)
        return self.weight * batch["content"].mean()

    def validation_step(self, batch: Batch) -> None:
        assert batch["content"].shape[1:] == (3, 16, 16)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.ask_early:  # which makes Lightning start the loader before it restores its loops
            assert self.trainer.estimated_stepping_batches in (7, 12)
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(root: Path, data: Photos, steps: int, resume: Path | None = None, **options: Any) -> list[Batch]:
    keep = ModelCheckpoint(root, every_n_train_steps=3, save_last=True, save_top_k=-1)
    module = Recorder(ask_early=options.get("max_epochs") == 1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    often = {"check_val_every_n_epoch": None, "val_check_interval": 2}
    trainer = pl.Trainer(accelerator="cpu", max_steps=steps, callbacks=[keep], **{**quiet, **often, **options})
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return module.batches


def test_two_ranks_see_what_one_process_sees_with_batches_twice_as_large(folder: Path) -> None:
    source = FolderPhotos(folder)
    whole = take(PhotoBatches(source, 16, 6), 8)
    ranks = [take(PhotoBatches(source, 16, 3, rank=rank, world=2), 8) for rank in (0, 1)]
    for batch, ours, theirs in zip(whole, *ranks, strict=True):
        assert all(torch.equal(batch[key], torch.cat([ours[key], theirs[key]])) for key in ("content", "index"))


def test_an_epoch_over_ranks_and_workers_holds_every_photo_once(folder: Path) -> None:
    source, together = FolderPhotos(folder), []
    for rank in (0, 1):
        loader = DataLoader(PhotoBatches(source, 16, 3, rank=rank, world=2), None, num_workers=2)
        together += seen(take(loader, GREYS // 6))
    assert sorted(together) == list(range(GREYS))


def test_the_batches_do_not_depend_on_the_workers(folder: Path) -> None:
    runs = [take(photos(folder, num_workers=workers).train_dataloader(), 10) for workers in (0, 2, 3)]
    assert same(runs[0], runs[1]) and same(runs[0], runs[2])
    assert [batch["index"].tolist() for batch in runs[0]] == torch.arange(40).view(10, 4).tolist()


def test_the_seed_decides(folder: Path) -> None:
    first, again, other = (take(photos(folder, seed=seed).train_dataloader(), 5) for seed in (1, 1, 2))
    assert same(first, again)
    assert seen(first) != seen(other)


def test_the_first_photos_are_the_first_samples(folder: Path) -> None:
    data = photos(folder)
    content = torch.cat([batch["content"] for batch in take(data.train_dataloader(), 2)])
    assert torch.equal(data.first_photos(7), content[:7])
    assert torch.equal(photos(folder, batch_size=1).first_photos(7), content[:7])


def test_validation_photos_are_never_trained_on_and_the_same_for_every_seed(folder: Path) -> None:
    held = []
    for seed in (0, 1):
        data = photos(folder, seed=seed, batch_size=1)
        batches = list(data.val_dataloader())
        held.append(seen(batches))
        assert [int(batch["index"]) for batch in batches] == [0, 1]
        trained = seen(take(data.train_dataloader(), 2 * (GREYS - 2)))
        assert set(trained) == set(range(GREYS)) - set(held[-1])
        assert which(data.preview_photos(5)) == held[-1]
    assert held[0] == held[1] and len(set(held[0])) == GREYS // 10
    assert len(photos(folder, val_photos=1).preview_photos(5)) == 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("checkpoint", ["epoch=0-step=3.ckpt", "epoch=0-step=6.ckpt", "last.ckpt"])
def test_a_resumed_run_sees_what_an_uninterrupted_one_sees(
    folder: Path, tmp_path: Path, workers: int, checkpoint: str
) -> None:
    whole = fit(tmp_path / "whole", photos(folder), 12)
    before = fit(tmp_path, photos(folder, num_workers=workers), 7)
    done = {"epoch=0-step=3.ckpt": 3}.get(checkpoint, 6)
    after = fit(tmp_path, photos(folder, num_workers=workers), 12, tmp_path / checkpoint)
    assert same(before[:done] + after, whole)


@pytest.mark.parametrize(("hook", "done"), [("training_step", 6), ("validation_step", 8)])
def test_a_run_killed_in_a_step_or_in_validation_resumes_at_the_right_batch(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str, done: int
) -> None:
    whole, unharmed = fit(tmp_path / "whole", photos(folder), 12), getattr(Recorder, hook)

    def killed(module: Recorder, batch: Batch) -> Any:
        if module.global_step == done:
            module.trainer.save_checkpoint(tmp_path / "kept.ckpt")
            raise RuntimeError("killed")
        return unharmed(module, batch)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(Recorder, hook, killed)
        fit(tmp_path / "killed", photos(folder), 12)
    assert same(fit(tmp_path, photos(folder), 12, tmp_path / "kept.ckpt"), whole[done:])


def test_a_run_that_asks_for_its_length_first_resumes_all_the_same(folder: Path, tmp_path: Path) -> None:
    options = {"max_epochs": 1, "limit_train_batches": 12, "check_val_every_n_epoch": 1}
    whole = fit(tmp_path / "whole", photos(folder), 12, **options)
    fit(tmp_path, photos(folder), 7, **options)
    assert same(fit(tmp_path, photos(folder), 12, tmp_path / "last.ckpt", **options), whole[6:])


def test_a_second_lightning_epoch_goes_on_where_the_first_ended(folder: Path, tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", photos(folder), 12)
    parts = fit(tmp_path, photos(folder, num_workers=2), 12, limit_train_batches=4, val_check_interval=4)
    assert same(parts, whole)
    assert sorted(parts[0]) == ["content", "index"]  # which is all that reaches the module


@pytest.fixture
def odd(tmp_path: Path) -> tuple[Path, set[str]]:
    """Files of all kinds, and the names of those that cannot be used."""
    folder = tmp_path / "odd"
    folder.mkdir()
    noise = Image.effect_noise((40, 32), 50)
    noise.convert("RGB").save(folder / "good.jpg")
    noise.convert("CMYK").save(folder / "cmyk.jpg")
    deep = torch.randint(2**16, (32, 40)).numpy().astype("uint16")
    Image.fromarray(deep).save(folder / "deep.png")
    noise.convert("P").save(folder / "palette.png", transparency=3)
    noise.save(folder / "still.gif")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes((folder / "good.jpg").read_bytes()[:300])
    return folder, {str(folder / name) for name in ("dot.png", "text.jpg", "empty.jpg", "cut.jpg")}


@pytest.mark.parametrize(("readable", "why"), [
    (range(1, 20), "none of its photos can be read"),
    ([0], "training needs the few photos that can be read"),
])  # fmt: skip
def test_why_there_is_no_validation(
    readable: list[int], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("impasto.data.sources.shuffled", lambda length, *_: list(range(length)))
    for i in range(20):
        (tmp_path / f"{i:02}.png").write_bytes(grey(i) if i in readable else b"no picture")
    data = Photos(str(tmp_path), crop=16, batch_size=1, num_workers=0, val_photos=1)
    data.setup()
    assert caplog.messages[-1] == f"no validation: {why}"


def test_bad_files_are_replaced_and_each_is_reported_once(
    odd: tuple[Path, set[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, bad = odd
    data = photos(folder, num_workers=2)
    batches = fit(tmp_path, data, 12)
    assert all(batch["content"].std() > 0 for batch in batches)
    lines = [r.getMessage() for r in caplog.records if r.name == "impasto" and r.levelno == logging.WARNING]
    reported = [line for line in lines if line.startswith("skipped ")]
    assert len(reported) == len(bad)
    assert {line.removeprefix("skipped ").split(": ")[0] for line in reported} == bad
    assert not any("\n" in line for line in lines)
    assert [line for line in lines if line.startswith("no validation: ")] == [
        "no validation: it takes one photo of ten, and there are 9"
    ]
    total = re.fullmatch(r"photos that could not be read: 4, met and replaced (\d+) times", lines[-1])
    assert total and int(total[1]) > 12


def test_nothing_is_said_at_the_end_where_all_could_be_read(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(tmp_path, photos(folder), 2)
    assert not [record for record in caplog.records if record.name == "impasto"]


def test_one_good_file_among_bad_ones_is_enough(odd: tuple[Path, set[str]]) -> None:
    for path in odd[0].iterdir():
        if str(path) not in odd[1] and path.name != "cmyk.jpg":
            path.unlink()
    data = photos(odd[0])
    assert take(data.train_dataloader(), 3)[-1]["content"].std() > 0
    assert data.val_dataloader() == []
    assert torch.equal(data.preview_photos(3), data.first_photos(3))


def test_unreadable_validation_photos_are_dropped_and_not_trained_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = which(photos(folder).preview_photos(1))[0]
    (folder / f"{first:02}.png").write_text("not a picture")
    data = photos(folder)
    assert len(data.preview_photos(9)) == 1
    take(data.train_dataloader(), 12)
    assert len([r for r in caplog.records if r.getMessage().startswith("skipped ")]) == 1
    assert not [batch for batch in take(data.train_dataloader(), 12) if batch["skipped"]]


def test_a_dataset_trains_without_its_damaged_photo(parquet: str, caplog: pytest.LogCaptureFixture) -> None:
    data = photos(parquet, val_photos=0)
    batches = [data.on_before_batch_transfer(batch, 0) for batch in take(data.train_dataloader(), 12)]
    assert set(seen(batches)) == set(range(GREYS)) - {3}
    assert [r.getMessage().split(" row ")[1][:2] for r in caplog.records if r.name == "impasto"] == ["3:"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_is_the_same_again_and_covers_all_but_validation(parquet: str, workers: int) -> None:
    options = {"streaming": True, "num_workers": workers, "val_photos": 2, "batch_size": 1}
    data = photos(parquet, **options)
    held = which(data.preview_photos(9))
    assert held == [9, 19]
    batches = take(data.train_dataloader(), 2 * GREYS)
    assert same(batches, take(photos(parquet, **options).train_dataloader(), 2 * GREYS))
    assert set(seen(batches[: GREYS - 2])) == set(range(GREYS)) - {3, *held}
    assert [batch["index"].item() for batch in batches] == list(range(2 * GREYS))
    assert seen(batches) != seen(take(photos(parquet, **options, seed=1).train_dataloader(), 2 * GREYS))
    assert torch.equal(data.first_photos(3), photos(parquet, **options).first_photos(3))


def test_what_is_out_of_range_is_refused() -> None:
    for name, value, least in (("crop", 15, 16), ("batch_size", 0, 1), ("val_photos", -1, 0), ("num_workers", -1, 0)):
        with pytest.raises(ValueError, match=f"^{name} is {value}: must be at least {least}$"):
            Photos(**{name: value})


def test_a_place_without_photos_is_refused_at_setup(tmp_path: Path) -> None:
    for place, message in ((tmp_path / "nowhere", "no such folder"), (tmp_path, "holds no image")):
        with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
            photos(place)
    for nothing in ("", []):
        with pytest.raises(ValueError, match=r"^photos is empty: give a folder of photos, Parquet files, or a dataset"):
            Photos(nothing).setup()
    (tmp_path / "bad.jpg").write_text("not a picture")
    with pytest.raises(ValueError, match=r"^[^\n]*no readable photo, 1 tried[^\n]*$"):
        photos(tmp_path)


def test_the_only_readable_photo_is_trained_on(tmp_path: Path) -> None:
    """Validation takes one file of ten, and whichever it takes, training keeps something to read."""
    for good in range(10):
        folder = tmp_path / str(good)
        folder.mkdir()
        for number in range(10):
            (folder / f"{number}.jpg").write_bytes(b"not a photo")
        Image.new("RGB", (40, 40), (200, 100, 50)).save(folder / f"{good}.jpg")
        data = Photos(str(folder), crop=32, num_workers=0)
        data.setup()
        assert len(data.first_photos(2)) == 2


def test_a_process_ends_though_its_workers_heed_no_signal(folder: Path) -> None:
    """As after an error in the middle of a run: something still holds the loader."""
    program = (
        "import sys\n"
        "from impasto.data.modules import Photos\n"
        "module = Photos(sys.argv[1], crop=16, num_workers=2)\n"
        "module.setup()\n"
        "held = iter(module.train_dataloader())\n"
        "next(held)\n"
        "sys.held = held\n"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], timeout=60, check=True)


class Masks(Batches):
    """Gives the signals that its process holds back."""

    def __init__(self) -> None:
        """It has no photos."""

    def __iter__(self) -> Iterator[set[int]]:
        yield signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_signal_that_comes_before_a_worker_ignores_it_does_not_kill_the_worker() -> None:
    (held,) = Loader(Masks(), lambda: 0, Cursors(1), 1, pinned=False)
    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= held
    assert not {signal.SIGINT, signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, [])
