"""The recorded numbers are met again: code may be rearranged, but pictures, losses and trainings stay the same.

Files that earlier versions wrote still load, paint, and train on as they did.
"""

import json
import os
from pathlib import Path

import golden
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

RECORDED = golden.recorded()
ANEW = "if that is meant, `python tests/golden.py` records anew"


def check(found: golden.Entries) -> None:
    """Fails in one line, on the first entry that differs: the sha256, if the file is another than was recorded."""
    if said := golden.differences({name: RECORDED[name] for name in found if name in RECORDED}, found):
        (name, how), more = next(iter(said.items())), f" ({len(said) - 1} more)" if len(said) > 1 else ""
        pytest.fail(f"{name}: {how}{more}; {ANEW}", pytrace=False)


@pytest.mark.parametrize("file", golden.networks(), ids=lambda file: file.name)
def test_a_network_paints_what_it_painted(file: Path) -> None:
    check(golden.pictures(file))


def test_no_recorded_file_is_gone() -> None:
    recorded = {name.split()[1] for name in RECORDED if name.startswith(("picture ", "onnx "))}
    if gone := sorted(recorded - {file.name for file in [*golden.networks(), *golden.kept("*.onnx")]}):
        pytest.fail(f"{', '.join(gone)}: recorded, but no longer there; {ANEW}", pytrace=False)


@pytest.mark.parametrize("network", ["compact", "vgg16"])
def test_the_loss_is_what_it_was(network: str) -> None:
    check(golden.losses(network))


def test_a_training_goes_as_it_went() -> None:
    check(golden.training())


@pytest.mark.parametrize("checkpoint", golden.kept("*.ckpt"), ids=lambda file: file.name)
def test_a_checkpoint_of_an_earlier_version_goes_on_as_it_did(checkpoint: Path) -> None:
    check(golden.resumed(checkpoint))


@pytest.mark.parametrize("graph", golden.kept("*.onnx"), ids=lambda file: file.name)
def test_an_exported_graph_paints_what_it_painted(graph: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    check(golden.onnx(graph))


def test_an_export_of_now_paints_the_same(tmp_path: Path) -> None:
    """`test_export.py` compares exports of now with PyTorch every time."""
    if not os.environ.get("IMPASTO_SLOW"):
        pytest.skip("takes a quarter of a minute; set IMPASTO_SLOW=1")
    network = golden.kept("*.safetensors")[-1]
    golden.run_script("export_onnx.py", network, "--output", tmp_path / f"{network.stem}.onnx")
    check(golden.onnx(tmp_path / f"{network.stem}.onnx"))


@pytest.mark.parametrize("change", [{"canvas": 3.3}, {"upsampling": "bilinear"}], ids=str)
def test_a_little_other_picture_is_seen(change: dict[str, object], tmp_path: Path) -> None:
    """A network whose file tells it to paint otherwise stands for code that does."""
    file = golden.KEPT / "format_2.safetensors"
    with safe_open(file, "pt") as stored:
        described = json.loads(stored.metadata()["impasto"])
    described["arguments"] |= change
    save_file(load_file(file), tmp_path / file.name, {"impasto": json.dumps(described)})
    said = golden.differences(RECORDED, {**RECORDED, **golden.pictures(tmp_path / file.name)})
    assert all(f"picture {file.name} {case}" in said for case in ("odd", "alpha", "small", "tiles"))
