"""The compact loss network: its factors against an independent reference, and a run of the command."""

import csv
from pathlib import Path

import pytest
import torch
from pictures import save

from impasto.commands import run
from impasto.networks import NetworkError, load_network
from impasto.perceptual.features import FeatureNetwork
from impasto.perceptual.vgg import COMPACT_FILE, COMPACT_LAYERS, FactoredConvolution, factored
from impasto.training.distillation import KINDS, Distillation, _kept, _set_factors, factorize, faithfulness

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number in range(20):
        save(tmp_path / "photos" / f"{number:02d}.png", number)
    for number in range(6):
        save(tmp_path / "paintings" / f"{number}.png", 100 + number, blur=1.5)
    return tmp_path


def test_factors_give_the_principal_part_of_the_responses() -> None:
    """Against a singular value decomposition of the centred responses."""
    convolution, layer = torch.nn.Conv2d(5, 8, 3, padding=1), FactoredConvolution(5, 8, 3)
    image = torch.rand(4, 5, 20, 20)
    with torch.no_grad():
        responses = convolution(image).transpose(0, 1).flatten(1).double()
        _set_factors(layer, convolution.weight.double(), convolution.bias.double(), responses)
        found = layer(image).transpose(0, 1).flatten(1).double()
    mean = responses.mean(1, keepdim=True)
    u, s, v = torch.linalg.svd(responses - mean, full_matrices=False)
    expected = u[:, :3] @ torch.diag(s[:3]) @ v[:3] + mean
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_channels_that_follow_from_others_are_not_missed() -> None:
    """Of six channels three are linear functions of the others: nothing is lost by keeping three."""
    free = torch.rand(3, 500, dtype=torch.float64)
    made = torch.rand(3, 3, dtype=torch.float64) @ free + torch.rand(3, 1, dtype=torch.float64)
    activations = torch.cat([free, made])
    kept, (matrix, offset) = _kept(activations, torch.rand(4, 6, 3, 3, dtype=torch.float64), 3)
    assert len(kept) == 3
    torch.testing.assert_close(matrix @ activations[kept] + offset[:, None], activations, rtol=1e-3, atol=1e-3)


def test_more_channels_between_the_factors_come_closer_to_the_teacher() -> None:
    teacher = FeatureNetwork("vgg16", COMPACT_LAYERS, "random")
    photos = torch.rand(6, 3, 32, 32)
    errors = []
    for share in (16, 4, 1):
        compact = FeatureNetwork("compact", COMPACT_LAYERS, network=factored("vgg16", [64 // share] * 5))
        factorize(compact, teacher, photos)
        found, wanted = compact(photos)["relu2_1"], teacher(photos)["relu2_1"]
        errors.append(((found - wanted).square().sum() / wanted.square().sum()).item())
    assert errors[0] > errors[1] > errors[2]


def distill(folder: Path, *options: str) -> int:
    """Ten steps on small drawn pictures; the teacher has random weights."""
    return run(
        "distill", "fit", f"--data.photos={folder / 'photos'}", f"--model.paintings={folder / 'paintings'}",
        "--model.teacher=vgg16", "--model.weights=random", "--model.ranks=[4,4,4,4,4]", "--model.painting_size=64",
        "--model.warmup_steps=1", "--model.learning_rate=0.0003", "--model.first_photos=4", "--data.num_workers=0",
        "--data.crop=32", "--trainer.max_steps=10", "--trainer.precision=32-true", f"--run={folder / 'run'}", *options,
    )  # fmt: skip


def test_a_compact_network_goes_on_with_the_same_features() -> None:
    photos = torch.rand(6, 3, 32, 32)
    first, second = (
        FeatureNetwork("compact", COMPACT_LAYERS, network=factored("vgg16", [8, 16, 16, 16, 16])) for _ in range(2)
    )
    factorize(first, FeatureNetwork("vgg16", COMPACT_LAYERS, "random"), photos)
    factorize(second, first, photos)
    found, wanted = second(photos), first(photos)
    for layer in COMPACT_LAYERS:
        torch.testing.assert_close(found[layer], wanted[layer], rtol=1e-3, atol=1e-3 * wanted[layer].max().item())


def test_the_command_makes_a_loss_network(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    assert distill(pictures) == 0
    file = pictures / "run" / COMPACT_FILE
    assert str(file) in capsys.readouterr().out
    table = (pictures / "run" / "faithfulness.md").read_text()
    assert all(f"| {layer} |" in table for layer in COMPACT_LAYERS)
    image = torch.rand(1, 3, 32, 32)
    teacher = FeatureNetwork("vgg16", COMPACT_LAYERS, "random")(image)
    found = FeatureNetwork("compact", COMPACT_LAYERS, str(file))(image)
    torch.testing.assert_close(found["relu1_1"], teacher["relu1_1"], rtol=0.05, atol=0.05)
    with pytest.raises(NetworkError, match="a loss network, for training"):
        load_network(file)
    made = file.read_bytes()
    assert distill(pictures, "--ckpt_path=last") == 0 and file.read_bytes() == made, "nothing was left to do"
    further = (f"--model.start_from={file}", f"--run={pictures / 'further'}", "--trainer.max_steps=1")
    assert distill(pictures, *further, "--data.val_photos=0") == 0
    assert not (pictures / "further" / "faithfulness.md").exists()


def errors(folder: Path) -> dict[int, float]:
    with (folder / "run" / "losses.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/features"]]
    return {int(row["step"]): float(row["train/features"]) for row in rows}


def test_a_resumed_run_goes_on_from_what_was_learned(pictures: Path) -> None:
    """And does not compute the factors anew."""
    assert distill(pictures, "--trainer.log_every_n_steps=1") == 0
    before = errors(pictures)
    assert before[10] < before[1]
    assert distill(pictures, "--trainer.log_every_n_steps=1", "--trainer.max_steps=12", "--ckpt_path=last") == 0
    assert errors(pictures)[11] < before[1]
    assert list(errors(pictures)) == list(range(1, 13))


def test_a_batch_holds_every_kind_of_picture(pictures: Path) -> None:
    module = Distillation(str(pictures / "paintings"), ["starry_night"], "vgg16", "random", [4] * 5, painting_size=64)
    photos = torch.rand(4, 3, 32, 32)
    made = module._pictures(photos, KINDS, "fit", torch.Generator().manual_seed(0))
    assert made.shape == photos.shape and made.min() >= 0 and made.max() <= 1
    assert torch.equal(made[0], photos[0])
    assert not any(torch.equal(one, photo) for one, photo in zip(made[1:], photos[1:], strict=True))


def test_faithfulness_is_a_table() -> None:
    errors = {f"{kind}/{layer}/{what}": 0.25 for kind in ("photos", "paintings", "stylized")
              for layer in COMPACT_LAYERS for what in ("features", "gram")}  # fmt: skip
    lines = faithfulness(errors).splitlines()
    assert len(lines) == 2 + len(COMPACT_LAYERS) and lines[2].startswith("| relu1_1 | 0.250 |")


def test_mistakes_are_one_line(pictures: Path, capsys: pytest.CaptureFixture) -> None:
    assert distill(pictures, f"--model.paintings={pictures / 'nowhere'}") == 2
    assert "nowhere: no such folder" in capsys.readouterr().err
    assert distill(pictures, "--model.painters=[nobody]") == 2
    assert "network 'nobody': neither a file nor a published name" in capsys.readouterr().err
