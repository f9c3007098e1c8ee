"""A network for any painting: the predictor, its training on many paintings, and pictures as styles."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import draw, save, smoke_pictures
from PIL import Image

from impasto import Stylizer
from impasto.commands import run
from impasto.images import read_image
from impasto.networks import NetworkError, TransformNet, load_network, save_network
from impasto.networks.predictor import AnyStyleNet, with_basis
from impasto.networks.reading import LAYERS, StyleStatistics, style_statistics
from impasto.perceptual.features import FeatureNetwork
from impasto.perceptual.loss import gram_matrix
from impasto.training.views import PaintingViews, found

CONFIG = Path(__file__).parents[1] / "configs" / "arbitrary_cpu.yaml"
SHRUNK = (
    "--trainer.max_steps=4", "--trainer.log_every_n_steps=1", "--trainer.val_check_interval=4",
    "--trainer.precision=32-true", "--data.crop=64", "--data.photos=smoke/photos", "--data.num_workers=0",
    "--data.batch_size=4", "--model.width=4", "--model.residual_blocks=1", "--model.basis=6", "--model.gap_photos=2",
    "--model.style_size=96", "--model.start_from=null", "--minutes=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def reader() -> FeatureNetwork:
    return FeatureNetwork("compact", LAYERS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and two folders of paintings: four, and two beside a file that is none."""
    place = tmp_path_factory.mktemp("any")
    smoke_pictures(place)
    for number in range(4):
        save(place / "many" / f"{number}.png", number, blur=1.0 + number)
    for number in range(2):
        save(place / "few" / f"{number}.png", 10 + number, blur=1.5)
    (place / "few" / "broken.jpg").write_bytes(b"no picture")
    return place


def train(*more: str) -> int:
    return train_any(SHRUNK, *more)


def train_any(shrunk: Iterable[str], *more: str) -> int:
    paintings = ("--model.paintings=[many,few]", "--model.held_out=[many/0.png]")
    return run("train-any", "fit", "--config", str(CONFIG), *paintings, *shrunk, *more)


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert train("--run=whole") == 0
    return place / "whole" / "whole.safetensors"


def losses(table: Path) -> list[dict[str, str]]:
    return [row for row in csv.DictReader(table.open()) if row["train/loss"]]


