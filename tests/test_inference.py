"""Stylizer: sizes, kinds in and out, strength, colours, mixtures, devices, refusals."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from impasto.images import Picture
from impasto.inference import Stylizer
from impasto.inference.devices import find_device
from impasto.networks import TransformNet, save_network
from impasto.networks.styles import style_weights

NAMES = ["starry_night", "wave", "scream"]


def random_network(*names: str) -> TransformNet:
    """A small network whose styles differ."""
    torch.manual_seed(0)
    network = TransformNet(len(names), width=4, residual_blocks=1)
    for name, parameter in network.named_parameters():
        if name.endswith(("gamma", "beta")):
            torch.nn.init.normal_(parameter)
    network.metadata = {"styles": [{"name": name} for name in names]}
    return network.eval()


def noise(height: int, width: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height + width))


@pytest.fixture(scope="module")
def one() -> TransformNet:
    return random_network("wave")


@pytest.fixture(scope="module")
def three() -> TransformNet:
    return random_network(*NAMES)


SIZES = [(side, side) for side in (1, 2, 3, 5, 31, 97)] + [(98, 131), (513, 257), (3, 1000)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_comes_back_finite_and_in_range(one, size):
    content = noise(*size)
    alpha = content[:, :1]
    stylized = Stylizer(one, device="cpu").stylize(Picture(content, alpha, b"profile", "note"))
    assert stylized.pixels.shape == content.shape and stylized.pixels.isfinite().all()
    assert stylized.pixels.min() >= 0 and stylized.pixels.max() <= 1
    assert not torch.equal(stylized.pixels, content)
    assert stylized.alpha is alpha and (stylized.icc_profile, stylized.note) == (b"profile", "note")


def test_it_paints_what_the_network_paints(three):
    content = noise(20, 24, batch=2)
    expected = three(content, torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(Stylizer(three, "wave", device="cpu")(content), expected)


def test_tensors_keep_rank_dtype_and_layout_and_can_be_trained_on(one):
    stylizer = Stylizer(one, device="cpu")
    batch = noise(12, 17, batch=2)
    whole = stylizer(batch)
    torch.testing.assert_close(stylizer(batch[1]), whole[1])
    assert stylizer(batch.half()).dtype == torch.float16
    assert whole.is_contiguous()
    weight = torch.ones(1, requires_grad=True)
    (whole * weight).sum().backward()  # refused for a tensor of inference mode
    torch.testing.assert_close(weight.grad, whole.sum()[None])


def test_arrays_agree_with_tensors(one):
    stylizer = Stylizer(one, device="cpu")
    levels = (noise(12, 17)[0] * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    expected = stylizer(torch.from_numpy(levels / 255.0).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    floats, bytes_ = stylizer(levels / np.float32(255)), stylizer(levels)
    assert floats.dtype == np.float32 and bytes_.dtype == np.uint8
    np.testing.assert_allclose(floats, expected, atol=1e-5)
    np.testing.assert_array_equal(bytes_, (expected * 255).round())


def test_pil_images_keep_alpha_and_profile(one):
    image = Image.fromarray((noise(9, 14)[0] * 255).permute(1, 2, 0).numpy().astype(np.uint8)).convert("RGBA")
    alpha = Image.linear_gradient("L").resize((14, 9))
    image.putalpha(alpha)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info["icc_profile"] = profile
    stylized = Stylizer(one, device="cpu")(image)
    assert (stylized.mode, stylized.size, stylized.info["icc_profile"]) == ("RGBA", (14, 9), profile)
    assert stylized.getchannel("A").tobytes() == alpha.tobytes()
    assert stylized.convert("RGB").tobytes() != image.convert("RGB").tobytes()
    assert Stylizer(one, device="cpu")(image.convert("L")).mode == "RGB"


def test_paths_and_lists(one, tmp_path):
    stylizer = Stylizer(one, device="cpu")
    content = (noise(9, 14)[0] * 255).permute(1, 2, 0).numpy().astype(np.uint8)
    Image.fromarray(content).save(tmp_path / "a.png")
    expected = stylizer(Image.fromarray(content)).tobytes()
    by_path, by_text, array = stylizer([tmp_path / "a.png", str(tmp_path / "a.png"), content])
    assert by_path.tobytes() == by_text.tobytes() == array.tobytes() == expected
    in_tiles = Stylizer(one, device="cpu", tile=112)
    Image.fromarray((noise(130, 140)[0] * 255).permute(1, 2, 0).numpy().astype(np.uint8)).save(tmp_path / "large.png")
    large = in_tiles(tmp_path / "large.png")
    assert large.tobytes() == in_tiles(Image.open(tmp_path / "large.png")).tobytes()


def test_another_style_for_a_call_does_not_load_again(three, monkeypatch):
    stylizer = Stylizer(three, "wave", device="cpu", strength=0.5)
    assert stylizer.styles == NAMES
    content, scream = noise(16, 16), Stylizer(three, "scream", device="cpu", strength=0.5)
    wave = stylizer(content)
    monkeypatch.setattr("impasto.inference.open_painter", lambda *_: pytest.fail("loaded again"))
    assert torch.equal(stylizer(content, style="scream"), scream(content))
    assert torch.equal(stylizer([content], style={"scream": 1})[0], scream(content))
    assert torch.equal(stylizer(content), wave) and stylizer.mixture == {"wave": 1}
    with pytest.raises(ValueError, match="style 'wav' is unknown: did you mean wave"):
        stylizer(content, style="wav")


def test_strength_blends_from_exactly_the_photo(one):
    content = noise(16, 21)
    full = Stylizer(one, device="cpu")(content)
    assert torch.equal(Stylizer(one, strength=0, device="cpu")(content), content)
    quarter = Stylizer(one, strength=0.25, device="cpu")(content)
    torch.testing.assert_close(quarter, 0.75 * content + 0.25 * full)


def test_keep_colors_keeps_chroma_and_takes_the_luminance(one):
    content = 0.45 + 0.1 * noise(16, 21)  # in the middle, where nothing is clipped
    kept = Stylizer(one, keep_colors=True, strength=0.3, device="cpu")(content)
    plain = Stylizer(one, strength=0.3, device="cpu")(content)
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    luminance, *chroma = torch.einsum("ij,bjhw->ibhw", yiq, kept)
    before = torch.einsum("ij,bjhw->ibhw", yiq, content)
    torch.testing.assert_close(torch.stack(chroma), before[1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(luminance, torch.einsum("j,bjhw->bhw", yiq[0], plain), atol=1e-5, rtol=0)


def test_size_is_the_longer_side_of_pixels_and_alpha(one):
    picture = Picture(noise(40, 60), noise(40, 60)[:, :1])
    for size, shape in ((30, (20, 30)), (90, (60, 90))):
        stylized = Stylizer(one, size=size, device="cpu").stylize(picture)
        assert stylized.pixels.shape[-2:] == shape and stylized.alpha.shape[-2:] == shape


def test_a_second_photo_costs_one_forward_pass(tmp_path, one):
    path = save_network(tmp_path / "wave.safetensors", one)
    stylizer = Stylizer(path, device="cpu")
    path.unlink()
    calls = []
    stylizer.painter.network.register_forward_hook(lambda *call: calls.append(call))
    assert not torch.equal(stylizer(noise(8, 8)), stylizer(noise(9, 9))[..., :8, :8])
    assert len(calls) == 2


def test_the_callers_network_is_left_alone():
    network = random_network("wave").train()
    stylizer = Stylizer(network, device="cpu")
    before = stylizer(noise(8, 8))
    torch.nn.init.zeros_(network.to_rgb.weight)
    assert network.training and torch.equal(stylizer(noise(8, 8)), before)


def test_one_hot_mixture_is_that_style_and_a_mixture_is_neither(three):
    content = noise(16, 16)
    painted = {name: Stylizer(three, name, device="cpu")(content) for name in NAMES}
    mixed = Stylizer(three, "wave=0.5,scream=0.5", device="cpu")(content)
    for name in NAMES:
        mapping = {other: float(other == name) for other in NAMES}
        assert torch.equal(Stylizer(three, mapping, device="cpu")(content), painted[name])
        assert not torch.allclose(mixed, painted[name], atol=1e-3)
    assert Stylizer(three, "wave=0.5,scream=0.5").mixture == {"wave": 0.5, "scream": 0.5}


@pytest.mark.parametrize(
    ("style", "weights"),
    [
        ("wave", [0, 1, 0]),
        ("scream=7, starry_night=3", [0.3, 0, 0.7]),
        ("wave,scream", [0, 0.5, 0.5]),
        ({"wave": 0, "scream": 2}, [0, 0, 1]),
        ({"wave": 1e308, "scream": 1e308}, [0, 0.5, 0.5]),
    ],
)
def test_weights_are_ordered_and_sum_to_one(style, weights):
    torch.testing.assert_close(style_weights(style, NAMES), torch.tensor([weights], dtype=torch.float32))


def test_names_with_our_signs_in_them_and_the_only_style():
    assert style_weights("a=1,b", ["a=1,b", "c"]).tolist() == [[1, 0]]
    assert style_weights(None, ["wave"]).tolist() == [[1]]
    assert TransformNet(2, 4, 0).styles == ["style1", "style2"]


@pytest.mark.parametrize(
    ("style", "message"),
    [
        (None, "this network has 3 styles, choose one or a mixture: starry_night, wave, scream"),
        ("wav", "style 'wav' is unknown: did you mean wave? this network knows starry_night, wave, scream"),
        ("xyz=1", "style 'xyz' is unknown: this network knows starry_night, wave, scream"),
        ("", "style '' is unknown: this network knows starry_night, wave, scream"),
        ("wave=x", "style wave=x: the weight is not a number; write wave=0.5"),
        ("wave=", "style wave=: the weight is not a number; write wave=0.5"),
        ("wave=nan", "style wave=nan: a weight must be a number from 0 up"),
        ("wave=inf", "style wave=inf: a weight must be a number from 0 up"),
        ({"wave": -0.5}, "style wave=-0.5: a weight must be a number from 0 up"),
        ("wave=0", "style 'wave=0': at least one weight must be above 0"),
        ({}, "style {}: at least one weight must be above 0"),
        ("wave=1,wave=2", "style 'wave=1,wave=2': wave is given twice"),
    ],
)
def test_style_refusals(style, message):
    with pytest.raises(ValueError) as raised:
        style_weights(style, NAMES)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 1.5}, "strength 1.5: must be from 0"),
        ({"strength": float("nan")}, "strength nan: must be from 0"),
        ({"size": 0}, "size 0: the longer side must be at least 1 pixel"),
        ({"device": "gpu"}, "device 'gpu': must be auto, cpu, cuda, cuda:N or mps"),
        ({"device": "cuda:99"}, "device cuda:99: torch finds none on this machine; use cpu or auto"),
    ],
)
def test_option_refusals(one, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Stylizer(one, **options)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_device_there_is(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    assert find_device("auto") == torch.device(expected)
    if not mps:
        with pytest.raises(ValueError, match="device mps: torch finds none"):
            find_device("mps")
    if cuda:
        assert find_device("cuda:0") == torch.device("cuda:0")
        with pytest.raises(ValueError, match="device cuda:1: torch finds none"):
            find_device("cuda:1")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(4, 8, 8), r"tensor of shape \(4, 8, 8\): must be 3×H×W or B×3×H×W"),
        (torch.zeros(3, 0, 8), r"tensor of shape \(3, 0, 8\).*not empty"),
        (torch.zeros(8, 8), r"tensor of shape \(8, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "tensor of torch.uint8: must be float in"),
        (torch.full((3, 8, 8), 255.0), "values from 255 to 255: must be in"),
        (torch.full((3, 8, 8), float("nan")), "values from nan to nan"),
        (np.zeros((8, 8)), r"array of shape \(8, 8\): must be H×W×3"),
        (np.zeros((8, 8, 4)), r"array of shape \(8, 8, 4\)"),
        (np.zeros((8, 8, 3), dtype=np.int64), "array of int64: must be uint8, or float"),
        ("photo.jpg", "photo.jpg: no such file"),
        ({"photo.jpg"}, "set cannot be stylized: give a path, a PIL image, an array, a tensor, or a list of these"),
    ],
)
def test_image_refusals(one, image, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Stylizer(one, device="cpu")(image)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
    ],
    ids=repr,
)
def test_running_out_of_memory_names_the_size_and_a_smaller_one(one, monkeypatch, error):
    stylizer = Stylizer(one, device="cpu")
    monkeypatch.setattr(stylizer.painter.network, "forward", lambda *_, **__: (_ for _ in ()).throw(error))
    for given in (noise(30, 40), Image.new("RGB", (40, 30))):
        with pytest.raises(ValueError, match=r"^40×30 pixels, longer side 40: does not fit .* --size 20$"):
            stylizer(given)


def test_an_absurd_size_is_out_of_memory_and_other_errors_pass(one, monkeypatch):
    for size in (10_000_000, 10**12):
        with pytest.raises(ValueError, match=f"longer side {size}: does not fit in the memory of cpu"):
            Stylizer(one, size=size, device="cpu")(noise(4, 4))
    stylizer = Stylizer(one, device="cpu")
    monkeypatch.setattr(
        stylizer.painter.network, "forward", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a bug"))
    )
    with pytest.raises(RuntimeError, match="a bug"):
        stylizer(noise(4, 4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_agrees_with_cpu(three):
    content = noise(33, 47)
    on_gpu = Stylizer(three, "wave", device="cuda")(content)
    difference = on_gpu - Stylizer(three, "wave", device="cpu")(content)
    assert on_gpu.device == content.device and difference.abs().mean() < 0.005  # TF32 rounds to 10 bits


def test_neither_lightning_nor_datasets_is_imported_and_the_script_helps():
    heavy = "{name.partition('.')[0] for name in sys.modules} & {'lightning', 'pytorch_lightning', 'datasets'}"
    code = f"import sys, impasto.inference, impasto.commands.painting; print({heavy})"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (imported.stdout, imported.returncode) == ("set()\n", 0)
    script = Path(__file__).parents[1] / "scripts" / "infer.py"
    shown = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0 and "photos" in shown.stdout and "starry_night=0.7,great_wave=0.3" in shown.stdout
    for option in ("network", "style", "strength", "keep_colors", "size", "output", "device", "overwrite"):
        assert f"  --{option} " in shown.stdout
