"""The reference: what the optimization reaches, and the command around it."""

import csv
import errno
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from heeding import HEEDING
from pictures import draw, save
from PIL import Image

from impasto import writing
from impasto.choices import LossOptions, OptimizeOptions
from impasto.commands import run
from impasto.images import Picture, read_image, resize, write_image
from impasto.perceptual.gaps import PhotoStatistics
from impasto.perceptual.loss import PerceptualLoss
from impasto.reference import optimize_image, quarters

ROOT = Path(__file__).parents[1]
PAINTING = ROOT / "configs" / "paintings" / "currents.jpg"
QUICK = ("--size=48", "--style_size=48", "--loss.network=compact", "--steps=4")
FIXED = (*QUICK, "--loss.balance=fixed")  # where it is not about the picture: a balance takes half a second to measure

Terms = list[tuple[int, dict[str, float]]]


@pytest.fixture(scope="module")
def loss() -> PerceptualLoss:
    return PerceptualLoss(LossOptions(network="compact"))


@pytest.fixture(scope="module")
def content() -> torch.Tensor:
    return draw(1, height=48, width=61, blur=3.0)[None]


@pytest.fixture(scope="module")
def painting() -> torch.Tensor:
    return resize(read_image(PAINTING).pixels, 64)


@cache
def balance(loss: PerceptualLoss, content: torch.Tensor) -> PhotoStatistics:
    """What the balance of a loss is measured on unasked, measured once for all tests of that photo."""
    return loss.photo_statistics(quarters(content))


def optimized(
    content: torch.Tensor,
    styles: list[torch.Tensor],
    loss: PerceptualLoss,
    mixture: list[float] | None = None,
    masks: torch.Tensor | None = None,
    measured: bool = True,
    **given,
) -> tuple[torch.Tensor, Terms]:
    """The picture and its terms; unless the balance was `measured` before, the optimization does it."""
    log: Terms = []
    options = OptimizeOptions(**{"steps": 5, **given})
    image = optimize_image(
        content,
        styles,
        loss,
        options,
        mixture=mixture,
        photos=balance(loss, content) if measured else None,
        masks=masks,
        on_step=lambda step, _, terms: log.append((step, terms)),
    )
    return image, log


def test_the_balance_is_measured_on_the_quarters_of_the_photo(loss, content, painting) -> None:
    unasked, given = (optimized(content, [painting], loss, measured=known, steps=1) for known in (False, True))
    assert torch.equal(unasked[0], given[0]) and unasked[1] == given[1]


@pytest.mark.parametrize("optimizer", [{"optimizer": "lbfgs"}, {"optimizer": "lbfgs", "line_search": True},
                                       {"optimizer": "adam"}], ids=str)  # fmt: skip
def test_the_style_comes_and_the_content_stays(optimizer, loss, content, painting) -> None:
    image, log = optimized(content, [painting], loss, steps=40, **optimizer)
    assert image.shape == content.shape and image.min() >= 0 and image.max() <= 1
    first, last = log[0][1], log[-1][1]
    assert [step for step, _ in log] == list(range(41)) and first["content"] < 1e-6
    assert last["style"] < 0.5 * first["style"] and last["content"] < 0.5
    assert last["loss"] == pytest.approx(last["content"] + last["style"] + 0.1 * last["tv"], rel=1e-4)


def test_real_pictures_reach_a_twentieth_of_the_gap(shared: Path) -> None:
    """The gap between photos and painting is measured on other photos, as in training."""
    names = ("tubingen", "golden_gate", "stata", "figures", "taj_mahal", "cornell", "sailboat", "rainier")
    photos = [resize(read_image(shared / "data" / "eval" / f"{name}.jpg").pixels, 205) for name in names]
    content = resize(read_image(shared / "data" / "eval" / "chicago.jpg").pixels, 128)
    painting = resize(read_image(shared / "data" / "paintings" / "van_gogh_starry_night.jpg").pixels, 256)
    log: list[dict[str, float]] = []
    loss = PerceptualLoss(LossOptions(network="vgg16", weights=str(shared / "weights"), style_strength=10.0))
    squares = torch.cat([photo[..., :128, :128] for photo in photos])
    optimize_image(content, [painting], loss, OptimizeOptions(steps=100), photos=squares,
                   on_step=lambda step, _, terms: log.append(terms))  # fmt: skip
    assert log[0]["style"] > 1 and log[-1]["style"] < 0.05 and log[-1]["content"] < 0.5


