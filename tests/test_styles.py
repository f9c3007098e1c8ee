"""Styles of one's own: a painting becomes a row of a network file, and may be fitted."""

from itertools import count
from pathlib import Path

import pytest
import torch
from pictures import draw, save
from PIL import Image

from impasto import Stylizer
from impasto.choices import LossOptions
from impasto.commands import run
from impasto.images import read_image
from impasto.networks import TransformNet, load_network, save_network
from impasto.networks.predictor import AnyStyleNet, with_basis
from impasto.networks.rows import with_one_row
from impasto.perceptual.loss import PerceptualLoss
from impasto.training.fitting import fit_row


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small network for any painting, paintings and photos."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    network = AnyStyleNet(5, 4, 1)
    network.load_state_dict(with_basis(network, None))
    save_network("reads.safetensors", network, half=True)
    for number, name in enumerate(("waves", "dots", "other")):
        save(Path(f"{name}.png"), number, blur=1.0 + number)
    for number in range(3):
        save(Path("photos", f"{number}.png"), 10 + number, height=160, width=200)
    return tmp_path


def add(*more: str) -> int:
    return run("styles", "add", *more, "--network=reads.safetensors")


def test_an_added_style_paints_as_the_painting_does(here: Path) -> None:
    assert add("waves.png") == 0 and add("dots.png", "--name=mine") == 0
    photo = draw(20)
    for style, painting in (("waves", "waves.png"), ("mine", "dots.png")):
        by_name = Stylizer("styles.safetensors", style)(photo)
        by_picture = Stylizer("reads.safetensors", Path(painting))(photo)
        assert (by_name - by_picture).abs().max() < 1.5 / 255  # the file holds half precision
    mixed = Stylizer("styles.safetensors", {"waves": 0.5, "mine": 0.5})(photo)
    assert not torch.equal(mixed, by_name)


def test_styles_are_listed_removed_and_replaced(here: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("waves", "dots", "other"):
        assert add(f"{name}.png") == 0
    before = Stylizer("styles.safetensors", "other")(draw(20))
    assert run("styles", "remove", "dots") == 0
    capsys.readouterr()
    assert run("styles", "list") == 0
    assert capsys.readouterr().out.split() == ["waves", "other"]
    assert torch.equal(Stylizer("styles.safetensors", "other")(draw(20)), before)
    assert add("dots.png", "--name=other") == 2
    assert "has a style other: choose another --name, or --overwrite" in capsys.readouterr().err
    assert add("dots.png", "--name=other", "--overwrite") == 0
    assert not torch.equal(Stylizer("styles.safetensors", "other")(draw(20)), before)
    assert load_network("styles.safetensors").styles == ["waves", "other"]
    assert run("styles", "remove", "waves") == 0
    assert run("styles", "remove", "other") == 2
    assert "the only style" in capsys.readouterr().err


def test_fitting_lowers_the_style_loss_and_leaves_the_convolutions(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Judged on a photo that the fitting does not see, under the loss with plain weights."""
    network = with_one_row(load_network("reads.safetensors"), torch.full((1, 5), 0.2))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    painting = read_image(Path("waves.png")).pixels
    photos = torch.cat([read_image(file).pixels[..., :64, :64] for file in sorted(Path("photos").iterdir())])
    judge = PerceptualLoss(LossOptions(network="compact"))
    target = judge.style_target([painting], photos)
    unseen = draw(30)[None]

    def style_left() -> float:
        with torch.no_grad():
            return float(judge(network(unseen), unseen, target)["style"])

    first = style_left()
    clock = count()  # a second passes at every look at it, on every machine
    monkeypatch.setattr("impasto.training.fitting.time.monotonic", lambda: float(next(clock)))
    assert fit_row(network, painting, photos, seconds=20.5) == 20
    assert style_left() < 0.97 * first
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]) != key.endswith((".gamma", ".beta")), key
    assert not any(p.requires_grad for p in network.parameters())


def test_a_fitted_style_says_so(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert add("waves.png") == 0
    assert add("waves.png", "--name=near", "--fit=0.5", "--photos=photos", "--device=cpu") == 0
    assert run("styles", "list") == 0
    assert "near  fitted in " in capsys.readouterr().out
    photo = draw(20)
    plain, fitted = (Stylizer("styles.safetensors", name)(photo) for name in ("waves", "near"))
    assert not torch.equal(plain, fitted)


def test_a_network_of_names_is_a_beginning_too(here: Path) -> None:
    torch.manual_seed(0)
    save_network("named.safetensors", TransformNet(2, 4, 1))
    options = ("--file=own.safetensors", "--fit=0.2", "--photos", "photos", "--device=cpu")
    assert run("styles", "add", "waves.png", "--network=named.safetensors", *options) == 0
    assert load_network("own.safetensors").styles == ["waves"]
    assert load_network("own.safetensors").metadata["training"] == {"start_from": "named"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to do; give styles add PAINTING"),
        (("paint", "waves.png"), "paint waves.png: not understood"),
        (("add",), "add: not understood"),
        (("add", "none.png"), "none.png: no such file"),
        (("add", "broken.png"), "broken.png"),
        (("add", "waves.png", "--fit=-1"), "--fit -1.0: must be a number of seconds"),
        (("add", "waves.png", "--fit=nan"), "--fit nan: must be"),
        (("add", "waves.png", "--file=mine.onnx"), "--file mine.onnx: must be a .safetensors"),
        (("add", "waves.png", "--name=../out"), "style name '../out'"),
        (("add", "waves.png", "--network=gallery"), "knows its own styles only"),
        (("add", "waves.png", "--network=nothing"), "network 'nothing'"),
        (("add", "waves.png", "--file=reads.safetensors"), "not a file of styles"),
        (("add", "waves.png", "--fit=1", "--photos=photos/0.png"), "give two or more"),
        (("list",), "styles.safetensors: no such file"),
        (("remove", "waves"), "styles.safetensors: no such file"),
    ],
)
def test_mistakes_are_one_line_and_change_nothing(
    here: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture
) -> None:
    Path("broken.png").write_bytes(b"no picture")
    named = any(argument.startswith("--network") for argument in arguments)
    network = () if named or "add" not in arguments else ("--network=reads.safetensors",)
    assert run("styles", *arguments, *network) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1, error
    assert not Path("styles.safetensors").exists()


def test_another_network_is_told_before_fitting(here: Path, capsys: pytest.CaptureFixture) -> None:
    assert add("waves.png") == 0
    assert run("styles", "add", "dots.png", "--network=any", "--fit=1000") == 2
    assert "its styles are of another network than any; give another --file" in capsys.readouterr().err
    assert load_network("styles.safetensors").styles == ["waves"]


def test_a_style_of_the_published_network(here: Path) -> None:
    assert run("styles", "add", "waves.png") == 0
    assert run("infer", "photos/0.png", "--network=styles.safetensors", "--output=out") == 0
    with Image.open("out/0_styles.png") as painted, Image.open("photos/0.png") as photo:
        assert painted.size == photo.size