def test_reduced_statistics_are_those_of_reduced_features(reader: FeatureNetwork) -> None:
    """A 1×1 convolution of the features, then their Gram matrix and means: P G Pᵀ and P m."""
    predictor = AnyStyleNet(4, 4, 0).predictor
    picture = draw(3)[None]
    features = reader(picture)["relu3_1"]
    reduce = predictor.reduce["relu3_1"]
    reduced = torch.einsum("rc,bchw->brhw", reduce, features)
    statistics = style_statistics(reader, picture)
    # Gram matrices are divided by the number of channels, of which there are 32 instead of 256.
    expected = gram_matrix(reduced) * 32 / 256
    torch.testing.assert_close(reduce @ statistics.grams["relu3_1"] @ reduce.mT, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(statistics.means["relu3_1"] @ reduce.mT, reduced.mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_constants_give_the_training_set_mean_0_and_deviation_1(reader: FeatureNetwork) -> None:
    pictures = torch.stack([draw(seed, 64, 64, blur=1.0 + seed % 5) for seed in range(12)])
    statistics = style_statistics(reader, pictures)
    predictor = AnyStyleNet(4, 4, 0).predictor
    predictor.fit_constants(statistics)
    numbers = (predictor._numbers(statistics) - predictor.centre) / predictor.spread
    assert numbers.mean(0).abs().max() < 1e-3
    assert (numbers.std(0) - 1).abs().median() < 1e-3  # some hardly vary: their deviation has a least value


def test_codes_sum_to_1_and_mix_linearly() -> None:
    network = AnyStyleNet(5, 4, 0).eval()
    first, second = draw(1)[None], draw(2, blur=1.0)[None]
    one, two = network.encode_style([(first, 2.0)]), network.encode_style([(second, 1.0)])
    assert float(one.sum()) == pytest.approx(1, abs=1e-5) and not torch.equal(one, two)
    mixed = network.encode_style([(first, 3.0), (second, 1.0)])
    torch.testing.assert_close(mixed, 0.75 * one + 0.25 * two)


def test_a_basis_begins_with_the_styles_of_a_network() -> None:
    known = TransformNet(2, 4, 1)
    for parameter in known.parameters():
        torch.nn.init.normal_(parameter)
    network = AnyStyleNet(7, 4, 1)
    network.load_state_dict(with_basis(network, known))
    photo = draw(5)[None]
    for number in range(2):
        code = torch.eye(7)[number : number + 1]
        torch.testing.assert_close(network(photo, code), known(photo, code[:, :2]))
    rows = network.layers[1].norm.gamma
    assert len(torch.unique(rows, dim=0)) == 7 and (rows[2:] - rows[:2].mean(0)).abs().mean() < 0.5


def test_views_are_kept_in_half_precision_and_drawn_by_folder(place: Path, reader: FeatureNetwork) -> None:
    def measure(view: torch.Tensor) -> tuple[StyleStatistics, dict]:
        statistics = style_statistics(reader, view)
        return statistics, {(1.0, layer): gram for layer, gram in statistics.grams.items()}

    folders = [[place / "many" / f"{n}.png" for n in range(4)], [place / "few" / "0.png"]]
    views = PaintingViews.measured(folders, 3, 96, measure)
    assert len(views.names) == 5 and [len(folder) for folder in views.rows] == [4, 1]
    exact = style_statistics(reader, read_image(folders[0][2]).resized(96).pixels)
    kept, grams = views.at(torch.tensor([views.rows[0][2][0]]))
    for layer in LAYERS:
        for found_, expected in ((kept.grams, exact.grams), (kept.means, exact.means)):
            assert (found_[layer] - expected[layer]).norm() < 1e-3 * expected[layer].norm()
        torch.testing.assert_close(grams[1.0, layer], kept.grams[layer])
    drawn = [views.draw(number, seed=3) for number in range(4000)]
    assert drawn == [views.draw(number, seed=3) for number in range(4000)]
    assert np.mean([len(each) == 2 for each, _ in drawn]) == pytest.approx(0.25, abs=0.03)
    few = [row for painting in views.rows[1] for row in painting]
    assert np.mean([each[0] in few for each, _ in drawn]) == pytest.approx(0.5, abs=0.03)
    assert all(sum(weights) == pytest.approx(1) for _, weights in drawn)


def test_it_trains_publishes_and_says_what_it_learned(trained: Path, place: Path) -> None:
    network = load_network(trained)
    assert isinstance(network, AnyStyleNet) and network.num_styles == 6 and network.styles == []
    training = network.metadata["training"]
    assert training["paintings"] == 5 and training["held_out"] == ["0.png"]
    rows = losses(trained.parent / "losses.csv")
    assert len(rows) == 4 and all(float(row["train/style"]) > 0 for row in rows)
    assert all(float(row["train/own"]) > 0 for row in rows)
    assert (trained.parent / "previews" / "step-000004.jpg").exists()


@pytest.mark.parametrize("config", sorted(CONFIG.parent.glob("arbitrary*.yaml")), ids=lambda config: config.stem)
def test_every_config_trains(config: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    run_ = f"--run=by_{config.stem}"
    options = ("--trainer.accelerator=cpu", "--model.loss.weights=random", "--model.compile=false", run_)
    weights = options if "vgg" in config.read_text() else (options[0], run_)
    paintings = ("--model.paintings=[many]", "--trainer.max_steps=1", "--trainer.val_check_interval=1")
    idle = ("--model.basis", "--model.residual_blocks") if "adain" in config.stem else ()
    shrunk = [option for option in SHRUNK if not option.startswith(idle)]
    assert run("train-any", "fit", "--config", str(config), *shrunk, *paintings, *weights) == 0
    assert (place / f"by_{config.stem}" / f"by_{config.stem}.safetensors").exists()


def test_an_interrupted_run_resumes_bit_for_bit(trained: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert train("--run=part", "--trainer.max_steps=4", "--checkpoint.every_n_train_steps=2") == 0
    (place / "part" / "checkpoints" / "step-000004.ckpt").unlink()
    (place / "part" / "checkpoints" / "best.ckpt").unlink(missing_ok=True)
    assert train("--run=part", "--ckpt_path=last") == 0
    assert losses(place / "part" / "losses.csv") == losses(place / "whole" / "losses.csv")
    ours, theirs = load_network(place / "part" / "part.safetensors"), load_network(trained)
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value), key


def test_every_kind_of_picture_is_a_style(trained: Path, place: Path) -> None:
    photo, path = draw(20), place / "few" / "1.png"
    stylize = Stylizer(trained, path)
    painted = stylize(photo)
    for style in (str(path), Image.open(path), read_image(path).pixels, {path: 1}, {str(path): 2.0}):
        assert torch.equal(stylize(photo, style=style), painted)
    mixed = stylize(photo, style=f"{path}=0.3,{place / 'few' / '0.png'}=0.7")
    assert not torch.equal(mixed, painted)
    torch.testing.assert_close(mixed, stylize(photo, style={path: 3, place / "few" / "0.png": 7}))


def test_infer_takes_a_picture(trained: Path, place: Path, capsys: pytest.CaptureFixture) -> None:
    photo, painting = save(place / "p.png", 30), place / "few" / "1.png"
    command = ("infer", str(photo), f"--network={trained}", f"--output={place / 'out'}")
    assert run(*command, f"--style={painting}") == 0
    assert run(*command, f"--style={painting},{place / 'many' / '3.png'}") == 0
    names = sorted(file.name for file in (place / "out").iterdir())
    assert names == ["p_whole_1-50+3-50.png", "p_whole_1.png"]
    assert run("infer", f"--network={trained}", "--list-styles") == 0
    assert "any picture: --style painting.jpg" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("style", "message"),
    [
        (None, "a picture: --style painting.jpg"),
        ("wave", "wave: no such file"),
        ("a.png=0.5,b.png", "give a weight to every style"),
        ({}, "no picture is given"),
        ({"a.png": -1}, "must be a number above 0"),
    ],
)
def test_other_styles_are_refused(trained: Path, style: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Stylizer(trained, style)  # type: ignore[arg-type]


def test_a_network_of_names_takes_no_picture(tmp_path: Path) -> None:
    file = save_network(tmp_path / "named.safetensors", TransformNet(2, 4, 0))
    with pytest.raises(ValueError, match="knows style1, style2; a picture as the style needs a network for any"):
        Stylizer(file, Path("painting.jpg"))


def test_another_compact_network_is_refused(trained: Path, tmp_path: Path) -> None:
    network = load_network(trained)
    other = save_network(tmp_path / "other.safetensors", network, statistics={"network": "compact", "sha256": "0"})
    with pytest.raises(ValueError, match="trained with another compact loss network"):
        Stylizer(other, draw(1))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--model.held_out=[many,few]", "many: no paintings are left, all are held out"),
        ("--model.paintings=[nowhere]", "nowhere: no such folder"),
        ("--model.loss.scales=[1.0,0.5]", "scales must be [1.0]"),
        ("--model.loss.balance=dynamic", "balance relative or fixed"),
        ("--model.views=0", "must be at least 1"),
        ("--model.start_from=gallery", "its width is 32, not 4"),
    ],
)
def test_mistakes_are_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, option: str, message: str
) -> None:
    monkeypatch.chdir(place)
    assert train("--run=bad", option) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("impasto train-any: "), error


