"""Files whose metadata have another shape, or numbers that are none, are refused in one line; text is printable."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import DESCRIBED, exported, properties
from PIL import Image
from safetensors.torch import load_file, save_file

from impasto import commands as cli
from impasto.inference import Stylizer
from impasto.inference.backends import OnnxPainter
from impasto.networks import NetworkError, TransformNet, load_network, save_network
from impasto.perceptual.vgg import load_compact
from impasto.spelling import printable


@pytest.fixture
def published(tmp_path: Path) -> Path:
    network = TransformNet(1, width=4, residual_blocks=0, canvas=0.0)
    return save_network(tmp_path / "net.safetensors", network, styles=DESCRIBED["styles"])


def described(path: Path, metadata: object) -> Path:
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    save_file(load_file(path), path, {"impasto": text})
    return path


def with_arguments(**changes: object) -> dict[str, Any]:
    return {**DESCRIBED, "arguments": {**DESCRIBED["arguments"], **changes}}


SHAPES = [
    5, None, [], "text", [DESCRIBED], {}, {"format": []}, {**DESCRIBED, "format": None}, {**DESCRIBED, "format": {}},
    {**DESCRIBED, "arguments": 3}, {**DESCRIBED, "arguments": None}, {**DESCRIBED, "network": []},
    {**DESCRIBED, "network": {"a": 1}}, {**DESCRIBED, "styles": 4}, {**DESCRIBED, "styles": {}},
    {**DESCRIBED, "styles": ["wave"]}, {**DESCRIBED, "styles": [{}]}, {**DESCRIBED, "styles": [{"name": 3}]},
    {**DESCRIBED, "styles": [{"name": "a"}, {"name": "a"}]}, {**DESCRIBED, "styles": [{"name": "\x1b[31mred"}]},
    {**DESCRIBED, "styles": [{"name": "../esc"}]}, {**DESCRIBED, "styles": [{"name": ""}]}, {**DESCRIBED, "loss": 1},
    {**DESCRIBED, "training": []}, with_arguments(width="4"), with_arguments(width=True), with_arguments(width=None),
    with_arguments(width=[4]), with_arguments(width=4.0), with_arguments(width=10**400),
    with_arguments(canvas=float("nan")), with_arguments(canvas="3"), with_arguments(grain=float("inf")),
    with_arguments(upsampling=["nearest"]), with_arguments(upsampling="cubic"),
    with_arguments(patch=3), with_arguments(patch=True), with_arguments(patch=2.0), with_arguments(kernel=4),
    with_arguments(separable=1), with_arguments(separable="yes"), with_arguments(padding="same"),
    with_arguments(margin=4.0), with_arguments(margin="32"), "[" * 100_000, "{", "\x00",
]  # fmt: skip


# Refused beside the weights alone, which an exported graph has in itself; and before any memory is taken.
DISAGREEING = [
    with_arguments(width=10**6), with_arguments(width=-4), with_arguments(residual_blocks=500_000),
    with_arguments(num_styles=900_000), with_arguments(residual_blocks=1), with_arguments(margin=6),
    with_arguments(margin=-4), with_arguments(patch=2), with_arguments(kernel=3), with_arguments(separable=True),
]  # fmt: skip


def test_what_is_right_is_read(published: Path) -> None:
    assert load_network(described(published, DESCRIBED)).arguments.items() >= DESCRIBED["arguments"].items()
    assert OnnxPainter(exported(published.with_suffix(".onnx")), "cpu").styles == ["wave"]


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_metadata_of_another_shape_are_refused_in_a_line(number: int, published: Path, tmp_path: Path) -> None:
    metadata = SHAPES[number]
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    with pytest.raises(NetworkError, match=r"net\.safetensors") as refusal:
        load_network(described(published, metadata))
    assert "\n" not in str(refusal.value)
    with pytest.raises(NetworkError, match=r"a\.onnx") as refusal:
        OnnxPainter(exported(tmp_path / "a.onnx", properties(impasto=text)), "cpu")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("metadata", DISAGREEING, ids=lambda metadata: str(metadata["arguments"]))
def test_arguments_that_do_not_fit_the_weights_are_refused(metadata: dict, published: Path) -> None:
    with pytest.raises(NetworkError, match="weights and metadata disagree"):
        load_network(described(published, metadata))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(value: float, published: Path) -> None:
    state = load_file(published)
    state["to_rgb.bias"] = torch.full_like(state["to_rgb.bias"], value)
    save_file(state, published, {"impasto": json.dumps(DESCRIBED)})
    with pytest.raises(NetworkError, match="weights that are not finite numbers"):
        load_network(published)


def test_numbers_that_overflow_are_no_picture(published: Path, tmp_path: Path) -> None:
    """Of finite weights, and of an exported graph, which nobody looks into."""
    state = {name: torch.full_like(value, 3e38) for name, value in load_file(published).items()}
    save_file(state, published, {"impasto": json.dumps(DESCRIBED)})
    graph = exported(tmp_path / "log.onnx", properties("float32"), operator="Log")
    for network in (published, graph):
        with pytest.raises(ValueError, match="paints what is no number"):
            Stylizer(network)(torch.zeros(3, 8, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reach": "far"}, "reach 'far'"), ({"reach": "-1"}, "reach '-1'"), ({"reach": "9" * 400}, "reach '999"),
        ({"pixels": "int3"}, "pixels 'int3'"), ({"pixels": "\x1b[2J"}, "pixels '.x1b.2J'"),
        ({"part": "half"}, "part 'half'"), ({"precision": ""}, "precision ''"), ({"quantize": "no"}, "quantize 'no'"),
        ({"impasto": json.dumps({**DESCRIBED, "styles": []})}, "names no styles"),
    ],
)  # fmt: skip
def test_properties_of_an_export_are_known_or_refused(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=message):
        OnnxPainter(exported(tmp_path / "a.onnx", properties(**changes)), "cpu")
    for name in ("reach", "pixels", "part", "precision", "quantize"):
        without = {key: value for key, value in properties().items() if key != name}
        with pytest.raises(NetworkError, match=f"{name} ''"):
            OnnxPainter(exported(tmp_path / "a.onnx", without), "cpu")


def test_a_graph_of_another_kind_is_refused_in_a_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flat = exported(tmp_path / "shape.onnx", properties("float32"), operator="Flatten")
    with pytest.raises(NetworkError, match="paints pictures of another shape"):
        Stylizer(flat)(torch.rand(3, 8, 8))
    lies = exported(tmp_path / "lies.onnx", properties("float32"))
    about = properties("uint8")
    import onnx

    model = onnx.load(lies)
    onnx.helper.set_model_props(model, about)
    onnx.save(model, lies)
    with pytest.raises(NetworkError, match="cannot be run"):
        Stylizer(lies)(torch.rand(3, 8, 8))
    assert capfd.readouterr().err == "", "ONNX Runtime logs nothing of its own"


def test_a_damaged_export_beside_a_network_is_passed_over(published: Path) -> None:
    for suffix in (".onnx", ".parts.onnx"):
        published.with_suffix(suffix).write_bytes(b"damaged")
    assert Stylizer(published)(torch.rand(3, 8, 8)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    "changes", [{"ranks": 3}, {"ranks": ["a"] * 5}, {"teacher": "resnet18"}, {"teacher": []}, None]
)
def test_the_compact_network_is_refused_likewise(changes: dict | None, tmp_path: Path) -> None:
    about = {"format": 1, "loss_network": "compact", "teacher": "vgg16", "ranks": [1] * 5}
    save_file(
        {"x": torch.zeros(1)}, tmp_path / "c.safetensors", {"impasto": json.dumps(changes and {**about, **changes})}
    )
    with pytest.raises(ValueError, match="not the compact loss network") as refusal:
        load_compact(str(tmp_path / "c.safetensors"))
    assert "\n" not in str(refusal.value)


def test_only_printable_text_reaches_the_terminal(published: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    hostile = "\x1b]0;owned\x07\u202edrawkcab\x9b31m"
    described(
        published, {**DESCRIBED, "styles": [{"name": "wave", "title": hostile, "artist": hostile, "year": hostile}]}
    )
    assert cli.run("infer", "--network", str(published), "--list-styles") == 0
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path(f"in/{hostile}.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(Path(f"in/{hostile}2.png"))
    assert cli.run("infer", "in", "--network", str(published)) == 1
    assert cli.run("infer", f"{hostile}.jpg", "--network", str(published)) == 2
    assert cli.run("infer", "in", "--network", hostile) == 2
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert text.count("\\x1b]0;owned\\x07\\u202edrawkcab\\x9b31m") >= 5
    assert all(character.isprintable() for character in text.replace("\n", ""))


def test_printable_leaves_letters_of_all_languages() -> None:
    assert printable("Größe 北斎 é ×–’") == "Größe 北斎 é ×–’"
    assert printable(b"\xff.png".decode("utf-8", "surrogateescape")) == "\\udcff.png"
