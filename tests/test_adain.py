"""Adaptive instance norm: the paper's equations, its training, and every door of a network for any painting."""

from pathlib import Path

import pytest
import torch
from pictures import draw, save
from test_any_painting import SHRUNK, place, train_any  # noqa: F401  place is a fixture

from impasto import Stylizer
from impasto.commands import run
from impasto.images import read_image
from impasto.networks import load_network
from impasto.networks.adain import AdaINNet
from impasto.networks.layers import Moments
from impasto.networks.reading import LAYERS, style_statistics
from impasto.perceptual.features import FeatureNetwork


@pytest.fixture(scope="module")
def network() -> AdaINNet:
    torch.manual_seed(0)
    network = AdaINNet(4, canvas=0.0).with_encoder().eval()
    for parameter in network.to_rgb.parameters():
        torch.nn.init.normal_(parameter)
    return network.requires_grad_(False)


def train(*more: str) -> int:
    """A short training; --model.basis and --model.residual_blocks act for the predictor only, and are refused here."""
    predictors = ("--model.basis", "--model.residual_blocks")
    return train_any([option for option in SHRUNK if not option.startswith(predictors)], *more)


@pytest.fixture(scope="module")
def trained(place: Path) -> Path:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert train("--run=adain", "--model.method=adain") == 0
    return place / "adain" / "adain.safetensors"


def test_features_get_the_statistics_of_the_painting(network: AdaINNet) -> None:
    """Huang & Belongie's equation 8."""
    photo, painting = draw(1)[None], draw(2, 80, 60, blur=1.0)[None]
    features, code = network.reader(photo), network.encode_style([(painting, 1.0)])
    aligned = network.layers[1](features, code, Moments())
    wanted = network.reader(painting)
    varied = features.std((2, 3)) > 0.05  # a channel that is 0 everywhere has nothing to align
    assert varied.float().mean() > 0.5
    torch.testing.assert_close(aligned.mean((2, 3)), wanted.mean((2, 3)), atol=1e-3, rtol=1e-3)
    deviations = (aligned.std((2, 3), correction=0), wanted.std((2, 3), correction=0))
    torch.testing.assert_close(*(each[varied] for each in deviations), atol=5e-3, rtol=0.02)


def test_codes_mix_as_the_features_do(network: AdaINNet) -> None:
    """Equation 15 for mixtures of styles, and 14 for the trade-off: there it is features that are mixed."""
    photo, one, two = draw(1)[None], draw(2, blur=1.0)[None], draw(3, blur=2.0)[None]
    features = network.reader(photo)

    def aligned(code: torch.Tensor) -> torch.Tensor:
        return network.layers[1](features, code, Moments())

    mixed = aligned(network.encode_style([(one, 3.0), (two, 1.0)]))
    apart = [aligned(network.encode_style([(style, 1.0)])) for style in (one, two)]
    torch.testing.assert_close(mixed, 0.75 * apart[0] + 0.25 * apart[1], atol=1e-3, rtol=1e-3)
    own = aligned(network.encode_style([(photo, 1.0)]))
    torch.testing.assert_close(own, features, atol=5e-3, rtol=1e-3)


def test_the_encoder_is_the_compact_network_and_reads_what_statistics_say(network: AdaINNet) -> None:
    pictures = torch.cat([draw(1)[None], draw(2, blur=1.0)[None]])
    compact = FeatureNetwork("compact", LAYERS)
    torch.testing.assert_close(network.reader(pictures), compact(pictures)["relu4_1"], atol=1e-4, rtol=1e-3)
    codes = torch.cat([network.read(picture) for picture in pictures.split(1)])
    torch.testing.assert_close(network.code_of(style_statistics(compact, pictures)), codes, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("origin", [(72, 80), (80, 72), (0, 88)])
def test_parts_are_those_of_the_whole(network: AdaINNet, origin: tuple[int, int]) -> None:
    photo, code = draw(7, 170, 190)[None], network.encode_style([(draw(2, blur=1.0)[None], 1.0)])
    moments = Moments()
    whole = network(photo, code, moments=moments)
    down, right = origin
    part = network(photo[..., down:, right:], code, origin=origin, moments=Moments(moments.statistics))
    inner = (down + network.reach if down else 0), (right + network.reach if right else 0)
    expected = whole[..., inner[0] :, inner[1] :]
    torch.testing.assert_close(part[..., inner[0] - down :, inner[1] - right :], expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.02


def test_training_moves_the_decoder_and_leaves_the_encoder(trained: Path) -> None:
    network, fresh = load_network(trained), AdaINNet(4).with_encoder()
    assert isinstance(network, AdaINNet) and network.styles == [] and "statistics" not in network.metadata
    for name, value in network.reader.state_dict().items():
        assert torch.equal(value, fresh.reader.state_dict()[name].half().float()), name
    assert network.metadata["training"]["paintings"] == 5
    assert trained.stat().st_size < 2e6


def test_every_size_and_tiles(trained: Path, place: Path) -> None:  # noqa: F811
    stylize = Stylizer(trained, place / "few" / "1.png", stroke="pixels")
    for height, width in ((1, 1), (3, 70), (37, 53), (64, 64)):
        assert stylize(torch.rand(3, height, width)).shape == (3, height, width)
    large = draw(20, 330, 350)
    in_tiles = Stylizer(trained, place / "few" / "1.png", stroke="pixels", tile=288)(large)
    torch.testing.assert_close(in_tiles, stylize(large), atol=0.02, rtol=0)
    weak = Stylizer(trained, place / "few" / "1.png", stroke="pixels", strength=0.4)(large)
    assert not torch.equal(weak, stylize(large))


def test_the_export_paints_as_torch_does(trained: Path, place: Path) -> None:  # noqa: F811
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    pytest.importorskip("onnxscript", reason="the export extra is not installed")
    exported = trained.with_name("exported.onnx")
    assert run("export", str(trained), f"--output={exported}", "--parts") == 0
    options = {"stroke": "pixels", "strength": 0.7, "tile": 288}
    style = {place / "few" / "1.png": 0.3, place / "many" / "3.png": 0.7}
    photo = draw(20, 330, 350)
    by_onnx = Stylizer(exported, style, **options)
    assert by_onnx.painter.any_picture and by_onnx.painter.multiple == 8
    painted = Stylizer(trained, style, backend="torch", **options)(photo)
    torch.testing.assert_close(by_onnx(photo), painted, atol=1e-3, rtol=0)


def test_a_run_begins_from_one_of_its_kind_only(
    trained: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    options = ("--run=again", "--model.method=adain", "--trainer.max_steps=1", "--trainer.val_check_interval=1")
    assert train(*options, f"--model.start_from={trained}") == 0
    assert train(*options, "--run=third", "--model.start_from=any") == 2
    assert "start_from any: not a network of --model.method adain" in capsys.readouterr().err
    assert train_any(SHRUNK, "--run=fourth", f"--model.start_from={trained}") == 2
    assert "its residual_blocks is None, not 1" in capsys.readouterr().err


def test_infer_names_the_painting(trained: Path, place: Path, tmp_path: Path) -> None:  # noqa: F811
    photo = save(tmp_path / "p.png", 30)
    painting = place / "few" / "1.png"
    assert run("infer", str(photo), f"--network={trained}", f"--style={painting}", f"--output={tmp_path / 'o'}") == 0
    assert read_image(tmp_path / "o" / "p_adain_1.png").pixels.shape == read_image(photo).pixels.shape
