"""The benchmark runs and tells every loss network; how fast they are is no test's business."""

import re
from pathlib import Path

import pytest
from pictures import OLD_NETWORK, save

from impasto.benchmark.inference import convolution_flops, inference_table
from impasto.benchmark.loss_networks import NETWORKS, Setting, loss_network_table
from impasto.benchmark.optimizers import share_for
from impasto.benchmark.realtime import frames_table
from impasto.benchmark.training import Step, ladder, operations, training_table
from impasto.commands import run
from impasto.networks import TransformNet, save_network


def test_a_table_has_a_row_for_each_loss_network() -> None:
    text = "\n".join(loss_network_table(Setting("cpu", 32, 1, 4, False), rounds=1))
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows] == list(NETWORKS)
    assert all(float(cell.split("(")[0]) > 0 for row in rows for cell in row[1:3])
    assert rows[0][1].endswith("(1.00, " + rows[0][1].split(", ")[1]) and rows[1][1].endswith(", 1.00) ")


def test_rows_come_as_they_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    done: list[str] = []
    monkeypatch.setattr("impasto.benchmark.training.alone", lambda _, step: done.append("memory") or 1.0)
    steps = {name: Step("cpu", 32, 1, 4) for name in ("one", "two")}
    lines = training_table(steps, rounds=1)
    assert next(lines).startswith("cpu, ") and next(lines).startswith("| training step ") and next(lines)
    assert capsys.readouterr().err == ""
    assert next(lines).startswith("| one | ") and done == ["memory"]
    assert capsys.readouterr().err.splitlines() == ["training: round 1 of 2", "training: round 2 of 2"]
    assert next(lines).startswith("| two | ") and done == ["memory", "memory"]


def test_each_row_is_one_measure_more_and_the_same_work() -> None:
    """Dropping what is not needed takes operations away; layout, precision and optimizer take none."""
    counts = {name: operations(step) for name, step in ladder(Step("cpu", 32, 1, 4), compiled=True).items()}
    plain, shortened, cached, layout, ours, fused, bf16, compiled, *compact = counts.values()
    assert plain > shortened > cached == layout and ours == fused == bf16 == compiled
    assert compact[0] == compact[1] < ours / 2


def test_the_reference_is_measured_against_the_usual_recipe(capsys: pytest.CaptureFixture) -> None:
    assert run("benchmark", "--what=reference", "--size=32", "--rounds=1") == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 3 and "1.00" in rows[0][1] and "1.00" in rows[1][2]
    assert all(float(row[1].split("(")[0]) > 0 for row in rows)


