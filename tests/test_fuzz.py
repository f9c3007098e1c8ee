"""Some thousand damaged inputs: each is read, or refused in one line; no traceback, no hang, no other exit status.

Seeded, so that what fails fails again. IMPASTO_FUZZ=10 tries ten times as many.
"""

import copy
import io
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from exported import DESCRIBED, exported, properties
from PIL import Image
from safetensors.torch import load_file, save

from impasto import commands as cli
from impasto.images import ImageError, read_image
from impasto.images import large as scanlines
from impasto.images.large import read_scan
from impasto.inference import Stylizer
from impasto.networks import TransformNet, save_network

TIMES = float(os.environ.get("IMPASTO_FUZZ", "1"))
STATUSES = {0, 1, 2, 130, 143}
SECONDS = 20  # that one input may take, on a machine that does much else
ODD: list[Any] = [
    None, True, 0, -1, 1, 2**31, 2**63, 10**30, 1e-300, 1e300, float("nan"), float("-inf"), "", " ", "a", "\x1b[31m",
    "\x00", "../x", "é", "🎨", "9" * 400, [], [[]], {}, {"name": "a"}, [{"name": "a"}], [1, "a", None], {"": {"": []}},
]  # fmt: skip
TEXTS = [
    "", "-", "--", "---", "=", "a=b", "=,=", ",", "nan", "-1", "0", "1", "1e999", "9" * 400, "[", "]", "[]", "[1",
    "[1,2]", "{", "{}", "{a: [", "{a: 1}", "a: b: c", "!!python/object:os.system", "&a [*a]", "*a", "null", "true", "~",
    "@x", "%s", "$HOME", "..", "/none", "/dev/null", "//[", "\x1b[31m", "\udcff", "é", "🎨", "a\nb", "x" * 5000,
    "no.png", "no.onnx", "*", "cuda:99", "auto", "[[[[", "[bold]", "package:", "package:a/b", "package:skimage/../x",
    "last", "_", "'", '"', "\\", "#", ": ", "- a", "? a",
]  # fmt: skip
BYTES = [b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x00\x01\x00\x00"]


@contextmanager
def no_hang(what: object) -> Iterator[None]:
    def late(*_: object) -> None:
        raise AssertionError(f"longer than {SECONDS} s: {what!r}")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def refusal(work: Callable[[], object], allowed: type[ValueError], what: object) -> bool:
    """Whether it can be done; if not, it is refused in a line. Anything else names the input."""
    with no_hang(what):
        try:
            work()
            return True
        except allowed as error:
            assert "\n" not in str(error), what
            return False
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}; of {what!r}") from error


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, most often in the header; or cut, doubled, taken out."""
    found = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4, 16])):
        place = chance.randrange(min(len(found), chance.choice([32, 128, 10**6])) or 1)
        kind = chance.randrange(6)
        if kind == 0:
            found[place : place + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            found[place : place + 4] = chance.choice(
                [b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\x00\x01\x00\x00"]
            )
        elif kind == 2:
            del found[place:]
        elif kind == 3:
            found[place:place] = found[place : place + chance.randrange(64)]
        elif kind == 4:
            del found[place : place + chance.randrange(1, 16)]
        else:
            found[place : place + 2] = chance.randbytes(2)
    return bytes(found)


def small_images() -> dict[str, bytes]:
    """Every format, in modes that take different ways."""
    noise = Image.effect_noise((9, 7), 80)
    rgb = Image.merge("RGB", [noise, noise.rotate(180), noise])
    exif = Image.Exif()
    exif[0x0112] = 6
    ways: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "rgb.png": (rgb, "PNG", {}), "rgba.png": (rgb.convert("RGBA"), "PNG", {}),
        "p.png": (rgb.quantize(8), "PNG", {"transparency": 3}), "deep.png": (noise.convert("I;16"), "PNG", {}),
        "one.png": (noise.convert("1"), "PNG", {}), "a.jpg": (rgb, "JPEG", {"exif": exif}),
        "progressive.jpg": (rgb, "JPEG", {"progressive": True}), "cmyk.jpg": (rgb.convert("CMYK"), "JPEG", {}),
        "a.webp": (rgb.convert("RGBA"), "WEBP", {"lossless": True}), "b.webp": (rgb, "WEBP", {}),
        "a.tif": (rgb, "TIFF", {}), "lzw.tif": (rgb, "TIFF", {"compression": "tiff_lzw"}),
        "float.tif": (noise.convert("F"), "TIFF", {}), "a.bmp": (rgb, "BMP", {}),
        "a.gif": (rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(90)], "duration": 10}),
    }  # fmt: skip
    made = {}
    for name, (image, kind, options) in ways.items():
        image.save(file := io.BytesIO(), kind, **options)
        made[name] = file.getvalue()
    return made


def test_damaged_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # that memory is taken for; more would only be slower
    monkeypatch.setattr(scanlines, "LARGEST", 10**6)
    chance, seeds = random.Random(1), small_images()
    read = 0
    for number in range(int(2500 * TIMES)):
        name = chance.choice(list(seeds))
        data = damaged(seeds[name], chance)
        reader = read_scan if number % 3 == 0 else read_image
        read += refusal(partial(reader, name, data), ImageError, (name, data))
    assert read > 100, "some are whole enough"


def changed(value: Any, chance: random.Random) -> Any:
    """JSON with one part of it replaced, removed or added."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return copy.deepcopy(chance.choice(ODD))
    found: Any = copy.copy(value)
    key: Any = chance.choice(list(value)) if isinstance(value, dict) else chance.randrange(len(value))
    if chance.random() < 0.1:
        del found[key]
    elif isinstance(found, dict) and chance.random() < 0.1:
        found[str(chance.choice(ODD))] = chance.choice(ODD)
    else:
        found[key] = changed(value[key], chance)
    return found


