"""Exported networks against PyTorch in a real ONNX Runtime, at sizes of every kind; what the file says of itself."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from heeding import HEEDING
from pictures import OLD_NETWORK
from PIL import Image

from impasto.commands import run
from impasto.export import ExportOptions, export_network
from impasto.images import Picture, to_pil
from impasto.inference import Stylizer
from impasto.inference.backends import OnnxPainter, TorchPainter, open_painter
from impasto.networks import FORMAT, TransformNet, load_network, published_networks, save_network

onnx = pytest.importorskip("onnx", reason="the export extra is not installed")
ort = pytest.importorskip("onnxruntime", reason="the export extra is not installed")
pytest.importorskip("onnxscript", reason="the export extra is not installed")
ROOT = Path(__file__).parents[1]
STYLES = [{"name": "wave", "artist": "Hokusai", "licence": "public domain"}, {"name": "scream"}, {"name": "lilies"}]


def small(num_styles: int) -> TransformNet:
    torch.manual_seed(0)
    network = TransformNet(num_styles, width=4, residual_blocks=1).eval().requires_grad_(False)
    for name, parameter in network.named_parameters():
        if "gamma" in name or "beta" in name:  # the styles differ
            torch.nn.init.normal_(parameter, 0.5, std=0.3)
    network.metadata = {"styles": STYLES[:num_styles]}
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Exports of a small network: three.onnx with parts, half.onnx, and by the command bytes.onnx, beside what it said.

    And one.onnx of an old published network.
    """
    place = tmp_path_factory.mktemp("exported")
    save_network(place / "three.safetensors", small(3))
    for name, network, options in (
        ("three", small(3), ExportOptions(parts=True)), ("one", load_network(OLD_NETWORK), ExportOptions()),
        ("half", small(3), ExportOptions(precision="fp16")),
    ):  # fmt: skip
        export_network(network, place / f"{name}.onnx", options)
    with chdir(place), redirect_stdout(StringIO()) as said:
        assert run("export", "three.safetensors", "--pixels", "uint8", "--output", "by_command/bytes.onnx") == 0
    (place / "by_command" / "bytes.onnx").rename(place / "bytes.onnx")
    (place / "bytes.txt").write_text(said.getvalue())
    return place


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, max(2, height // 9), max(2, width // 9), generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth * 255).round() / 255


WEIGHTS = torch.tensor([[0.2, 0.5, 0.3]])


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 5), (64, 64), (131, 98)])
@pytest.mark.parametrize(("name", "allowed"), [("three", 1e-3), ("bytes", 1 / 255), ("half", 4 / 255)])
def test_the_same_picture_as_torch(folder, size, name, allowed) -> None:
    content = picture(*size)
    painted = OnnxPainter(folder / f"{name}.onnx").paint(content, WEIGHTS)
    assert painted.shape == content.shape
    wanted = TorchPainter(small(3), "cpu").paint(content, WEIGHTS)
    torch.testing.assert_close(painted, wanted, rtol=0, atol=allowed + 1e-6)


