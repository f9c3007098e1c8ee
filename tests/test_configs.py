"""Every file in configs/ trains: two steps of the real command, shrunk to seconds."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pictures import save, smoke_pictures

from impasto.commands import run
from impasto.data.files import located
from impasto.images import read_image
from impasto.networks import load_network

CONFIGS = Path(__file__).parents[1] / "configs"
PRESETS = sorted((CONFIGS / "optimize").glob("*.yaml"))
CLIPS = CONFIGS / "evaluate" / "video.yaml"  # evaluation/test_clips runs it
EVALUATIONS = [CONFIGS / "compare.yaml", *sorted({*(CONFIGS / "evaluate").glob("*.yaml")} - {CLIPS})]
OTHERS = [
    *CONFIGS.glob("arbitrary*.yaml"),  # test_any_painting runs one
    CONFIGS / "distill.yaml",
    CONFIGS / "optimize.yaml",
    *PRESETS,
    *EVALUATIONS,
    CLIPS,
]  # test_distillation runs one
STYLES = sorted((CONFIGS / "styles").glob("*.yaml"))
# Of the styles one trains: each says what gallery.yaml, which trains too, says of it.
FILES = [file for file in sorted(CONFIGS.rglob("*.yaml")) if file not in [*OTHERS, *STYLES[1:]]]
SHRUNK = (
    "--trainer.accelerator=cpu", "--trainer.max_steps=2", "--minutes=null", "--trainer.val_check_interval=2",
    "--data.crop=64", "--data.photos=smoke/photos", "--data.num_workers=0", "--data.batch_size=2", "--model.width=4",
    "--model.residual_blocks=1", "--model.gap_photos=2", "--model.loss.weights=random", "--run=run",
    "--model.style_size=96",
    "--model.start_from=null", "--trainer.num_nodes=1", "--trainer.devices=1", "--model.compile=false",
)  # fmt: skip


@pytest.fixture(autouse=True)
def playground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    smoke_pictures(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    os.environ.clear()  # of the port and ranks that Lightning leaves there under ddp, for every process after
    os.environ.update(before)


def styles(file: Path) -> dict:
    return yaml.safe_load(file.read_text()).get("model", {}).get("styles", {})


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_config_trains(file: Path) -> None:
    named = styles(file)
    for number, style in enumerate(named.values()):
        if isinstance(style, dict):
            save(Path(style["image"]), 1000 + number, blur=1.5)  # in tmp_path
    painting = () if named else ("--model.styles.smoke=smoke/painting.png",)
    assert run("train", "fit", "--config", str(file), *painting, *SHRUNK) == 0
    (published,) = Path("run").glob("*.safetensors")
    names = [style["name"] for style in load_network(published).metadata["styles"]]
    assert names == list(named or ["smoke"])


@pytest.mark.parametrize("file", PRESETS, ids=lambda file: file.stem)
def test_every_preset_optimizes(file: Path) -> None:
    given = ("--content=smoke/painting.png", "--styles=[smoke/painting.png]", "--output=o.png")
    small = ("--steps=2", "--size=48", "--style_size=48", "--loss.weights=random")
    assert run("optimize", "--config", str(file), *given, *small) == 0
    assert Path("o.png").exists()


@pytest.mark.parametrize("file", EVALUATIONS, ids=lambda file: file.stem)
def test_every_evaluation_reports(file: Path) -> None:
    config = yaml.safe_load(file.read_text())
    # Every painting goes the same way, and 24 of them take minutes.
    config["paintings"] = dict(list(config["paintings"].items())[:3])
    for number, picture in enumerate(config["paintings"].values()):
        save(Path(picture), number)
    Path("few.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for photo in config["photos"]:
        read_image(located(photo))
    for photo in sorted(Path("smoke/photos").iterdir())[4:]:
        photo.unlink()  # four are enough to measure the balance on
    Path("balance").symlink_to("smoke/photos")
    # Beside a network of the file's own choice, or a layer that only VGG has, the compact one shows the same.
    own = "network" in config.get("loss", {}) or "loss.content_layers" in config.get("axes", {})
    loss = "--loss.weights=random" if own else "--loss.network=compact"
    # The networks and the references paint each photo alike: of several, one is enough, but for an axis of photos.
    photos = () if "photo" in config.get("axes", {}) else (f"--photos=[{config['photos'][0]}]",)
    length = "--steps=2" if "axes" in config else "--marks=[1,2]"
    small = ("--size=32", "--style_size=32", length, "--costs=false", *photos)
    assert run("evaluate", "--config", "few.yaml", loss, *small) == 0
    assert Path(config["output"], "report.md").exists()


def test_the_reference_reads_its_config_unasked(capsys: pytest.CaptureFixture) -> None:
    """Lines of optimize.yaml stand in the help as defaults."""
    with pytest.raises(SystemExit):
        run("optimize", "--help")
    strength = yaml.safe_load((CONFIGS / "optimize.yaml").read_text())["loss"]["style_strength"]
    assert f"under `relative` it means the same for every painting. (type: float, default: {strength})" in " ".join(
        capsys.readouterr().out.split()
    )


@pytest.mark.parametrize("file", STYLES, ids=lambda file: file.stem)
def test_a_style_file_names_its_painting(file: Path) -> None:
    style = styles(file)[file.stem]
    assert yaml.safe_load(file.read_text()) == {"model": {"styles": {file.stem: style}}}
    assert style == styles(CONFIGS / "gallery.yaml")[file.stem]
    assert style["artist"] and 1400 < style["year"] < 1931 and style["licence"] == "public domain"
    assert style["source"].startswith("https://")


def test_there_are_six_paintings_or_more() -> None:
    assert len(STYLES) >= 6