def metadata(chance: random.Random) -> str:
    loss = {"network": "vgg16", "gaps": {"style": {"1.0/relu1_1": [1.0]}}}
    full = {**DESCRIBED, "loss": loss, "training": {"steps": 3}, "commit": "abc", "licence": "MIT"}
    text = json.dumps(changed(full, chance))
    return text if chance.random() < 0.8 else damaged(text.encode(), chance).decode("utf-8", "replace")


def paint(path: Path) -> None:
    assert Stylizer(path)(torch.zeros(3, 5, 4)).isfinite().all()


def test_damaged_published_files(tmp_path: Path) -> None:
    chance, path = random.Random(2), tmp_path / "net.safetensors"
    save_network(path, TransformNet(1, 4, 0, canvas=0.0), styles=DESCRIBED["styles"])
    whole, state = path.read_bytes(), {name: value.clone() for name, value in load_file(path).items()}
    read = 0
    for number in range(int(500 * TIMES)):
        about = metadata(chance)
        data = save(state, {"impasto": about}) if number % 3 else damaged(whole, chance)
        path.write_bytes(data)
        read += refusal(partial(paint, path), ValueError, about if number % 3 else data)
    assert read > 20


def test_damaged_metadata_of_exports(tmp_path: Path) -> None:
    chance, path = random.Random(3), tmp_path / "a.onnx"
    read = 0
    for number in range(int(300 * TIMES)):
        about = properties(chance.choice(["uint8", "float32"]))
        if number % 2:
            about["impasto"] = metadata(chance)
        else:
            name = chance.choice(list(about))
            about[name] = str(chance.choice([*ODD, *TEXTS])).encode("utf-8", "replace").decode()
        exported(path, about)
        if number % 10 == 0:
            whole = path.read_bytes()
            path.write_bytes(whole[: chance.randrange(len(whole))])
        read += refusal(partial(paint, path), ValueError, about)
    assert read > 20


# What is always given, last, so that nothing long begins; and options besides.
COMMANDS: dict[str, tuple[str, str, int]] = {
    "infer": (
        "in/a.png --network=net.safetensors --output=out --overwrite",
        "network style strength keep-colors size tile output device backend overwrite list-styles", 80,
    ),
    "export": ("missing.safetensors", "output pixels precision opset parts quantize photos", 40),
    "demo": ("--network=missing.onnx", "port runtime open", 30),
    "optimize": (
        "--content=missing.png",
        "content styles output size style_size masks colors photos snapshots device loss config loss.network "
        "loss.style_layers loss.scales steps coarse start noise_ratio optimizer", 20,
    ),
    "evaluate": (
        "--photos=[missing.png]",
        "paintings paintings.a output balance_photos networks marks presets axes lpips loss.balance", 20,
    ),
    "evaluate clips": (
        "--clips.a=missing.mp4 --output=out",
        "flow flow.a output networks style painting frames size steady reference reference_size loss.network", 20,
    ),
    "train": (
        "fit --model.styles.a=missing.png --data.photos=missing",
        "model.styles model.loss model.width data.photos data.crop trainer.max_steps trainer.precision run "
        "trainer.devices minutes try_on checkpoint.keep previews.photos ckpt_path config seed_everything", 10,
    ),
    "distill": (
        "fit --model.paintings=missing --model.painters=[missing]",
        "model.ranks model.teacher data.photos trainer.max_steps run", 4,
    ),
    "train-any": (
        "fit --model.paintings=missing --data.photos=missing",
        "model.method model.held_out model.views model.limit model.basis model.start_from data.crop minutes run", 6,
    ),
    "styles": ("add missing.png", "name file network fit photos device overwrite", 40),
    "benchmark": ("--device=none", "size what rounds batches files quick", 20),
}  # fmt: skip


@pytest.mark.parametrize("kind", COMMANDS)
def test_odd_command_lines(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "in").mkdir()
    Image.effect_noise((9, 7), 80).convert("RGB").save("in/a.png")
    save_network("net.safetensors", TransformNet(1, 4, 0, canvas=0.0), styles=DESCRIBED["styles"])
    command = kind.split()[0]
    always, options, number = COMMANDS[kind][0].split(), COMMANDS[kind][1].split(), COMMANDS[kind][2]
    assert cli.run(command, *always) == (0 if command == "infer" else 2)  # and what takes long is imported
    chance = random.Random(kind)
    statuses = set()
    for _ in range(int(number * TIMES)):
        given = []
        for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
            text, option = chance.choice(TEXTS), chance.choice(options)
            odd = [f"--{option}={text}", f"--{option}", text, f"--{text}", f"-{text[:1]}"]
            given += chance.choice([odd[:1], odd[:1], [odd[1], text], odd[2:3], odd[3:4], odd[4:]])
        given = [*always[:1], *given, *always[1:]] if command in cli.TRAINING else [*given, *always]
        with no_hang(given):
            try:
                status = cli.run(command, *given)
            except SystemExit as end:  # of --help
                status = end.code
            except BaseException as error:
                raise AssertionError(f"{type(error).__name__}: {error}; of {given!r}") from error
        shown = "".join(capfd.readouterr())
        assert status in STATUSES and "Traceback" not in shown, (given, status, shown)
        statuses.add(status)
    assert 2 in statuses


def test_odd_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for text in TEXTS:
        for arguments in ([text], [text, text]):
            assert cli.main(arguments) == 2
    assert "Traceback" not in "".join(capsys.readouterr())
