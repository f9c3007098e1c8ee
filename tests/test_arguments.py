"""The command line: pictures without a name, lists and flags in one dialect, the old forms, mistakes in a line."""

from pathlib import Path
from typing import Any

import pytest

from impasto.commands.arguments import parsed, read_options
from impasto.commands.benchmark import benchmark
from impasto.commands.evaluate import evaluate_pictures
from impasto.commands.optimize import optimize, optimize_photo


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def optimized(*arguments: str) -> dict[str, Any]:
    given, options = read_options("optimize", "", optimize_photo, [*arguments], ("content", "styles"))
    return {**vars(options), **given}


@pytest.mark.parametrize(
    "arguments",
    [
        ["photo.jpg", "a.jpg", "b.jpg=0.3"],
        ["--content", "photo.jpg", "--styles", "a.jpg", "b.jpg=0.3"],
        ["--content=photo.jpg", "--styles=[a.jpg,b.jpg=0.3]"],
        ["--content", "photo.jpg", "--styles", "[a.jpg, b.jpg=0.3]"],
        ["photo.jpg", "--styles", "a.jpg", "b.jpg=0.3", "--size", "512"],
        ["--content", "photo.jpg", "--size=512", "a.jpg", "b.jpg=0.3"],
        ["photo.jpg", "-s", "a.jpg", "b.jpg=0.3"],
        ["photo.jpg", "--styles+", "a.jpg", "--styles+=b.jpg=0.3"],
    ],
    ids=" ".join,
)
def test_a_photo_and_its_paintings_in_every_form(arguments: list[str]) -> None:
    given = optimized(*arguments)
    assert (given["content"], given["styles"]) == ("photo.jpg", ["a.jpg", "b.jpg=0.3"])


def test_lists_and_flags_in_every_form() -> None:
    for coarse in (["--coarse", "64", "128"], ["--coarse=[64,128]"], ["--coarse", "[64, 128]"]):
        for flag in (["--overwrite"], ["--overwrite", "true"], ["--overwrite=true"]):
            given = optimized("photo.jpg", "a.jpg", *coarse, *flag, "--line-search", "--loss.style-strength", "2")
            assert given["coarse"] == [64, 128] and given["overwrite"] is True and given["line_search"] is True
            assert given["loss"].style_strength == 2
    assert optimized("photo.jpg", "a.jpg", "--clamp", "false")["clamp"] is False


def test_names_that_look_like_lists_or_options_are_files() -> None:
    Path("[1].jpg").touch()
    assert optimized("photo.jpg", "--styles", "[1].jpg")["styles"] == ["[1].jpg"]
    assert optimized("photo.jpg", "a,b: c.jpg", "7")["styles"] == ["a,b: c.jpg", "7"]
    assert optimized("photo.jpg", "--", "-a.jpg")["styles"] == ["./-a.jpg"]


def test_evaluate_and_benchmark_speak_it_too() -> None:
    line = [
        "a.jpg",
        "b.jpg",
        "--axes",
        "{start: [mix], photo: []}",
        "--paintings.great-wave",
        "w.jpg",
        "--balance_photos",
        "in",
        "-o",
        "out",
        "--lpips",
    ]
    given, _ = read_options(
        "evaluate", "", evaluate_pictures, [*line, "--marks", "1", "2", "-n", "gallery"], ("photos",)
    )
    assert given["photos"] == ["a.jpg", "b.jpg"] and given["paintings"] == {"great-wave": "w.jpg"}
    assert given["axes"] == {"start": ["mix"], "photo": []}
    assert (given["marks"], given["networks"], given["output"], given["lpips"]) == ([1, 2], ["gallery"], "out", True)
    given = parsed("benchmark", "", benchmark, ["--batches", "8", "16", "--compile", "--files", "a.onnx"], {}, {})
    assert (given["batches"], given["compile"], given["files"]) == ([8, 16], True, ["a.onnx"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b.jpg", "--steps", "x"], "--steps x: must be a whole number"),
        (["a", "b.jpg", "--loss.balance", "no"], "--loss.balance no: must be relative or fixed or dynamic"),
        (["a", "b.jpg", "--coarse", "1", "x"], "--coarse x: must be a whole number, or several"),
        (["a", "b.jpg", "--clamp", "maybe"], "styles maybe: no such picture; a style that a network knows"),
        (["a", "great_wave"], "styles great_wave: no such picture; a style that a network knows is painted with"),
        (["--content", "a", "--styles", "b.jpg", "--start", "mix", "--size"], "argument --size: expected one argument"),
        (["https://a.org/b.jpg", "b.jpg"], "https://a.org/b.jpg: an address; download it, and give the file"),
        (["--content=a", "--styles=b.jpg", "c.jpg"], "c.jpg: there is no place for it; the options are named"),
        (
            ["a", "b.jpg", "--stile"],
            "unrecognized arguments: --stile; did you mean --styles? `impasto optimize --help` lists",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_a_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError) as raised:
        optimize(arguments)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)