def test_optimizers_are_measured_by_the_photos_they_need(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in range(10):
        save(tmp_path / f"{number}.png", number)
    painting = save(tmp_path / "painting.png", 10)
    small = ("--size=32", "--batch=1", "--width=4", "--steps=20", "--threads=1")
    assert run("benchmark", "--what=optimizers", f"--photos={tmp_path}", f"--painting={painting}", *small) == 0
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| ")][1:]
    assert [row[1] for row in rows] == ["20 (1.00)", "5 (0.25)", "7 (0.35)", "10 (0.50)"]
    adam, *muon = (float(row[2]) for row in rows)
    assert sorted(muon, reverse=True) == muon and muon[-1] < muon[0] and adam > 0
    assert f"with {share_for(adam, dict(zip((0.25, 0.35, 0.5), muon, strict=True)))} of the photos" in out


def test_the_share_of_photos_lies_on_the_line_between_two_runs() -> None:
    assert share_for(1.0, {0.25: 1.1, 0.5: 0.9}) == "0.35"  # halfway in the logarithm
    assert share_for(1.2, {0.25: 1.1, 0.5: 0.9}) == "0.25 or less"
    assert share_for(0.8, {0.25: 1.1, 0.5: 0.9}) == "more than 0.50"


def test_convolutions_of_a_network_are_counted() -> None:
    """By hand: both 9×9, two halvings, ten in the blocks, two doublings, and their smoothing."""
    per_pixel = 2 * 81 * 3 * 16 + 9 * (16 * 32 / 4 + 32 * 64 / 16 + 10 * 64 * 64 / 16 + 64 * 32 / 4 + 32 * 16)
    smoothing = 9 * (32 / 4 + 16)
    sides = 32 + 64  # with the margin
    assert convolution_flops(str(OLD_NETWORK), 32) == pytest.approx(2 * sides**2 * (per_pixel + smoothing), rel=0.1)


def test_painting_is_measured_against_the_arithmetic(tmp_path: Path) -> None:
    small = save_network(tmp_path / "small.safetensors", TransformNet(1, 4, 0))  # compiled sooner than a published one
    text = "\n".join(inference_table(str(small), [], "cpu", rounds=1, sizes=(32,)))
    (row,) = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| 32")]
    assert len(row) == 4 and "(1.00)" in row[2] and all(float(cell.split("(")[0]) >= 0 for cell in row)


def test_frames_a_second_of_a_network_beside_wider_ones(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    small = save_network(tmp_path / "small.safetensors", TransformNet(1, 4, 1, patch=4, kernel=3, separable=True))
    text = "\n".join(frames_table(str(small), rounds=1, sizes=((48, 40), (64, 50))))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert rows[0][3:] == ["48×40", "64×50"]
    named = [(str(small), "torch"), (str(small), "ONNX Runtime, frozen"), ("width 16", "torch"),
             ("width 16", "ONNX Runtime, frozen"), ("usual recipe, width 32", "torch")]  # fmt: skip
    assert [(row[0], row[2]) for row in rows[1:]] == named
    rates = [float(row[3]) for row in rows[1:]]
    assert min(rates) > 0 and rates[1] > max(rates[3:])
    # Of the usual recipe, by hand; 47.2 is the sum over its layers of k² · inputs · outputs · positions.
    layers = [(9, 3, 32, 1), (3, 32, 64, 4), (3, 64, 128, 16), *[(3, 128, 128, 16)] * 10, (3, 128, 64, 4),
              (3, 64, 32, 1), (9, 32, 3, 1)]  # fmt: skip
    by_hand = sum(k * k * a * b * 640 * 480 / less for k, a, b, less in layers) / 1e9
    assert float(rows[-1][1]) == pytest.approx(by_hand, abs=0.06)


def test_clips_are_painted_alone_and_steadily(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="the video extra is not installed")
    from impasto.benchmark.video import panning, video_table

    first, second = panning(2, (64, 36))
    assert first.shape == (36, 64, 3) and (first[:, 3:] == second[:, :-3]).all() and (first != second).any()
    small = save_network(tmp_path / "small.safetensors", TransformNet(1, 4, 0))
    text = "\n".join(video_table(str(small), [], "cpu", rounds=4, size=(64, 36)))
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")][1:]
    assert [row[0].strip() for row in rows] == [f"{small}, torch", "width 32, torch", "width 16, torch"]
    assert float(rows[0][3]) == 1 and all(float(cell) > 0 for row in rows for cell in row[1:4])
    assert all(0 < int(row[4].strip(" %")) < 100 for row in rows)
    assert float(rows[0][2]) > float(rows[1][2]), "a wider network takes longer"
    (grown,) = re.findall(r"memory from frame 2 of each to frame 5: ([+-]\d+) MiB", text)
    assert abs(int(grown)) < 20


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--size=8", "size from 16"),
        ("--device=cuda", "no GPU here"),
        ("--what=inference --files=[x.onnx]", "neither a file"),
        ("--what=video --network=none", "network 'none'"),
        ("--what=optimizers", "give a folder with --photos"),
    ],
)
def test_mistakes_are_one_line(
    option: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("benchmark", *option.split()) == 2
    assert said in capsys.readouterr().err