def test_a_mixture_of_one_and_nothing_is_the_single_style(loss, content, painting) -> None:
    other = draw(2, height=64, width=64, blur=1.0)[None]
    single, _ = optimized(content, [painting], loss)
    mixed, _ = optimized(content, [painting, other], loss, [3.0, 0.0])
    half, _ = optimized(content, [painting, other], loss, [1.0, 1.0])
    assert torch.allclose(mixed, single, atol=1e-4)
    assert (half - single).abs().mean() > 1e-3


def test_masks_keep_each_style_in_its_region(loss, content, painting) -> None:
    """Red on the left and blue on the right, each measured by its own style term in each half."""
    red, blue = (torch.tensor(color).view(1, 3, 1, 1) * painting for color in ((1.0, 0.2, 0.2), (0.2, 0.2, 1.0)))
    left = torch.zeros(1, 1, *content.shape[-2:])
    left[..., :30] = 1
    strong = PerceptualLoss(LossOptions(network="compact", style_strength=20.0))
    image, _ = optimized(content, [red, blue], strong, masks=torch.cat([left, 1 - left]), steps=40)
    photos = torch.cat([content, content.flip(-1)])
    asked = {name: loss.style_target([style], photos) for name, style in (("red", red), ("blue", blue))}
    halves = {"red": image[..., :30], "blue": image[..., 31:]}
    found = {
        (half, style): float(loss(pixels, pixels, target)["style"].detach())
        for half, pixels in halves.items()
        for style, target in asked.items()
    }
    assert found["red", "red"] < 0.6 * found["red", "blue"] and found["blue", "blue"] < 0.6 * found["blue", "red"]


def test_a_blend_draws_the_picture_to_itself(loss, content, painting) -> None:
    """Of nothing but the painting, stretched over the photo: nearer to its content than without."""
    stretched = torch.nn.functional.interpolate(painting, size=content.shape[-2:], mode="bilinear", antialias=True)
    target = loss.style_target([painting], torch.cat([content, stretched]))
    distances = []
    for weight in (0.0, 5.0):
        drawn = PerceptualLoss(LossOptions(network="compact", combined_weight=weight))
        image, log = optimized(content, [painting], drawn, steps=30, blend=0.0)
        distances.append(float(loss(image, stretched, target)["content"]))
    assert distances[1] < 0.8 * distances[0] and 0 < log[-1][1]["combined"] < log[0][1]["combined"]


def test_checkpointing_changes_only_rounding(loss, content, painting) -> None:
    """Gradients are summed in another order, so bits differ."""
    plain, _ = optimized(content, [painting], loss)
    less_memory, _ = optimized(content, [painting], loss, checkpointing=True)
    torch.testing.assert_close(less_memory, plain, rtol=0, atol=1e-3)
    assert not loss.features.checkpointing


def test_one_seed_gives_one_picture_and_another_another(loss, content, painting) -> None:
    first, again, other = (
        optimized(content, [painting], loss, start="noise", steps=2, seed=seed)[0] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_mix_begins_between_content_and_noise(loss, content, painting) -> None:
    options = {"steps": 1, "learning_rate": 1e-9, "optimizer": "adam"}
    whole, _ = optimized(content, [painting], loss, start="mix", noise_ratio=1.0, **options)
    noise, _ = optimized(content, [painting], loss, start="noise", **options)
    mixed, _ = optimized(content, [painting], loss, start="mix", noise_ratio=0.25, **options)
    assert torch.allclose(whole, content, atol=1e-6)
    assert torch.allclose(mixed, 0.25 * content + 0.75 * noise, atol=1e-6)


def test_coarse_sizes_come_first(loss, content, painting) -> None:
    sizes: list[int] = []
    options = OptimizeOptions(steps=7, coarse=[32, 40])
    image = optimize_image(
        content, [painting], loss, options, on_step=lambda step, image, _: sizes.append(image.shape[-1])
    )
    assert sizes == [32] * 3 + [40] * 3 + [61] * 4  # each size is told of once more at its end
    assert image.shape == content.shape


def test_a_plateau_ends_the_run(loss, content, painting) -> None:
    _, log = optimized(content, [painting], loss, optimizer="adam", learning_rate=1e-9, patience=3, steps=50)
    assert log[-1][0] == 4


def test_dynamic_weights_begin_anew_with_every_picture(content, painting) -> None:
    """And the fractions are those of the picture a step begins with, however many a line search tries."""
    loss = PerceptualLoss(LossOptions(network="vgg16", weights="random", balance="dynamic"))
    options = {"start": "noise", "steps": 3}
    (first, log), (again, _), (_, searched) = (
        optimized(content, [painting], loss, line_search=search, **options) for search in (False, False, True)
    )
    assert torch.equal(first, again) and loss.weights["style"] != 1
    assert searched[0] == log[0]


def test_a_loss_that_is_not_finite_is_said(loss, content, painting) -> None:
    with pytest.raises(ValueError, match=r"the loss is .* lower learning_rate"):
        optimized(content, [painting], loss, optimizer="adam", learning_rate=1e30, clamp=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps 0"),
        ({"noise_ratio": 1.5}, "noise_ratio 1.5"),
        ({"noise_ratio": 0.3}, "only a start of mix"),
        ({"learning_rate": 0.0}, "learning_rate 0.0"),
        ({"blend": -0.1}, "blend -0.1: from 0"),
        ({"masks": torch.ones(2, 1, 48, 61)}, "2 masks for 1 styles"),
        ({"masks": torch.zeros(1, 1, 48, 61)}, "mask 1: is black everywhere"),
        ({"coarse": [64, 32]}, r"coarse \[64, 32\]"),
        ({"coarse": [64]}, "below that of the picture, 61"),
        ({"mixture": [0.0]}, "none below 0"),
        ({"mixture": [1.0, 1.0]}, "2 weights for 1 styles"),
    ],
)
def test_what_cannot_be_is_refused(options, message, loss, content, painting) -> None:
    with pytest.raises(ValueError, match=message):
        optimized(content, [painting], loss, **options)


