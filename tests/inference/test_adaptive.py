"""Strength that adapts to the photo: what is measured, what is chosen, what the command says."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from exported import exported, properties
from pictures import draw, save
from torchvision.transforms.functional import to_pil_image

from impasto import Stylizer
from impasto.commands import run
from impasto.images import Picture, from_pil, read_image
from impasto.inference.adaptive import ALLOWED, TOLERANCE, allowed_loss, chosen, content_lost, features
from impasto.inference.steady import SteadyPainter
from impasto.perceptual.gaps import dead_leaves

WAVE = {"style": "great_wave", "device": "cpu"}


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """A picture of which `great_wave` at full strength loses 0.75."""
    return dead_leaves(3, 96)[0]


@pytest.fixture(scope="module")
def crisp() -> torch.Tensor:
    """A picture of which it loses 0.59."""
    return dead_leaves(3, 96)[2]


def lost(stylized: torch.Tensor, photo: torch.Tensor) -> float:
    with torch.inference_mode():
        return float(content_lost(features(stylized[None]), features(photo[None])))


def test_content_lost_by_hand() -> None:
    """Places 0 and 2 have a variance of 1 around 1; a mean squared error of ½, over twice that, is ¼."""
    photo, stylized = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[1.0, 2.0]]]])
    assert float(content_lost(stylized, photo)) == 0.25
    # A second channel adds its variance, 4, and its error, 8: 8.5 / (2 · 5).
    photo = torch.cat([photo, 2 * photo], 1)
    stylized = torch.cat([stylized, torch.tensor([[[[0.0, 8.0]]]])], 1)
    assert float(content_lost(stylized, photo)) == pytest.approx((0.5 + 8) / 10)


def test_unrelated_places_lose_one(crisp: torch.Tensor) -> None:
    """On average over all shifts of the places, for features of a picture."""
    found = features(crisp[None])
    places = found[0].flatten(1)
    shifted = [places.roll(shift, 1).view_as(found) for shift in range(places.shape[1])]
    assert sum(float(content_lost(each, found)) for each in shifted) / len(shifted) == pytest.approx(1, abs=1e-4)
    assert float(content_lost(found, found)) == 0


CURVES: dict[str, Callable[[float], float]] = {
    "linear": lambda s: 0.8 * s,
    "square": lambda s: s * s,
    "root": lambda s: s**0.5,
    "with a floor": lambda s: 0.24 + 0.5 * s,
    "steep at the end": lambda s: 1.5 * s**4,
}


@pytest.mark.parametrize("curve", CURVES.values(), ids=CURVES)
def test_the_largest_strength_that_is_allowed_in_six_tries(curve: Callable[[float], float]) -> None:
    before = 0.0
    for allowed in (0.3, 0.4, 0.5, 0.7):
        tried: list[float] = []
        choice = chosen(lambda s, tried=tried: tried.append(s) or curve(s), allowed)  # type: ignore[misc]
        assert len(tried) <= 6 and len({*tried}) == len(tried) and choice.full == curve(1.0)
        assert choice.lost == curve(choice.strength) <= allowed + TOLERANCE
        assert curve(choice.strength + 0.01) >= allowed - TOLERANCE
        assert choice.strength == round(choice.strength, 2) >= before
        before = choice.strength


def test_the_ends_of_the_search() -> None:
    assert chosen(lambda s: 0.3 * s, 0.3).strength == 1
    assert chosen(lambda s: 0.3 * s, 0.0).strength == 0
    floor = chosen(lambda s: 0.24 + 0.5 * s, 0.1)  # every strength above 0 loses more
    assert (floor.strength, floor.lost, floor.full) == (0, 0, 0.74)
    assert str(floor) == (
        "left as it is: every strength tried lost more content than allowed, 0.1; at full strength 0.74"
    )


@pytest.mark.parametrize("allowed", [0.2, ALLOWED])
def test_the_chosen_strength_loses_what_is_allowed(photo: torch.Tensor, allowed: float) -> None:
    stylizer = Stylizer("gallery", strength=f"auto:{allowed}", **WAVE)
    stylized = stylizer(photo)
    assert lost(stylized, photo) == pytest.approx(allowed, abs=2 * TOLERANCE)
    choice = stylizer.adapted(Picture(photo[None])).choice
    assert choice is not None and choice.full > allowed and 0 < choice.strength < 1
    assert torch.equal(stylized, Stylizer("gallery", strength=choice.strength, **WAVE)(photo))
    full = lost(Stylizer("gallery", **WAVE)(photo), photo)
    assert choice.full == pytest.approx(full, abs=1e-3)


def test_more_allowed_is_more_strength_up_to_one(photo: torch.Tensor) -> None:
    strengths = []
    for allowed in (0, 0.1, 0.25, 0.4, 3):
        adapted = Stylizer("gallery", strength=f"auto:{allowed}", **WAVE).adapted(Picture(photo[None]))
        strengths.append(adapted.strength)
    assert strengths == sorted(strengths) and (strengths[0], strengths[-1]) == (0, 1)
    assert torch.equal(Stylizer("gallery", strength="auto:0", **WAVE)(photo), photo)


def test_every_picture_has_its_own_strength(photo: torch.Tensor, crisp: torch.Tensor) -> None:
    stylizer = Stylizer("gallery", strength="auto:0.65", **WAVE)
    soft, fine = (stylizer.adapted(Picture(each[None])).strength for each in (photo, crisp))
    assert soft < fine == 1
    both = stylizer(torch.stack([photo, crisp]))
    assert torch.equal(both[1], Stylizer("gallery", **WAVE)(crisp))
    assert torch.equal(both[0], Stylizer("gallery", strength=soft, **WAVE)(photo))


def test_options_and_tiles_are_heeded(photo: torch.Tensor) -> None:
    options = {"keep_colors": True, "size": 100, "stroke": 2, **WAVE}
    stylizer = Stylizer("gallery", strength="auto:0.2", **options)
    strength = stylizer.adapted(Picture(photo[None])).strength
    assert 0 < strength < 1
    assert torch.equal(stylizer(photo), Stylizer("gallery", strength=strength, **options)(photo))
    image = to_pil_image(dead_leaves(1, 250)[0])
    options = {"tile": 240, "stroke": "pixels", **WAVE}
    tiled = Stylizer("gallery", strength="auto:0.2", **options)
    strength = tiled.adapted(from_pil(image)).strength
    fixed = Stylizer("gallery", strength=strength, **options)
    assert 0 < strength < 1 and tiled(image).tobytes() == fixed(image).tobytes()


def test_a_network_for_any_painting_mixes_the_style(photo: torch.Tensor) -> None:
    """A weaker style, not blended pixels; below what it loses in a photo's own style, the photo stays."""
    painting = draw(9, 96, 96, blur=1.5)
    loses = [lost(Stylizer("any", painting, strength=strength, device="cpu")(photo), photo) for strength in (0.01, 1.0)]
    assert loses[0] < loses[1]
    allowed = sum(loses) / 2
    stylizer = Stylizer("any", painting, strength=f"auto:{allowed}", device="cpu")
    choice = stylizer.adapted(Picture(photo[None])).choice
    assert choice is not None and 0 < choice.strength < 1
    assert lost(stylizer(photo), photo) == pytest.approx(allowed, abs=0.05)
    assert torch.equal(stylizer(photo), Stylizer("any", painting, strength=choice.strength, device="cpu")(photo))
    stylizer = Stylizer("any", painting, strength=f"auto:{loses[0] / 4}", device="cpu")
    assert torch.equal(stylizer(photo), photo)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (20, 400)])
