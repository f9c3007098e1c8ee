"""Options that act only together with others are refused by name where they would be ignored."""

from pathlib import Path

import pytest
from pictures import save

from impasto.commands import run
from impasto.commands.arguments import read_options
from impasto.commands.optimize import optimize_photo
from impasto.data.modules import Photos

PHOTO = ("photo.png", "a.png")
REPORT = (
    "photo.png", "--paintings.a", "a.png", "--balance_photos", "photos", "-o", "report",
    "--loss.network", "compact",
)  # fmt: skip
TRAIN = ("fit", "--data.photos", "photos", "--model.styles.a", "a.png", "--model.loss.network", "compact")
AXES = ("--axes.start", "[content]")
CLIPS = ("--clips.walk", "walk.mp4", "-o", "report")

REFUSED = [
    (("optimize", *PHOTO, "--noise_ratio", "0.5"), "--noise_ratio: acts only with --start mix; give that too, or"),
    (("optimize", *PHOTO, "--start", "noise", "--noise-ratio=0.5"), "--noise_ratio: acts only with --start mix"),
    (("optimize", *PHOTO, "--seed", "3"), "--seed: acts only with --start noise or mix"),
    (("optimize", *PHOTO, "--optimizer", "adam", "--line_search"), "--line_search: acts only with --optimizer lbfgs"),
    (("optimize", *PHOTO, "--blend", "0.3"), "--blend: acts only with --loss.combined_weight"),
    (("optimize", *PHOTO, "--loss.secondary_layers.relu3_1", "2"),
     "--loss.secondary_layers.relu3_1: acts only with --loss.secondary_weight"),
    (("optimize", *PHOTO, "--photos", "photos", "--loss.balance", "fixed"),
     "--photos: acts only with --loss.balance relative or dynamic"),
    (("optimize", *PHOTO, "--steps", "9", "--snapshots", "1", "10"), "snapshots 10: the last step is 9"),
    (("optimize", "photo.png", "a.png=0.5"), "styles a.png=0.5: one painting has no share; --loss.style_strength"),
    (("evaluate", *REPORT, "--steps", "9"), "--steps: acts only with --axes"),
    (("evaluate", *REPORT, "--seed", "9"), "--seed: acts only with --start noise or mix"),
    (("evaluate", *REPORT, *AXES, "--marks", "9"), "--marks: acts only without --axes; give one of the two"),
    (("evaluate", *REPORT, *AXES, "-n", "gallery"), "--networks: acts only without --axes"),
    (("evaluate", *REPORT, *AXES, "--presets", "p.yaml"), "--presets: acts only without --axes"),
    (("evaluate", *REPORT, *AXES, "--costs"), "--costs: acts only without --axes"),
    (("evaluate", *REPORT, *AXES, "--start", "mix"), "--start: is one of --axes, which give its values; leave it out"),
    (("evaluate", *CLIPS, "--reference_size", "64"), "--reference_size: acts only with --reference; give that too"),
    (("evaluate", *CLIPS, "--loss.network", "compact"), "--loss.network: acts only with --reference"),
    (("evaluate", *CLIPS, "--learning_rate", "0.1"), "--learning_rate: acts only with --reference"),
    (("evaluate", *CLIPS, "--reference=2", "--steps=9"), "--steps: --reference gives the number of iterations; leave"),
    (("infer", "photo.png", "--style", "great_wave=0.5"), "style 'great_wave=0.5': one style has no share; give its"),
    (("infer", "photo.png", "-n", "any", "-s", "a.png=2"), "style 'a.png=2': one style has no share"),
    (("train", *TRAIN, "--model.teacher_weight", "2"), "--model.teacher_weight: acts only with --model.teacher"),
    (("export", "gallery", "--photos", "photos"), "--photos: acts only with --quantize int8"),
    (("styles", "add", "a.png", "--photos", "photos"), "--photos: acts only with --fit"),
    (("styles", "add", "a.png", "--device", "cpu"), "--device: acts only with --fit"),
    (("styles", "remove", "a", "--name", "b"), "--name: acts only with `styles add`; leave it out"),
    (("styles", "list", "--network", "any"), "--network: acts only with `styles add`"),
    (("benchmark", "--steps", "9"), "--steps: acts only with --what optimizers"),
    (("benchmark", "--painting", "a.png"), "--painting: acts only with --what optimizers"),
    (("benchmark", "--network", "any"), "--network: acts only with --what inference"),
    (("benchmark", "--files", "a.onnx"), "--files: acts only with --what inference"),
    (("benchmark", "--what", "loss", "--quick"), "--quick: acts only with --what training"),
    (("benchmark", "--what", "loss", "--batches", "2"), "--batches: acts only with --what training"),
    (("benchmark", "--what", "inference", "--compile"), "--compile: acts only with --what training"),
    (("benchmark", "--what", "inference", "--photos", "photos"), "--photos: acts only with --what training or opt"),
    (("benchmark", "--what", "inference", "--size", "64"), "--size: acts only with --what training or loss or ref"),
    (("benchmark", "--what", "reference", "--width", "4"), "--width: acts only with --what training or loss or opt"),
    (("benchmark", "--what", "optimizers", "--photos=photos", "--rounds=2"), "--rounds: acts only with --what train"),
    (("benchmark", "--num_workers", "2"), "--num_workers: acts only with --what training and --photos"),
    (("train", *TRAIN, "--model.gap_photos=4", "--model.loss.balance=fixed"),
     "--model.gap_photos: acts only with --model.loss.balance relative or dynamic"),
    (("train", *TRAIN, "--model.loss.secondary_layers.relu2_1", "1"),
     "--model.loss.secondary_layers.relu2_1: acts only with --model.loss.secondary_weight"),
    (("train", *TRAIN, "--previews.photos", "2", "--previews.every_n_steps=0"),
     "--previews.photos: acts only with --previews.every_n_steps"),
    (("train-any", "fit", "--model.paintings=[photos]", "--model.method", "adain", "--model.basis", "8"),
     "--model.basis: acts only with --model.method predictor"),
    (("train-any", "fit", "--model.paintings=[photos]", "--model.method=adain", "--model.residual_blocks=2"),
     "--model.residual_blocks: acts only with --model.method predictor"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("photo.png", "a.png", "photos/a.png", "photos/b.png")):
        save(Path(name), number)


@pytest.mark.parametrize(
    ("line", "said"), REFUSED, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_an_option_that_would_be_ignored_is_named(
    line: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*line) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and err[0].startswith(f"impasto {line[0]}: {said}"), err
    assert not Path("runs").exists() and not Path("report").exists() and not Path("optimized").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--noise_ratio=0.5", "--start=mix", "--seed=1"], ["--seed=1", "--start=noise"],
        ["--line_search", "--learning_rate=1.0"], ["--line_search=false", "--optimizer=adam"],
        ["--blend=0.3", "--loss.combined_weight=0.1"], ["--photos=photos", "--loss.balance=dynamic"],
        ["--loss.secondary_layers.relu2_1=1", "--loss.secondary_weight=0.1"],
        ["--config=mix.yaml", "--start=content"],  # a config may serve several command lines
        ["--config=mix.yaml", "--noise_ratio=0.5"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_acts_is_taken(options: list[str]) -> None:
    Path("mix.yaml").write_text("start: mix\nnoise_ratio: 0.5\n")
    given, reference = read_options("optimize", "", optimize_photo, [*PHOTO, *options], ("content", "styles"))
    values = {**vars(reference), **given}
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        if name in values:
            assert str(values[name]).lower() == (value or "true")


def test_options_of_datasets_are_named_for_a_folder(caplog: pytest.LogCaptureFixture) -> None:
    photos = Photos("photos", split="val", image_column="image", streaming=True, crop=16, val_photos=0)
    photos.setup()
    said = "--data.split and --data.image_column and --data.streaming: no effect on photos in files"
    assert [record.getMessage() for record in caplog.records] == [said]
    caplog.clear()
    Photos("photos", crop=16, val_photos=0).setup()
    assert not caplog.records