@pytest.fixture
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(Path("photo.png"), 3)
    return tmp_path


def test_the_command_leaves_picture_terms_and_snapshots(playground: Path, capsys: pytest.CaptureFixture) -> None:
    styles = f"[{PAINTING}=0.7,photo.png=0.3]"
    command = (
        "optimize",
        "--content=photo.png",
        f"--styles={styles}",
        *QUICK,
        "--snapshots=[1,3]",
        "--output=out/o.png",
    )
    assert run(*command) == 0
    left = {file.name for file in Path("out").iterdir()}
    assert left == {"o.png", "o.csv", "o_terms.png", "o_00001.png", "o_00003.png", "o_snapshots.png"}
    assert "done after 4 steps: out/o.png" in capsys.readouterr().out
    with Path("out/o.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1", "2", "3", "4"] and set(rows[0]) >= {"content", "style", "loss"}
    assert read_image("out/o.png").pixels.shape[-2:] == (36, 48)
    assert run(*command) == 2
    assert (
        "out/o_terms.png, out/o_00001.png, out/o_00003.png, out/o_snapshots.png: exists already"
        in capsys.readouterr().err
    )
    assert run(*command, "--overwrite=true") == 0


def test_kept_colours_change_brightness_only(playground: Path) -> None:
    given = ("optimize", "--content=photo.png", f"--styles=[{PAINTING}]", *QUICK)
    assert run(*given, "--colors=luminance", "--output=o.png") == 0
    difference = read_image("o.png").pixels - resize(read_image("photo.png").pixels, 48)
    assert (difference.amax(1) - difference.amin(1)).max() < 1.5 / 255 and difference.abs().max() > 0.01


def test_a_painting_in_the_colours_of_the_photo(playground: Path) -> None:
    """The painting is blue and gold, the photo made green: recoloured, it is nearer to the photo before any step."""
    green = read_image("photo.png").pixels * torch.tensor([0.2, 0.9, 0.2]).view(1, 3, 1, 1)
    write_image("green.png", Picture(green))
    begins = {}
    for colors in ("style", "histogram"):
        given = ("--content=green.png", f"--styles=[{PAINTING}]", f"--colors={colors}", f"--output={colors}.png")
        assert run("optimize", *given, *QUICK, "--loss.balance=fixed", "--loss.style_layers={relu1_1: 1.0}") == 0
        with Path(f"{colors}.csv").open(newline="") as file:
            begins[colors] = float(next(csv.DictReader(file))["style"])
    assert 0 < begins["histogram"] < 0.3 * begins["style"]


def test_a_term_without_weight_is_in_no_table(playground: Path) -> None:
    given = ("optimize", "--content=photo.png", f"--styles=[{PAINTING}]", *QUICK, "--loss.content_weight=0")
    assert run(*given, "--output=o.png") == 0
    with Path("o.csv").open(newline="") as file:
        assert "content" not in next(csv.DictReader(file))


