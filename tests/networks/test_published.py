"""The published file: what is saved comes back, and what is not ours is refused in one line."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from pictures import OLD_NETWORK
from safetensors.torch import load_file, save_file

from impasto.networks import (
    NetworkError,
    TransformNet,
    find_network,
    load_network,
    published_networks,
    published_styles,
    save_network,
)


@pytest.fixture
def network() -> TransformNet:
    torch.manual_seed(0)
    return TransformNet(2, width=4, residual_blocks=1).eval()


def test_round_trip(network: TransformNet, tmp_path: Path) -> None:
    styles = [{"name": "a", "artist": "Vincent"}, {"name": "b"}]
    path = save_network(tmp_path / "new" / "net.safetensors", network, styles=styles, commit="abc")
    again = load_network(path)
    assert again.arguments == network.arguments and again.metadata == {"styles": styles, "commit": "abc"}
    content, style = torch.rand(1, 3, 16, 20), torch.tensor([[0.3, 0.7]])
    assert torch.equal(again(content, style), network(content, style))
    assert not again.training and not any(parameter.requires_grad for parameter in again.parameters())
    assert [file.name for file in path.parent.iterdir()] == ["net.safetensors"], "no partial file is left"
    (ordinary := tmp_path / "ordinary").touch()
    assert path.stat().st_mode == ordinary.stat().st_mode, "others may read it as any file"
    copied = load_network(save_network(tmp_path / "copy.safetensors", again))
    assert copied.metadata == again.metadata


def test_existing_file_is_not_overwritten_unasked(network: TransformNet, tmp_path: Path) -> None:
    path = save_network(tmp_path / "net.safetensors", network)
    before = path.read_bytes()
    with pytest.raises(NetworkError, match="exists"):
        save_network(path, network)
    assert path.read_bytes() == before
    save_network(path, network, overwrite=True, commit="new")
    assert load_network(path).metadata == {"commit": "new"}


def test_half_precision_on_disk_loads_as_float32(network: TransformNet, tmp_path: Path) -> None:
    path = save_network(tmp_path / "half.safetensors", network, half=True)
    whole = save_network(tmp_path / "whole.safetensors", network)
    assert path.stat().st_size < 0.7 * whole.stat().st_size
    for name, value in load_network(path).state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, network.state_dict()[name].half().float())


def rewrite(path: Path, **changes: object) -> None:
    """The file with other metadata."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = json.loads(file.metadata()["impasto"])
    save_file(load_file(path), path, {"impasto": json.dumps({**metadata, **changes})})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99}, "format 99, this version reads 1"),
        ({"network": "Transformer"}, "'Transformer' is not one of TransformNet"),
        ({"arguments": {"num_styles": 2, "width": 8, "residual_blocks": 1}}, "weights and metadata disagree"),
        ({"arguments": {"colour": 3}}, "weights and metadata disagree"),
    ],
)
def test_unknown_files_are_refused(changes: dict, message: str, network: TransformNet, tmp_path: Path) -> None:
    path = save_network(tmp_path / "net.safetensors", network)
    rewrite(path, **changes)
    with pytest.raises(NetworkError, match=message) as refusal:
        load_network(path)
    assert "\n" not in str(refusal.value)


def test_damaged_and_foreign_files_are_refused(network: TransformNet, tmp_path: Path) -> None:
    path = save_network(tmp_path / "net.safetensors", network)
    for name, content in {"cut": path.read_bytes()[:-100], "empty": b"", "text": b"hello" * 100}.items():
        (damaged := tmp_path / f"{name}.safetensors").write_bytes(content)
        with pytest.raises(NetworkError, match="damaged, or not a network"):
            load_network(damaged)
    save_file({"x": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(NetworkError, match="not one of our networks"):
        load_network(tmp_path / "foreign.safetensors")
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(NetworkError, match="not one of impasto's"):
        load_network(tmp_path / "foreign.ckpt")


class Touch:
    """Leaves a file behind when it is unpickled: what a hostile checkpoint would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"impasto": Touch(tmp_path / "owned")}, tmp_path / "bad.ckpt")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps(Touch(tmp_path / "owned")))
    for name in ("bad.ckpt", "pickle.ckpt"):
        with pytest.raises(NetworkError) as refusal:
            load_network(tmp_path / name)
        assert "\n" not in str(refusal.value)
    assert not (tmp_path / "owned").exists()


def test_unknown_names_tell_what_there_is() -> None:
    with pytest.raises(NetworkError, match="neither a file nor a published name; published: ") as refusal:
        find_network("mona_lisa_2")
    assert all(name in str(refusal.value) for name in published_networks())


def test_names_of_retired_networks_go_on_working() -> None:
    assert find_network("multistyle") == find_network("gallery")


def test_a_network_of_format_1_says_what_it_runs_with() -> None:
    assert load_network(OLD_NETWORK).arguments == {
        "num_styles": 1, "width": 16, "residual_blocks": 5,
        "canvas": 6.0, "grain": 2.0, "upsampling": "bilinear_smoothed",
        "patch": 1, "kernel": 9, "separable": False, "padding": "reflect", "margin": 32,
    }  # fmt: skip


@pytest.mark.parametrize("name", [name for name, styles in published_styles().items() if styles])
def test_published_networks_load_and_paint(name: str) -> None:
    network = load_network(name)
    assert len(network.metadata["styles"]) == network.num_styles
    assert network.metadata["loss"]["gaps"]["style"] and network.metadata["commit"]
    content = torch.rand(1, 3, 40, 52)
    stylized = [network(content, style[None]) for style in torch.eye(network.num_styles)]
    assert all(torch.isfinite(picture).all() and picture.std() > 0.02 for picture in stylized)