def test_a_damaged_predictor_is_refused(trained: Path, tmp_path: Path) -> None:
    network = load_network(trained)
    del network.predictor
    with pytest.raises(NetworkError, match="weights and metadata disagree"):
        load_network(save_network(tmp_path / "part.safetensors", network))


def test_a_limit_draws_the_same_paintings_every_time(place: Path) -> None:
    some = found([str(place / "many")], [], 2)
    assert some == found([str(place / "many")], [], 2) and len(some[0]) == 2


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    pytest.importorskip("onnxscript", reason="the export extra is not installed")
    assert run("export", str(trained), f"--output={trained.with_suffix('.onnx')}") == 0
    return trained.with_suffix(".onnx")


def test_the_export_reads_paintings_and_paints_as_torch_does(exported: Path, trained: Path, place: Path) -> None:
    photo, style = draw(20), {place / "few" / "1.png": 0.3, place / "many" / "3.png": 0.7}
    by_onnx = Stylizer(exported, style)
    assert by_onnx.painter.any_picture and by_onnx.styles == []
    torch.testing.assert_close(by_onnx(photo), Stylizer(trained, style, backend="torch")(photo), atol=1e-4, rtol=0)
    weak = Stylizer(exported, style, strength=0.5)(photo)
    torch.testing.assert_close(weak, Stylizer(trained, style, strength=0.5, backend="torch")(photo), atol=1e-4, rtol=0)