def test_a_mask_of_another_size_is_stretched_and_said(playground: Path, capsys: pytest.CaptureFixture) -> None:
    for name, values in (("left.png", [1.0, 0.0]), ("right.png", [0.0, 1.0])):
        write_image(name, Picture(torch.tensor(values).view(1, 1, 1, 2).expand(1, 3, 7, 2)))
    command = ("optimize", "--content=photo.png", f"--styles=[{PAINTING},photo.png]", *FIXED, "--output=o.png")
    assert run(*command, "--masks=[left.png,right.png]") == 0
    assert "left.png: stretched from 2×7 to 48×36 pixels" in capsys.readouterr().err
    for size in ((24, 18), (96, 72), (95, 71), (47, 36)):  # the photo's ratio, to whole pixels
        for name in ("left.png", "right.png"):
            Image.new("L", size, 255).save(name)
        assert run(*command, "--masks", "left.png", "right.png", "--overwrite") == 0
        assert "stretched" not in capsys.readouterr().err
    assert run(*command, "--masks=[left.png]", "--overwrite=true") == 2
    assert "1 masks for 2 styles" in capsys.readouterr().err


def test_what_there_is_before_the_loss_fails_is_kept(playground: Path, capsys: pytest.CaptureFixture) -> None:
    wild = ("--optimizer=adam", "--learning_rate=1e30", "--clamp=false")
    assert run("optimize", "--content=photo.png", f"--styles=[{PAINTING}]", *FIXED, *wild, "--output=o.png") == 2
    said = capsys.readouterr()
    assert "stopped after" in said.out and "lower learning_rate" in said.err and "\n" not in said.err.strip()
    assert read_image("o.png").pixels.shape[-2:] == (36, 48)


def test_alpha_fits_a_run_that_ended_at_a_coarse_size(playground: Path) -> None:
    """102 rows become 61 of 192 columns and 30 of 96; at once they would become 31."""
    write_image("clear.png", Picture(torch.rand(1, 3, 102, 320), torch.rand(1, 1, 102, 320)))
    wild = ("--optimizer=adam", "--learning_rate=1e30", "--clamp=false", "--size=192", "--coarse=[96]")
    given = ("--content=clear.png", f"--styles=[{PAINTING}]", "--output=o.png")
    assert run("optimize", *FIXED, *given, *wild) == 2
    assert read_image("o.png").alpha.shape[-2:] == (30, 96)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--content=none.png", "--styles=[photo.png]"), "none.png: no such file"),
        (("--content=photo.png", "--styles=[none.png]"), "none.png: no such file"),
        (("--content=photo.png", "--styles=[]"), "no painting given: impasto optimize photo.jpg painting.jpg"),
        (("--content=photo.png", "--styles=[photo.png=x]"), "'x' is no weight"),
        (("--content=photo.png", "--styles=[photo.png=0]"), "none below 0"),
        (("--content=photo.png", "--styles=[photo.png]", "--masks=[none.png]"), "none.png: no such file"),
        (("--content=photo.png", "--styles=[photo.png]", "--colors=blue"), "colors"),
        (("--content=photo.png", "--styles=[photo.png]", "--device=tpu"), "device 'tpu'"),
        (("--content=photo.png", "--styles=[photo.png]", "--stepz=3"), "unrecognized"),
        (("--content=photo.png", "--styles=[photo.png]", "--output=o.gif"), "o.gif: --output ends with one of .png"),
        (
            ("--content=photo.png", "--styles=[photo.png]", "--output=photo.png", "--overwrite=true"),
            "never written over",
        ),
        (("--content=photo.png", "--styles=[photo.png]", "--output=photo.png/o.png"), "photo.png"),
        (("--content=photo.png", "--styles=[photo.png]", "--size=8"), "the loss network needs at least"),
    ],
)
def test_mistakes_are_one_line(options, message, playground: Path, capsys: pytest.CaptureFixture) -> None:
    assert run("optimize", *QUICK, *options) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    assert [file.name for file in Path().rglob("*") if file.is_file()] == ["photo.png"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output=o.webp", "--size=17000"), "o.webp: 17000×"),
        (("--output=new/o.png",), "new/o.png: the disk is full (it takes 0.0 MB at least, 0.0 MB are free there)"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_first_step(options, message, playground, capsys, monkeypatch):
    monkeypatch.setattr("impasto.reference.optimize_image", lambda *_, **__: pytest.fail("work was begun"))
    if "disk" in message:
        monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    save(Path("photo.png"), 3, height=2, width=256, blur=0.5)
    assert run("optimize", "--content=photo.png", f"--styles=[{PAINTING}]", *QUICK, *options) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"impasto optimize: {message}") and "\n" not in said
    assert sorted(path.name for path in playground.iterdir()) == ["photo.png"]


@pytest.mark.parametrize("full", ["o.csv", "o_terms.png", "o_snapshots.png"])
def test_a_disk_that_fills_on_the_way_leaves_no_part_of_a_result(full, playground, capsys, monkeypatch) -> None:
    publish = writing._publish

    def fail(temporary: Path, path: Path, overwrite: bool) -> bool:
        if path.name == full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return publish(temporary, path, overwrite)

    monkeypatch.setattr(writing, "_publish", fail)
    command = ("optimize", "--content=photo.png", f"--styles=[{PAINTING}]", *FIXED, "--output=o.png", "--snapshots=[1]")
    assert run(*command) == 2
    assert capsys.readouterr().err.strip() == f"impasto optimize: {full}: No space left on device"
    assert sorted(path.name for path in playground.iterdir()) == ["o_00001.png", "photo.png"]


def test_an_interrupted_run_keeps_what_there_is(playground: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "optimize.py"), "--content=photo.png", f"--styles=[{PAINTING}]",
               *QUICK, "--steps=100000", "--snapshots=[3]", "--output=o.png"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, **HEEDING) as process:
        for _ in range(600):
            if Path("o_00003.png").exists():
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped after" in said
    assert Path("o.png").exists() and Path("o.csv").exists() and Path("o_snapshots.png").exists()