@pytest.mark.parametrize("grey", [0.0, 0.5])
def test_photos_that_are_tiny_or_flat(shape: tuple[int, int], grey: float) -> None:
    flat = torch.full((3, *shape), grey)
    stylized = Stylizer("gallery", strength="auto", **WAVE)(flat)
    assert stylized.shape == flat.shape and bool(stylized.isfinite().all())


def test_exports_adapt_too(tmp_path: Path) -> None:
    """This one inverts the picture."""
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    path = exported(tmp_path / "net.onnx", properties(), "BitwiseNot")
    photo = draw(3, 60, 80)
    full = lost(1 - photo, photo)
    stylizer = Stylizer(path, strength=f"auto:{full / 2}", device="cpu")
    assert lost(stylizer(photo), photo) == pytest.approx(full / 2, abs=2 * TOLERANCE)


def test_what_may_be_stated() -> None:
    assert allowed_loss(0.4) is None and allowed_loss(0) is None and allowed_loss("auto") == ALLOWED
    assert (allowed_loss("auto:0.4"), allowed_loss("auto:0"), allowed_loss("auto:2")) == (0.4, 0, 2)


@pytest.mark.parametrize(
    "strength", ["much", "auto:", "auto:-1", "auto:nan", "auto:inf", "auto:much", "automatic:1", "autos", "nan", "2"]
)
def test_other_values_are_refused(strength: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    given = save(tmp_path / "photo.png", 3)
    assert run("infer", str(given), "--network=gallery", "--style=udnie", f"--strength={strength}") == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1 and f"strength {strength}" in told[0]
    assert told[0].endswith(
        ": must be from 0 (the photo) to 1 (fully stylized), auto, or auto:0.4 (the content that may be lost, from 0)"
    )


def test_clips_take_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2", reason="the video extra is not installed")
    for command in ("video", "live"):
        assert run(command, "clip.mp4", "--strength", "auto") == 2
        told = capsys.readouterr().err.splitlines()
        assert told == [f"impasto {command}: --strength auto: must be a number from 0 to 1"]
    with pytest.raises(ValueError, match=r"^strength auto: is for photos; for clips give a number from 0 to 1$"):
        SteadyPainter(Stylizer("gallery", strength="auto", **WAVE))


def test_the_command_tells_what_it_chose_for_each_photo(
    photo: torch.Tensor,
    crisp: torch.Tensor,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name, picture in (("a", photo), ("b", crisp)):
        to_pil_image(picture).save(f"photos/{name}.png")
    options = ["--network=gallery", "--style=great_wave", "--device=cpu"]
    assert run("infer", "photos", *options, "--strength=auto:0.65") == 0
    shown = capsys.readouterr()
    a, b = (line for line in shown.err.splitlines() if line.startswith("photos/"))
    found = re.fullmatch(
        r"photos/a\.png: strength (0\.\d+): content lost 0\.(\d\d), allowed 0\.65; at full strength 0\.75", a
    )
    assert found and abs(int(found[2]) - 65) <= 2
    assert b == "photos/b.png: strength 1: content lost 0.59, allowed 0.65"
    assert shown.out == "2 stylized, 0 skipped\n"
    painted = read_image(Path("stylized/a_gallery_great_wave_strength-auto-0.65.png")).pixels
    wanted = Stylizer("gallery", strength=float(found[1]), **WAVE)(read_image(Path("photos/a.png")).pixels)
    torch.testing.assert_close(painted, wanted, atol=0.51 / 255, rtol=0)
    assert run("infer", "photos/a.png", *options, "--strength", "auto") == 0
    assert Path("stylized/a_gallery_great_wave_strength-auto.png").is_file()
    assert ", allowed 0.5; at full strength 0.75" in capsys.readouterr().err
