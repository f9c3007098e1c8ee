"""VGG features against torchvision's own extractor and against recorded activations."""

import json
from pathlib import Path

import pytest
import torch
import torchvision
from torchvision.models.feature_extraction import create_feature_extractor

from impasto.images import read_image, resize
from impasto.perceptual.features import BAND, IMAGENET_MEAN, IMAGENET_STD, FeatureNetwork
from impasto.perceptual.vgg import (
    CHECKPOINTS,
    COMPACT_FILE,
    COMPACT_LAYERS,
    WEIGHT_FILES,
    FactoredConvolution,
    LossNetwork,
    factored,
    find_weights,
    layer_names,
    save_compact,
)

# Index of each ReLU in torchvision's `features`, from its documentation of the architectures.
TORCHVISION = {
    "vgg16": {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu3_3": 15, "relu4_1": 18, "relu4_2": 20, "relu5_3": 29},
    "vgg19": {"relu1_1": 1, "relu2_1": 6, "relu3_1": 11, "relu3_4": 17, "relu4_1": 20, "relu4_2": 22, "relu5_4": 35},
}


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_features_equal_torchvisions_extractor(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vgg = getattr(torchvision.models, name)(weights=None).eval()
    features = {key: value for key, value in vgg.state_dict().items() if key.startswith("features")}
    torch.save(features, tmp_path / WEIGHT_FILES[name][1])
    nodes = {f"features.{index}": layer for layer, index in TORCHVISION[name].items()}
    image = torch.rand(2, 3, 64, 48)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = create_feature_extractor(vgg, nodes)((image - mean) / std)
    found = FeatureNetwork(name, list(TORCHVISION[name]), str(tmp_path))(image)
    assert list(found) == list(TORCHVISION[name])
    for layer, value in expected.items():
        scale = value.abs().max().item()
        torch.testing.assert_close(found[layer], value, rtol=1e-4, atol=1e-5 * scale)


def test_vgg16_reproduces_recorded_activations(shared: Path) -> None:
    """Minimum, maximum and 2-norm, recorded from torchvision's network on an input that was not normalized."""
    recorded = json.loads((shared / "weights" / "vgg16-activations.json").read_text())
    layers = [layer for layer in recorded if layer.startswith("relu")]
    network = FeatureNetwork("vgg16", layers, str(shared / "weights"))
    torch.manual_seed(0)
    image = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        found = network(image * network.std + network.mean)  # so that the normalization inside gives `image`
    assert len(layers) >= 9
    for layer in layers:
        smallest, largest, norm = (float(number) for number in recorded[layer])
        assert found[layer].min().item() == pytest.approx(smallest, rel=6e-3, abs=1e-9)
        assert found[layer].max().item() == pytest.approx(largest, rel=6e-3)
        assert found[layer].norm().item() == pytest.approx(norm, rel=6e-3)


def test_nothing_is_built_past_the_deepest_layer() -> None:
    network = FeatureNetwork("vgg19", ["relu1_1", "relu2_1"], "random")
    assert network.names[-1] == "relu2_1"
    assert sum(isinstance(module, torch.nn.Conv2d) for module in network.modules()) == 3
    ran: list[int] = []
    for index, module in enumerate(network.network):
        module.register_forward_hook(lambda *_, index=index: ran.append(index))
    assert set(network(torch.rand(1, 3, 8, 8))) == {"relu1_1", "relu2_1"}
    assert len(ran) == len(network.names)
    ran.clear()
    assert set(network(torch.rand(1, 3, 8, 8), ["relu1_1"])) == {"relu1_1"}
    assert ran == [0, 1]


def test_frozen_whatever_the_owner_does() -> None:
    network = FeatureNetwork("vgg16", ["relu1_1"], "random")
    torch.nn.ModuleList([network]).train()
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    image = torch.rand(1, 3, 8, 8, requires_grad=True)
    network(image)["relu1_1"].sum().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0


def test_pooling_before_the_relu_changes_nothing() -> None:
    image = torch.rand(1, 3, 32, 48)
    found = []
    for layers in (["relu2_1"], ["relu1_2", "relu2_1"]):
        network = FeatureNetwork("vgg16", layers, "random")
        x = image.clone().requires_grad_()
        features = network(x)["relu2_1"]
        features.square().mean().backward()
        found.append((network.names.index("pool1") < network.names.index("relu1_2"), features, x.grad))
    (first, features, gradient), (second, expected, wanted) = found
    assert first and not second
    assert torch.equal(features, expected) and torch.equal(gradient, wanted)


@pytest.mark.parametrize("layers", [["relu1_1", "relu2_1", "relu3_2"], ["relu1_2", "relu2_2"], ["relu2_1"]])
@pytest.mark.parametrize("name", ["vgg16", "compact"])
def test_checkpointing_changes_no_gradient(layers: list[str], name: LossNetwork) -> None:
    """In several bands, in the second block too; of an odd number of rows in all."""
    if name == "compact":
        layers = ["relu1_1", "relu2_1"]
    network = FeatureNetwork(name, layers, "random")
    image = torch.rand(2, 3, 4 * BAND + 17, 32)
    found = []
    for network.checkpointing in (False, True):
        x = image.clone().requires_grad_()
        features = network(x)
        sum(value.square().mean() for value in features.values()).backward()
        found.append((features, x.grad))
    (plain, expected), (checkpointed, gradient) = found
    for name in plain:
        torch.testing.assert_close(checkpointed[name], plain[name])
    torch.testing.assert_close(gradient, expected)


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="vgg16 has no layer relu9_9: choose from relu1_1, relu1_2"):
        FeatureNetwork("vgg16", ["relu9_9"], "random")
    with pytest.raises(ValueError, match=r"image of 4×9 pixels.*at least 16×16 for relu5_1"):
        FeatureNetwork("vgg16", ["relu5_1"], "random")(torch.rand(1, 3, 9, 4))
    with pytest.raises(ValueError, match="holds no vgg19-dcbb9e9d"):
        find_weights("vgg19", str(tmp_path))
    monkeypatch.setenv("IMPASTO_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="holds no such file or folder"):
        find_weights("vgg16")


def test_offline_names_all_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMPASTO_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("impasto.perceptual.vgg.DOWNLOAD", "http://127.0.0.1:9/")  # nothing listens there
    with pytest.raises(ValueError) as refusal:
        find_weights("vgg19")
    message = str(refusal.value)
    assert "IMPASTO_WEIGHTS" in message and str(tmp_path) in message and "download" in message
    assert message.endswith("--[model.]loss.network compact needs none")
    assert "\n" not in message


def test_hub_cache_is_found_also_past_a_folder_with_the_other_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("IMPASTO_WEIGHTS", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / WEIGHT_FILES["vgg16"][0]
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert find_weights("vgg16") == cached
    (tmp_path / "vgg19-features.pth").touch()
    monkeypatch.setenv("IMPASTO_WEIGHTS", str(tmp_path))
    assert find_weights("vgg19") == tmp_path / "vgg19-features.pth"
    assert find_weights("vgg16") == cached


def test_a_folder_that_holds_another_network_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("IMPASTO_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("impasto.perceptual.vgg.DOWNLOAD", "http://127.0.0.1:9/")  # nothing listens there
    for held in ("none", "those of vgg16 only (--[model.]loss.network)"):
        with pytest.raises(ValueError) as refusal:
            find_weights("vgg19")
        files = "vgg19-dcbb9e9d.pth or vgg19-features.pth"
        said = f"no weights for vgg19: IMPASTO_WEIGHTS={tmp_path} holds {held}, not {files}, none in torch's cache"
        assert str(refusal.value).startswith(said)
        (tmp_path / "vgg16-features.pth").touch()


@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_damaged_weights_are_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "vgg16-features.pth"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="not the weights of this network") as refusal:
        FeatureNetwork("vgg16", ["relu1_1"], str(file))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("teacher", ["vgg16", "vgg19"])
def test_compact_has_the_layers_of_its_teacher(teacher: str) -> None:
    """The same names, and the same shapes where it predicts; elsewhere half the channels."""
    vgg = FeatureNetwork(teacher, COMPACT_LAYERS, "random")
    network = factored(teacher, (3, 4, 5, 6, 7))
    compact = FeatureNetwork("compact", COMPACT_LAYERS, network=network)
    assert sorted(layer_names(network)) == sorted(vgg.names) and vgg.names == compact.names
    image = torch.rand(1, 3, 32, 48)
    expected = {layer: value.shape for layer, value in vgg(image).items()}
    assert {layer: value.shape for layer, value in compact(image).items()} == expected
    ranks = [module.narrow.out_channels for module in network if isinstance(module, FactoredConvolution)]
    assert sorted(set(ranks)) == [3, 4, 5, 6, 7]
    assert network[2].wide.out_channels == 32


def test_a_factored_convolution_is_the_product_of_its_factors() -> None:
    layer = FactoredConvolution(4, 6, 2)
    product = torch.einsum("or,rikl->oikl", layer.wide.weight[..., 0, 0], layer.narrow.weight)
    image = torch.rand(1, 4, 9, 7)
    expected = torch.nn.functional.conv2d(image, product, layer.wide.bias, padding=1)
    torch.testing.assert_close(layer(image), expected)


def test_a_compact_network_is_stored_in_half_precision(tmp_path: Path) -> None:
    network = factored("vgg16", (2, 2, 2, 2, 2))
    save_compact(tmp_path / "mine.safetensors", network, "vgg16", (2, 2, 2, 2, 2), note="a test")
    loaded = FeatureNetwork("compact", COMPACT_LAYERS, str(tmp_path / "mine.safetensors"))
    image = torch.rand(1, 3, 32, 32)
    for layer, value in FeatureNetwork("compact", COMPACT_LAYERS, network=network.half().float())(image).items():
        torch.testing.assert_close(loaded(image)[layer], value)


@pytest.mark.parametrize("content", [b"", b"not weights"])
def test_a_damaged_compact_network_is_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / COMPACT_FILE
    file.write_bytes(content)
    with pytest.raises(ValueError, match="not the compact loss network") as refusal:
        FeatureNetwork("compact", ["relu1_1"], str(tmp_path))
    assert "\n" not in str(refusal.value)


def test_compact_gives_only_what_it_predicts() -> None:
    with pytest.raises(ValueError, match="compact has no layer relu3_3: choose from relu1_1, relu2_1, relu3_1"):
        FeatureNetwork("compact", ["relu3_3"])


def test_the_shipped_compact_network_predicts_vgg16(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On photos it was not trained on; a little above the errors that checkpoints/README.md gives."""
    monkeypatch.setenv("IMPASTO_WEIGHTS", str(shared / "weights"))
    assert (CHECKPOINTS[0] / COMPACT_FILE).stat().st_size <= 8_000_000
    vgg, compact = FeatureNetwork("vgg16", COMPACT_LAYERS), FeatureNetwork("compact", COMPACT_LAYERS)
    bounds = {"relu1_1": 0.001, "relu2_1": 0.16, "relu3_1": 0.2, "relu4_1": 0.3, "relu4_2": 0.35, "relu5_1": 0.4}
    for name in ("chicago", "stata", "amber", "tubingen"):
        photo = resize(read_image(shared / "data" / "eval" / f"{name}.jpg").pixels, 256)
        found, wanted = compact(photo), vgg(photo)
        for layer, bound in bounds.items():
            error = (found[layer] - wanted[layer]).square().sum() / wanted[layer].square().sum()
            assert error < bound, f"{name} {layer}: {error:.3f}"