def test_a_batch_has_a_style_for_each(folder) -> None:
    content = torch.cat([picture(30, 20), picture(30, 20, seed=1)])
    session = ort.InferenceSession(folder / "three.onnx")
    together = session.run(None, {"photo": content.numpy(), "style": torch.eye(3)[:2].numpy()})[0]
    for i in range(2):
        alone = TorchPainter(small(3), "cpu").paint(content[i : i + 1], torch.eye(3)[i : i + 1])
        np.testing.assert_allclose(together[i : i + 1], alone.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["three", "three.parts", "bytes"])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_one_style_serves_a_batch(folder, name, batch) -> None:
    content = torch.cat([picture(30, 20, seed=seed) for seed in range(batch)])
    given = {"photo": content.numpy()}
    if name == "bytes":
        given = {"photo": (content * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()}
    if name == "three.parts":
        whole = ort.InferenceSession(folder / "three.onnx")
        _, statistics = whole.run(None, {"photo": content[:1].numpy(), "style": WEIGHTS.numpy()})
        given |= {"statistics": statistics, "origin": np.array([4, 8])}
    session = ort.InferenceSession(folder / f"{name}.onnx")
    one, each = (
        session.run(None, {**given, "style": style.numpy()})[0] for style in (WEIGHTS, WEIGHTS.expand(batch, 3))
    )
    assert len(one) == batch
    np.testing.assert_array_equal(one, each)


def test_parts_with_the_statistics_of_the_whole_equal_the_whole(folder) -> None:
    painter, content = OnnxPainter(folder / "three.onnx"), picture(160, 60)
    whole, statistics = painter.paint(content, WEIGHTS), painter.statistics(content, WEIGHTS)
    part = painter.paint(content[..., 32:, :], WEIGHTS, statistics, (32, 0))
    edge = painter.reach
    torch.testing.assert_close(part[..., edge:, :], whole[..., 32 + edge :, :], rtol=0, atol=1e-4)


def test_tiles_are_the_same_as_with_torch(folder) -> None:
    content = picture(190, 160)
    bound = {"style": "wave=0.5,lilies=0.5", "tile": 144, "device": "cpu"}
    network = small(3)
    wanted, whole = (Stylizer(network, **{**bound, "tile": tile})(content) for tile in (144, "never"))
    torch.testing.assert_close(Stylizer(folder / "three.onnx", **bound)(content), wanted, rtol=0, atol=1e-3)
    torch.testing.assert_close(wanted, whole, rtol=0, atol=1e-3)  # its statistics were not scaled down


def test_one_style_needs_no_weights(folder) -> None:
    session = ort.InferenceSession(folder / "one.onnx")
    assert [value.name for value in session.get_inputs()] == ["photo"]
    content = picture(30, 20)
    wanted = Stylizer(OLD_NETWORK, device="cpu")(content)
    torch.testing.assert_close(Stylizer(folder / "one.onnx")(content), wanted, rtol=0, atol=1e-4)


def test_the_file_describes_itself(folder) -> None:
    """With onnx alone; nothing of the machine it was made on, one file, the lowest opset."""
    model = onnx.load(folder / "bytes.onnx", load_external_data=False)
    properties = {item.key: item.value for item in model.metadata_props}
    assert [style["name"] for style in json.loads(properties["styles"])] == ["wave", "scream", "lilies"]
    assert json.loads(properties["styles"])[0] == STYLES[0]
    assert json.loads(properties["impasto"])["network"] == "TransformNet"
    assert (properties["pixels"], properties["part"], properties["format"]) == ("uint8", "whole", str(FORMAT))
    assert "0 to 255" in properties["value_range"]
    assert properties["licence"].endswith("wave: public domain, scream: not stated, lilies: not stated")
    assert [item.version for item in model.opset_import] == [18]
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert str(Path(__file__).parents[1]).encode() not in (folder / "bytes.onnx").read_bytes()
    assert not {"Dropout", "BatchNormalization"} & {node.op_type for node in model.graph.node}
    # One operator for each norm, and no second output, where no other file needs the statistics.
    assert [node.op_type for node in model.graph.node].count("InstanceNormalization") == 7
    assert [output.name for output in model.graph.output] == ["stylized"]


def test_stylizer_takes_what_it_takes_with_torch(folder) -> None:
    """Files by name, mixtures by name, strength; PIL pictures in and out."""
    image = Image.fromarray((picture(50, 70)[0].permute(1, 2, 0) * 255).byte().numpy())
    bound = {"style": "wave=0.5,lilies=0.5", "strength": 0.7, "device": "cpu"}
    wanted = Stylizer(small(3), **bound)(image)
    for name in ("three", "bytes"):
        stylized = Stylizer(folder / f"{name}.onnx", **bound)(image)
        difference = np.abs(np.asarray(stylized, int) - np.asarray(wanted, int))
        assert difference.max() <= 1, name


def test_auto_takes_the_export_beside_a_network_if_it_is_of_that_network(folder, tmp_path) -> None:
    for name in ("three.safetensors", "three.onnx", "three.parts.onnx"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    network = tmp_path / "three.safetensors"
    assert isinstance(open_painter(network, device="cpu"), OnnxPainter)
    assert isinstance(open_painter(network, "torch"), TorchPainter)
    (tmp_path / "three.parts.onnx").unlink()  # it could not paint large pictures
    assert isinstance(open_painter(network, device="cpu"), TorchPainter)
    (tmp_path / "three.parts.onnx").touch()
    save_network(network, small(3), overwrite=True, commit="trained further")
    assert isinstance(open_painter(network, device="cpu"), TorchPainter)


def test_the_command(folder, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), "teal").save("photo.png")
    printed, network = (folder / "bytes.txt").read_text(), str(folder / "bytes.onnx")
    assert "difference to PyTorch at most" in printed and "255×256" in printed and "by_command/bytes.onnx" in printed
    assert run("infer", "photo.png", "--network", network, "--style", "scream", "--output", "a.png") == 0
    assert Image.open("a.png").size == (40, 30)
    capsys.readouterr()
    assert run("infer", "--network", network, "--list-styles") == 0
    assert "Hokusai" in capsys.readouterr().out


def test_eight_bits_calibrated_on_photos(tmp_path) -> None:
    """Smaller, and within two grey levels in the mean of photos that did not calibrate (checked by the export)."""
    photos = [tmp_path / f"{seed}.png" for seed in range(16)]
    for seed, path in enumerate(photos):
        to_pil(Picture(picture(60, 80, seed))).save(path)
    network = TransformNet(1, width=16, residual_blocks=1).eval().requires_grad_(False)
    found = export_network(network, tmp_path / "small.onnx", ExportOptions(quantize="int8"), photos=photos)
    assert len(found) == 8 and 0 < max(difference.mean for difference in found) <= 2 / 255
    assert (tmp_path / "small.onnx").stat().st_size < 0.7 * 4 * sum(each.numel() for each in network.parameters())
    assert onnx.load(tmp_path / "small.onnx").metadata_props[0].key == "impasto"


def test_a_file_that_differs_is_not_left_behind(folder, tmp_path, monkeypatch) -> None:
    """The exporter is made to write the graph of another network of the same shape."""
    monkeypatch.setattr("impasto.export.exported", lambda *arguments: (folder / "three.onnx").read_bytes())
    with pytest.raises(ValueError, match=r"differs from PyTorch by .* nothing was written"):
        export_network(TransformNet(3, width=4, residual_blocks=1).eval(), tmp_path / "other.onnx")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing(tmp_path) -> None:
    command = [sys.executable, ROOT / "scripts" / "export_onnx.py", "starry_night", "--output", tmp_path / "s.onnx"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **HEEDING) as process:
        assert process.stdout and "exporting" in process.stdout.readline()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr and process.stderr.read() == "impasto export: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("three.safetensors --opset 17", "opset 17: must be from 18 to 23"),
        ("three.safetensors --opset many", "--opset many: must be a whole number from 18 to 23"),
        ("three.safetensors --pixels rgb", "--pixels rgb: must be float32 or uint8"),
        ("three.safetensors --output three.txt", "three.txt: an exported network ends in .onnx"),
        ("three.safetensors --output there.onnx", "there.onnx: exists already"),
        ("three.safetensors --output there.onnx/x.onnx", "cannot be written"),
        ("other.ckpt", "other.ckpt: a checkpoint, but not one of impasto's training"),
        ("compact", "a loss network"),
        ("missing.safetensors", "neither a file nor a published name"),
        ("there.onnx", "there.onnx: exported already"),
        ("three.safetensors --quantize int8", "needs at least 16 photos (--photos FOLDER), there are 0"),
        ("three.safetensors --quantize int8 --precision fp16", "eight bits are made from fp32 only"),
        ("three.safetensors --quantize int8 --photos nowhere", "nowhere: no such folder"),
    ],
)
def test_mistakes_are_one_line(folder, tmp_path, capsys, monkeypatch, arguments, message) -> None:
    monkeypatch.chdir(tmp_path)
    save_network("three.safetensors", small(3))
    torch.save({"state_dict": {}}, "other.ckpt")
    Path("there.onnx").write_bytes((folder / "one.onnx").read_bytes())
    before = sorted(tmp_path.rglob("*"))
    assert run("export", *arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("network", "backend", "message"),
    [
        ("three.onnx", "torch", "for --backend onnx"),
        ("three.safetensors", "onnx", "scripts/export_onnx.py"),
        ("three.parts.onnx", "auto", "paints parts of pictures"),
        ("foreign.onnx", "auto", "not one of impasto's"),
        ("broken.onnx", "auto", "damaged, or not an ONNX file"),
    ],
)
def test_files_of_another_kind_are_refused(folder, network, backend, message) -> None:
    foreign = onnx.load(folder / "one.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, folder / "foreign.onnx")
    (folder / "broken.onnx").write_bytes(b"no")
    with pytest.raises(ValueError, match=message):
        Stylizer(folder / network, "wave", backend=backend)


def test_without_parts_a_large_picture_says_what_to_do(folder) -> None:
    painter, content = OnnxPainter(folder / "bytes.onnx"), picture(20, 20)
    with pytest.raises(ValueError, match="export again with --parts"):
        painter.statistics(content, WEIGHTS)
    with pytest.raises(ValueError, match="export again with --parts"):
        painter.paint(content, WEIGHTS, torch.ones(1, 4), (0, 0))


def test_without_the_extra_it_is_named(folder, tmp_path, capsys, monkeypatch) -> None:
    """With None for it in sys.modules, Python finds no such module."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    Image.new("RGB", (9, 9)).save("photo.png")
    for command in (
        ["export", str(folder / "three.safetensors")],
        ["infer", "photo.png", "--network", str(folder / "one.onnx")],
    ):
        assert run(*command) == 2
        assert "pip install 'impasto[export]'" in capsys.readouterr().err


@pytest.mark.parametrize("pixels", ["float32", "uint8"])
def test_an_old_published_network_at_random_sizes(folder, pixels, tmp_path) -> None:
    network, path = load_network(OLD_NETWORK), folder / "one.onnx"
    if pixels == "uint8":
        export_network(network, path := tmp_path / "bytes.onnx", ExportOptions(pixels))
    assert_same_at_random_sizes(network, path, pixels)


@pytest.mark.parametrize("pixels", ["float32", "uint8"])
@pytest.mark.parametrize("name", published_networks())
def test_published_networks_at_random_sizes(name, pixels, tmp_path) -> None:
    if not os.environ.get("IMPASTO_SLOW"):
        pytest.skip("takes minutes; set IMPASTO_SLOW=1")
    network = load_network(name)
    export_network(network, tmp_path / "network.onnx", ExportOptions(pixels))
    assert_same_at_random_sizes(network, tmp_path / "network.onnx", pixels)


def assert_same_at_random_sizes(network: TransformNet, path: Path, pixels: str) -> None:
    """20 sizes from 1×1 to 700×500, most of them small, in mixtures: 0.001 in floats, one grey level in bytes."""
    random = np.random.default_rng(0)
    exported, plain = OnnxPainter(path), TorchPainter(network, "cpu")
    sizes = [(1, 1), (500, 700), *zip(random.integers(1, 201, 18), random.integers(1, 281, 18), strict=True)]
    for number, (height, width) in enumerate(sizes):
        content = picture(int(height), int(width), seed=number)
        weights = torch.from_numpy(random.dirichlet([1.0] * network.num_styles)[None]).float()
        with torch.inference_mode():
            difference = (exported.paint(content, weights) - _as_bytes(plain.paint(content, weights), pixels)).abs()
        assert float(difference.max()) <= (1e-3 if pixels == "float32" else 1 / 255 + 1e-6), (height, width)


def _as_bytes(picture: torch.Tensor, pixels: str) -> torch.Tensor:
    return (picture * 255).round() / 255 if pixels == "uint8" else picture
