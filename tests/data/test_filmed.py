"""Pairs of frames from clips: their motion, and that a pair is the same whoever draws it."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from clips import PAN, make, pan
from conftest import ROOT
from pictures import save

from impasto.data.batches import PhotoBatches
from impasto.data.filmed import FilmedPairs
from impasto.data.modules import Photos
from impasto.data.sources import FolderPhotos
from impasto.video.warping import warped

pytest.importorskip("cv2", reason="the video extra is not installed")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("clip") / "pan.mp4", (128, 96), range(12), pictures=pan)


def test_the_second_frame_shows_what_was_further_right_in_the_first(clip: Path) -> None:
    pairs = FilmedPairs([clip], 64)
    assert len(pairs) == 11
    drawn = [pairs.draw(0, n) for n in range(12)]
    motions = [round(float(pair["flow"][0][pair["trusted"][0]].median())) for pair in drawn]
    assert set(motions) == {PAN, -PAN}, "half of them are mirrored"
    for pair in drawn:
        assert pair["first"].shape == pair["second"].shape == (3, 64, 64) and pair["trusted"].any()
        found = warped(pair["first"][None], pair["flow"][None])[0]
        still = (pair["first"] - pair["second"]).abs().mean()
        assert float((found - pair["second"])[pair["trusted"].expand(3, -1, -1)].abs().mean()) < 0.25 * float(still)
        assert not pair["trusted"][..., :8].any() and not pair["trusted"][..., -8:, :].any()


def test_a_pair_depends_on_the_seed_and_its_number_only(clip: Path) -> None:
    one, other = FilmedPairs([clip], 64), FilmedPairs([clip], 64)
    for n in (0, 7):
        assert all(torch.equal(part, other.draw(5, n)[name]) for name, part in one.draw(5, n).items())
    assert not torch.equal(one.draw(5, 0)["first"], one.draw(5, 1)["first"])
    assert not torch.equal(one.draw(5, 0)["first"], one.draw(6, 0)["first"])


def test_fast_clips_large_frames_folders_and_animations(tmp_path: Path) -> None:
    fast = make(tmp_path / "fast.mp4", (128, 96), range(0, 24, 2), base=Fraction(1, 100), pictures=pan)
    flow = FilmedPairs([fast], 64).draw(0, 0)["flow"][0].abs().median()
    assert round(float(flow)) == 2 * PAN, "50 frames a second: one is left out"
    large = make(tmp_path / "large.mp4", (256, 192), range(12), pictures=pan)
    flow = FilmedPairs([large], 64).draw(0, 0)["flow"][0].abs().median()
    assert float(flow) == pytest.approx(PAN / 2, abs=0.2), "scaled down to a shorter side of 96"
    for number in range(3):
        save(tmp_path / "frames" / f"{number}.png", 4)
    assert len(FilmedPairs([tmp_path / "frames"], 64)) == 2


def test_the_batches_hold_a_pair_for_every_fourth_photo(clip: Path, tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / f"{number}.png", number)
    for size in (4, 5):
        batches = PhotoBatches(FolderPhotos(tmp_path), 80, size, filmed=FilmedPairs([clip], 64))
        batch = next(iter(batches))
        assert batch["filmed"]["first"].shape == (-(-size // 4), 3, 64, 64)
        again = PhotoBatches(FolderPhotos(tmp_path), 80, size, filmed=FilmedPairs([clip], 64))
        assert all(torch.equal(part, next(iter(again))["filmed"][name]) for name, part in batch["filmed"].items())


def test_clips_that_do_not_serve_are_one_line(clip: Path, tmp_path: Path) -> None:
    for paths, message in (
        ([tmp_path / "no.mp4"], "no.mp4"),
        ([clip, ROOT / "README.md"], "README.md"),
        ([make(tmp_path / "one.mp4", (128, 96), range(1))], "no two frames follow each other without a cut"),
    ):
        with pytest.raises(ValueError, match=message):
            FilmedPairs(paths, 64)
    with pytest.raises(ValueError, match=r"has 128×96 pixels, too small for frames of 112"):
        FilmedPairs([clip], 112)
    assert Photos(clips=str(clip)).clips == [str(clip)]
