"""`impasto evaluate` with real networks and real optimizations, small."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import OLD_NETWORK, save
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from impasto.benchmark.cost import cost_of_network, cost_of_reference
from impasto.choices import LossOptions, OptimizeOptions
from impasto.commands import run
from impasto.evaluation.metrics import psnr
from impasto.images import read_image, resize
from impasto.images.paintings import thumbnail
from impasto.networks import TransformNet, save_network
from impasto.perceptual.gaps import dead_leaves
from impasto.reference import Reference

SMALL = ("--size=48", "--style_size=48", "--loss.network=compact", "--balance_photos=balance", "--output=out")
PICTURES = ("--photos=[photos/a.png,photos/b.png]", "--paintings.udnie=painting.png")
COMPARE = ("evaluate", *SMALL, *PICTURES, "--marks=[3,1]", "--networks=[gallery,starry_night]")
GRID = ("evaluate", *SMALL, *PICTURES, "--steps=2")


@pytest.fixture(autouse=True)
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a", "b", "c")):
        save(Path(f"photos/{name}.png"), number, blur=2.0)
    save(Path("painting.png"), 9)
    save(Path("udnie.jpg"), 9)
    Path("balance").mkdir()
    # Photos unlike each other: the balance is measured on these alone, and no pictures are drawn for it.
    for number, photo in enumerate(dead_leaves(4, 128)):
        to_pil_image(photo).save(f"balance/{number}.png")


def times() -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in Path("out/cells").rglob("*.json")}


def test_a_comparison_is_made_once(capsys: pytest.CaptureFixture) -> None:
    assert run(*COMPARE, "--costs=false") == 0
    assert "report: out/report.md" in capsys.readouterr().out
    report = Path("out/report.md").read_text()
    for approach in ("colour transfer", "reference 1", "reference 3", "gallery"):
        assert f"| {approach} |" in report
    assert "starry_night |" not in report, "it does not know the painting"
    assert read_image("out/udnie.jpg").pixels.shape[-1] > 5 * 224 and Path("out/udnie_curves.png").exists()
    before = times()
    assert len(before) == 2 * 4
    assert run(*COMPARE, "--costs=false") == 0 and times() == before, "finished cells are not made again"
    Path("out/cells/udnie/b/gallery.json").unlink()
    assert run(*COMPARE, "--costs=false") == 0
    again = times()
    assert {name for name in again if again[name] != before[name]} == {"out/cells/udnie/b/gallery.json"}
    assert run(*COMPARE, "--costs=false", "--learning_rate=0.5") == 0
    changed = {Path(name).name for name, when in times().items() if again[name] != when}
    assert changed == {"reference_1.json", "reference_3.json"}, "only what depends on the option is made again"


def test_a_network_that_learned_another_picture_by_the_name_is_said(caplog: pytest.LogCaptureFixture) -> None:
    styles = [{"name": "udnie", "thumbnail": thumbnail(read_image("painting.png").pixels)}]
    for name, known in (("mine", styles), ("old", [{"name": "udnie"}]), ("odd", [{"name": "udnie", "thumbnail": [3]}])):
        save_network(f"{name}.safetensors", TransformNet(1, 4, 0), styles=known)
    networks = "--networks=[mine.safetensors,old.safetensors,odd.safetensors]"
    command = (*COMPARE, "--costs=false", networks, "--photos=[photos/a.png]", "--marks=[1]")
    assert run(*command) == 0
    assert "another picture" not in caplog.text + Path("out/report.md").read_text()
    save(Path("painting.png"), 10)
    assert run(*command) == 0
    said = "mine.safetensors learned another picture as udnie than painting.png, by which it is judged here"
    assert caplog.text.count("another picture") == 1 and said in caplog.text
    assert f"\n{said}.\n" in Path("out/report.md").read_text()


def test_numbers_are_of_the_pictures() -> None:
    assert run(*COMPARE, "--costs=false", "--photos=[photos/a.png]", "--networks=[gallery]") == 0
    numbers = json.loads(Path("out/cells/udnie/a/gallery.json").read_text())["numbers"]
    picture, photo = (
        read_image("out/cells/udnie/a/gallery.png").pixels,
        resize(read_image("photos/a.png").pixels, 48),
    )
    assert numbers["psnr"] == pytest.approx(psnr(picture, photo), abs=0.05)
    assert numbers["loss"] == pytest.approx(numbers["content"] + 10 * numbers["style"] + 0.1 * numbers["tv"], rel=1e-4)


def test_costs_are_measured() -> None:
    network = cost_of_network(str(OLD_NETWORK), 64, "cpu")
    reference = Reference(OptimizeOptions(), LossOptions(network="compact"))
    small, large = (cost_of_reference(reference, size, "cpu") for size in (64, 256))
    assert 0 < network.seconds < 60 and network.mebibytes > 1
    assert large.seconds > 2 * small.seconds > 0 and large.mebibytes > small.mebibytes


def test_a_grid_has_a_cell_for_every_pair_of_values() -> None:
    assert run(*GRID, "--axes.noise_ratio=[0.3,0.7]", "--axes.learning_rate=[0.4,0.7,1.0]", "--start=mix") == 0
    with Path("out/numbers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["noise_ratio"], row["learning_rate"]) for row in rows] == [
        (ratio, rate) for ratio in ("0.3", "0.7") for rate in ("0.4", "0.7", "1.0")
    ]
    assert len({row["loss"] for row in rows}) == 6
    width, height = reversed(read_image("out/grid.jpg").pixels.shape[-2:])
    assert width > 3 * 224 and 2 * 168 < height < 2 * 224  # rows as high as photos in 4:3
    assert Path("out/report.md").exists() and Path("out/curves.png").exists()


def test_a_grid_of_every_photo_and_of_options_of_the_loss() -> None:
    layers = "--axes={photo: [], loss.content_layers: [{relu3_1: 1.0}, {relu4_2: 1.0}]}"
    assert run(*GRID, layers) == 0
    report = Path("out/report.md").read_text()
    assert len(list(Path("out/cells").glob("*.json"))) == 4 and "| a | relu3_1 |" in report


def test_a_photo_may_lie_in_an_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*GRID, "--photos=[package:skimage/data/coffee.png]", "--axes.start=[content]") == 0
    assert Path("out/cells/start content.png").exists()
    assert run(*GRID, "--photos=[package:not_there/coffee.png]", "--axes.start=[content]") == 2
    assert "no package not_there is installed" in capsys.readouterr().err


def test_layers_of_other_weights_and_terms_of_none_are_told_apart() -> None:
    values = "--axes={loss.style_layers: [{relu3_1: 1.0}, {relu3_1: 2.0}], loss.content_weight: [0.0, 1.0]}"
    assert run(*GRID, values, "--loss.content_weight=0", "--photos=[photos/a.png]") == 0
    made = {file.stem for file in Path("out/cells").glob("*.json")}
    assert made == {f"style_layers {layer},content_weight {weight}" for layer in ("relu3_1", "2·relu3_1")
                    for weight in ("0.0", "1.0")}  # fmt: skip
    assert "| – |" in Path("out/report.md").read_text(), "judged without content, there is no such number"


def test_other_weights_of_the_loss_network_make_other_cells() -> None:
    grid = (*GRID, "--axes={seed: [0]}", "--photos=[photos/a.png]")
    assert run(*grid) == 0
    before = times()
    assert run(*grid) == 0 and times() == before
    assert run(*grid, "--loss.weights=random") == 0 and times() != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--axes.noise=[1]",), "axes noise: no such option"),
        (("--axes={}", "--marks=[0]"), "marks from 1"),
        (("--coarse=[32]",), "coarse [32]: the marks"),
        (("--paintings={../esc: painting.png}",), "style name '../esc': must be text without /"),
        (("--axes.noise_ratio=[2.0]",), "noise_ratio 2.0: from 0"),
        (("--axes.photo=[none]",), "photo none: choose from a, b"),
        (("--axes={photo: [], steps: [1], seed: [0]}",), "one or two"),
        (("--photos=[none.png]",), "none.png: no such file"),
        (("--balance_photos=none",), "none: no such folder"),
        (("--networks=[none]",), "network 'none'"),
        (("--presets=[none.yaml]",), "none.yaml"),
        (("--output=painting.png",), "painting.png"),
        (("--output=.", "--paintings.udnie=udnie.jpg"), "udnie.jpg: is a picture given, never written over"),
        (("--photos=[photos/a.png,painting.png,./painting.png]",), "photos: two are named painting"),
    ],
)
def test_mistakes_are_one_line(options, message, capsys: pytest.CaptureFixture) -> None:
    assert run("evaluate", *SMALL, *PICTURES, *options) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said


WRONG = {
    "optimizer: [sgd]": "optimizer 'sgd': choose from lbfgs, adam",
    "start: [photo]": "start 'photo': choose from content, noise, mix",
    "loss.balance: [relativ]": "balance 'relativ': choose from relative, fixed, dynamic",
}
EVALUATES = f"""
import sys
from impasto.commands import run
print([run(*{GRID}, f"--axes={{{{{{axis}}}}}}") for axis in sys.argv[1:]])
"""


def test_a_choice_that_does_not_exist_is_refused_before_the_first_run() -> None:
    """In a process without the type checks of the tests, which would say so first."""
    done = subprocess.run([sys.executable, "-c", EVALUATES, *WRONG], capture_output=True, text=True, check=False)
    assert done.stdout == "[2, 2, 2]\n" and not Path("out/cells").exists(), done.stderr
    said = [line for line in done.stderr.splitlines() if line]
    assert len(said) == len(WRONG) and all(map(str.__contains__, said, WRONG.values())), said


@pytest.mark.parametrize(("size", "status"), [("32", 0), ("1", 2)])
def test_a_photo_of_one_pixel_is_judged_or_refused_in_a_line(size: str, status: int, capsys) -> None:
    Image.new("RGB", (1, 1), (10, 200, 30)).save("one.png")
    assert run(*COMPARE, "--costs=false", "--photos=[one.png]", f"--size={size}", "--marks=[1]") == status
    said = capsys.readouterr().err.strip()
    assert ("needs at least 16×16" in said and "\n" not in said) if status else "Traceback" not in said