def test_an_export_beside_a_network_is_used(exported: Path, trained: Path, place: Path) -> None:
    """Only with its tiles; the export here has none, so torch paints."""
    assert type(Stylizer(trained, place / "few" / "1.png", device="cpu").painter).__name__ == "TorchPainter"


def test_a_missing_reader_is_one_line(exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "alone.onnx").write_bytes(exported.read_bytes())
    photo = save(tmp_path / "p.png", 1)
    assert run("infer", str(photo), f"--network={tmp_path / 'alone.onnx'}", f"--style={photo}") == 2
    assert "alone.style.onnx: not there, and needed to read a painting" in capsys.readouterr().err


def test_evaluate_judges_it_by_the_painting_given(trained: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    save(place / "p.png", 30)
    small = ("--size=48", "--style_size=48", "--marks=[1]", "--costs=false", "--loss.network=compact")
    paintings = ("--paintings.unseen=few/1.png", "--photos=[p.png]", "--balance_photos=smoke/photos")
    assert run("evaluate", *paintings, f"--networks=[{trained}]", *small, "--output=report") == 0
    assert "whole" in Path("report", "report.md").read_text()


def test_strength_mixes_the_painting_with_the_photo_as_a_style(trained: Path, place: Path) -> None:
    photo, painting = draw(20, 72, 88)[None], read_image(place / "few" / "1.png").pixels
    network = load_network(trained)
    code = torch.lerp(network.encode_style([(photo, 1.0)]), network.encode_style([(painting, 1.0)]), 0.3)
    weak = Stylizer(trained, painting, strength=0.3, stroke="pixels")
    torch.testing.assert_close(weak(photo), network(photo, code))
    assert torch.equal(Stylizer(trained, painting, strength=0)(photo), photo)
    in_tiles = Stylizer(trained, painting, strength=0.3, stroke="pixels", tile=128)(draw(20, 150, 200)[None])
    whole = Stylizer(trained, painting, strength=0.3, stroke="pixels", tile="never")(draw(20, 150, 200)[None])
    torch.testing.assert_close(in_tiles, whole, atol=0.01, rtol=0)


@pytest.mark.parametrize("network", ["any", "adain"])
def test_the_published_networks_paint_in_the_colours_of_a_painting(shared: Path, network: str) -> None:
    """Not learned: mean colour and deviation of the result come nearer to each painting's than the photo's are."""
    photo = read_image(shared / "data" / "eval" / "chicago.jpg").resized(256).pixels
    stylize = Stylizer(network, shared / "data" / "styles" / "large" / "227.jpg")
    for number in (227, 178, 130, 96):
        path = shared / "data" / "styles" / "large" / f"{number}.jpg"
        painting, painted = read_image(path).pixels, stylize(photo, style=path)
        moments = [torch.cat([x.mean((0, 2, 3)), x.std((0, 2, 3))]) for x in (painting, painted, photo)]
        assert (moments[0] - moments[1]).norm() < 0.75 * (moments[0] - moments[2]).norm(), number
    own = stylize(photo, style=photo)
    assert (own - photo).abs().mean() < {"any": 0.06, "adain": 0.15}[network]


def test_infer_finds_the_published_network_for_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photo, painting = save(tmp_path / "p.png", 30), save(tmp_path / "a.png", 31, blur=1.5)
    assert run("infer", str(photo), f"--style={painting}", f"--output={tmp_path / 'out'}") == 0
    assert "network: any" in capsys.readouterr().err
    assert (tmp_path / "out" / "p_any_a.png").exists()
