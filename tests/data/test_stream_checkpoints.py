"""A checkpoint keeps where each worker of each rank was in a stream, and a run goes on from there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_modules import GREYS, Photos, fit, grey, parquet, photos, same

from impasto.data.streams import StreamedPhotos

__all__ = ["parquet"]  # a fixture


def stream(place: str, **options: Any) -> Photos:
    return photos(place, streaming=True, **{"batch_size": 2, **options})


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("steps", [4, 13])  # 3 and 12 done: an odd number, and more than an epoch
def test_a_stream_resumes(parquet: str, tmp_path: Path, workers: int, steps: int) -> None:
    whole = fit(tmp_path / "whole", stream(parquet, num_workers=workers), 16)
    fit(tmp_path, stream(parquet, num_workers=workers), steps)
    again = stream(parquet, num_workers=workers)
    assert same(fit(tmp_path, again, 16, tmp_path / "last.ckpt"), whole[steps - 1 :])
    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)["Photos"]
    assert kept["batches"] == 15 and kept["stream"]["workers"] == max(1, workers)
    assert same(fit(tmp_path, stream(parquet, num_workers=workers), 16, tmp_path / "last.ckpt"), whole[15:])


def test_going_on_reads_little_and_an_older_checkpoint_all(
    parquet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a version before streams had cursors: it goes on at the same batch all the same."""
    read, file = [], StreamedPhotos._file

    def counted(*arguments: Any) -> Any:
        for record in file(*arguments):
            read.append(record)
            yield record

    whole = fit(tmp_path, stream(parquet), 62)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    monkeypatch.setattr(StreamedPhotos, "_file", counted)
    for older in (False, True):
        if older:
            del checkpoint["Photos"]["stream"]
            torch.save(checkpoint, tmp_path / "last.ckpt")
        data = stream(parquet)
        read.clear()
        assert same(fit(tmp_path / "again", data, 62, tmp_path / "last.ckpt"), whole[60:])
        assert (len(read) < 2 * GREYS) != older


def test_other_numbers_of_workers_or_devices_are_refused_in_one_line(parquet: str, tmp_path: Path) -> None:
    fit(tmp_path, stream(parquet, num_workers=2), 4)
    said = (
        r"^the stream of photos was shared by 1 devices with 2 workers each, and cannot go on with 1 devices with 1 "
        r"workers each: set --trainer\.devices and --data\.num_workers as before, or begin a new run$"
    )
    with pytest.raises(ValueError, match=said):
        fit(tmp_path, stream(parquet, num_workers=1), 6, tmp_path / "last.ckpt")


PROGRAM = """
import sys
from pathlib import Path
import torch
import pytorch_lightning as pl
from test_modules import Recorder, fit, photos

root, place, steps, resume = sys.argv[1:]
data = photos(place, streaming=True, num_workers=2, batch_size=2, val_photos=0)
resume = Path(resume) if resume else None
batches = fit(Path(root), data, int(steps), resume, devices=2, strategy="ddp")
torch.save(batches, Path(root, f"{steps}-{data.trainer.global_rank}.pt"))
"""


def test_two_ranks_of_two_workers_resume_where_each_was(tmp_path: Path) -> None:
    import datasets

    rows = [{"bytes": grey(i), "path": None} for i in range(GREYS)]
    whole = datasets.Dataset.from_dict({"image": rows}, features=datasets.Features({"image": datasets.Image()}))
    for part in range(4):
        whole.shard(4, part, contiguous=True).to_parquet(tmp_path / "parquet" / f"{part}.parquet")
    (tmp_path / "program.py").write_text(PROGRAM)
    checkpoint = tmp_path / "whole" / "epoch=0-step=9.ckpt"  # 9 done: mid-round
    for root, resume in (("whole", ""), ("resumed", checkpoint)):
        given = [str(tmp_path / root), str(tmp_path / "parquet"), "14", str(resume)]
        environment = {"PYTHONPATH": ":".join([str(Path(__file__).parent), *filter(None, sys.path)])}
        command = [sys.executable, str(tmp_path / "program.py"), *given]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, **environment})
        assert done.returncode == 0, done.stderr
    kept = torch.load(checkpoint, weights_only=True)["Photos"]["stream"]
    assert [sorted(cursors) for cursors in kept["ranks"]] == [[6, 7, 8]] * 2
    for rank in range(2):
        seen = [torch.load(tmp_path / root / f"14-{rank}.pt") for root in ("whole", "resumed")]
        assert len(seen[1]) == 5 and same(seen[1], seen[0][9:])