@pytest.mark.parametrize("flat", [(0.4, 0.5, 0.6), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)], ids=str)
def test_a_flat_photo_is_painted_under_a_balance_of_drawn_pictures(flat, loss, painting, caplog) -> None:
    """Between its quarters there is nothing to measure: a gap of zero would weigh the content without end."""
    content = torch.tensor(flat).view(1, 3, 1, 1).expand(1, 3, 64, 64).contiguous()
    image, log = optimized(content, [painting], loss, measured=False, steps=20)
    assert caplog.text.count("photos for the balance are all alike: it is measured on drawn pictures instead") == 1
    assert (image - content).abs().max() > 0.05 and log[-1][1]["style"] < 0.9 * log[0][1]["style"]
    assert 0 < log[-1][1]["content"] < 5


def test_drawn_pictures_are_as_unlike_as_photos(loss, shared, caplog) -> None:
    """Of the gaps of photos, theirs are a half to twice as much: so the weights mean about the same."""
    files = sorted((shared / "data" / "eval").glob("*.jpg"))[:8]
    photos = torch.cat([resize(read_image(file).pixels, 256)[..., :128, :128] for file in files])
    measured, drawn = loss.photo_statistics(photos), loss.photo_statistics(photos[:1].repeat(4, 1, 1, 1))
    assert caplog.text.count("all alike") == 1
    painting = loss.grams(resize(read_image(PAINTING).pixels, 256))
    pairs = [(measured.content_gaps, drawn.content_gaps), (measured.style_gaps(painting), drawn.style_gaps(painting))]
    for first, second in pairs:
        for key, gap in first.items():
            assert 0.3 < float(second[key] / gap) < 3, key


@pytest.mark.parametrize("contrast", [1.0, 0.3])
def test_photos_that_differ_are_measured_themselves(contrast, loss, caplog) -> None:
    photos = torch.stack([0.5 + contrast * (draw(number, 64, 64, blur=2.0) - 0.5) for number in range(4)])
    loss.photo_statistics(photos)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("size", "options", "status"),
    [((1, 1), ("--size=32",), 0), ((1, 1), ("--size=32", "--colors=histogram"), 0), ((1, 1), ("--size=1",), 2),
     ((1, 300), ("--size=300",), 2), ((300, 1), ("--size=32", "--start=noise"), 2), ((17, 17), ("--size=17",), 0),
     ((20, 16), ("--size=20", "--optimizer=adam", "--colors=luminance"), 0),
     ((1, 1), ("--size=32", "--photos=one"), 2)],
    ids=str,
)  # fmt: skip
def test_the_smallest_photos_are_painted_or_refused_in_a_line(size, options, status, playground, capsys) -> None:
    Path("one").mkdir()
    for place in ("photo.png", "one/a.png"):
        Image.new("RGB", size, (10, 200, 30)).save(place)
    assert (
        run("optimize", "--content=photo.png", f"--styles=[{PAINTING}]", *QUICK, *options, "--output=o.png") == status
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("impasto optimize: ")]
    assert len(lines) == (status == 2) and Path("o.png").exists() == (status == 0)
    assert all("needs at least 16×16" in line or "give at least two" in line for line in lines)


def test_a_picture_in_any_memory_format_is_optimized(loss, painting) -> None:
    content = draw(1, 32, 32)[None].contiguous(memory_format=torch.channels_last)
    assert optimized(content, [painting], loss, measured=False, steps=1)[0].shape == content.shape
