"""`impasto infer`: what is found, where it goes, what is refused, skipped and said."""

import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from impasto import commands as cli
from impasto import writing
from impasto.images import read_image
from impasto.inference import Stylizer
from impasto.inference.backends import TorchPainter
from impasto.networks import TransformNet, load_network, save_network

STYLES = [
    {"name": "starry_night", "title": "The Starry Night", "artist": "Vincent van Gogh", "year": 1889},
    {"name": "wave", "title": "The Great Wave", "artist": "Hokusai"},
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory, with the networks one.safetensors (wave) and two.safetensors; none published."""
    monkeypatch.setattr("impasto.networks.files.CHECKPOINTS", (tmp_path / "checkpoints",))
    monkeypatch.chdir(tmp_path)
    for name, styles in (("one", STYLES[1:]), ("two", STYLES)):
        torch.manual_seed(0)
        network = TransformNet(len(styles), width=4, residual_blocks=1)
        for key, parameter in network.named_parameters():
            if key.endswith(("gamma", "beta")):
                torch.nn.init.normal_(parameter)
        save_network(tmp_path / f"{name}.safetensors", network, styles=styles)
    return tmp_path


@pytest.fixture
def infer(folder, capsys):
    """Runs the command with the network `one`; returns status, output lines, error lines."""

    def run(*arguments: object, network: str = "one.safetensors") -> tuple[int, list[str], list[str]]:
        chosen = ["--network", network] if network else []
        status = cli.run("infer", *map(str, arguments), *chosen)
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err + shown.out
        return status, shown.out.splitlines(), shown.err.splitlines()

    return run


def photo(path: str, size: tuple[int, int] = (20, 14), mode: str = "RGB", **options: object) -> Path:
    levels = np.random.default_rng(len(path)).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels).convert(mode).save(path, **options)
    return Path(path)


def results(folder: str = "stylized") -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())


def test_one_photo_goes_to_the_default_folder_and_is_told_in_a_line(infer):
    given = photo("in/chicago.png")
    status, out, err = infer(given)
    assert (status, err, len(out)) == (0, [], 1)
    assert out[0].startswith("stylized/chicago_one.png  20×14, ") and out[0].endswith(" s")
    expected = Stylizer(load_network("one.safetensors")).stylize(read_image(given)).pixels
    written = read_image("stylized/chicago_one.png").pixels
    torch.testing.assert_close(written, expected, atol=0.51 / 255, rtol=0)


def test_options_reach_the_stylizer(infer):
    given = photo("a.png", (30, 20))
    bound = {"style": "starry_night=1,wave=3", "strength": 0.5, "keep_colors": True, "size": 15}
    options = ["--style", bound["style"], "--strength=0.5", "--keep-colors", "--size", 15, "--device=cpu"]
    assert infer(*options, given, network="two.safetensors")[0] == 0
    expected = Stylizer("two.safetensors", device="cpu", **bound).stylize(read_image(given)).pixels
    written = read_image("stylized/a_two_starry_night-25+wave-75_strength-0.5_colors-kept_15px.png").pixels
    assert written.shape[-2:] == (10, 15)
    torch.testing.assert_close(written, expected, atol=0.51 / 255, rtol=0)


@pytest.mark.parametrize(
    "flags", [["--keep_colors"], ["--keep-colors", "true"], ["--keep-colors=true"], ["--keep_colors=true"]]
)
def test_flags_in_every_spelling_and_place(infer, flags):
    given = photo("a.png")
    assert infer(*flags, given, "--output", "before.png")[0] == 0
    assert infer(given, "--output=after.png", *flags)[0] == 0
    assert infer(given, "--output=off.png", "--keep_colors", "false")[0] == 0
    before, after, off = (read_image(f"{name}.png").pixels for name in ("before", "after", "off"))
    assert torch.equal(before, after) and not torch.equal(before, off)


def test_names_of_results(infer):
    for name in ("a.jpg", "b.gif", "c.bmp", "d.WEBP", "e.tiff"):
        photo(f"in/{name}")
    assert infer("in") == (0, ["5 stylized, 0 skipped"], [])
    assert results() == ["a_one.jpg", "b_one.png", "c_one.png", "d_one.WEBP", "e_one.tiff"]


def test_other_pictures_of_a_photo_have_other_names(infer):
    given = photo("a.png")
    variants = [
        [], ["--style=wave"], ["--style=wave", "--strength=0.6"], ["--style=wave", "--keep-colors"],
        ["--style=wave", "--size=12"], ["--style=starry_night,wave"], ["--style=starry_night=0.3,wave=0.7"],
    ]  # fmt: skip
    for options in variants:
        assert infer(given, *options, network="two.safetensors" if options else "one.safetensors")[0] == 0
    assert results() == [
        "a_one.png", "a_two_starry_night-30+wave-70.png", "a_two_starry_night-50+wave-50.png", "a_two_wave.png",
        "a_two_wave_12px.png", "a_two_wave_colors-kept.png", "a_two_wave_strength-0.6.png",
    ]  # fmt: skip


def test_output_is_a_file_for_one_photo_and_a_folder_otherwise(infer):
    a, b = photo("a.png"), photo("b.png")
    assert infer(a, "--output", "new/result.jpg")[0] == 0
    assert Image.open("new/result.jpg").format == "JPEG"
    Path("folder.png").mkdir()
    assert infer(a, "--output", "folder.png")[0] == 0 and results("folder.png") == ["a_one.png"]
    assert infer(a, b, "--output", "both")[0] == 0 and results("both") == ["a_one.png", "b_one.png"]


def test_folders_keep_sub_folders_and_skip_results_and_hidden_files(infer):
    for name in ("in/x.png", "in/sub/x.png", "in/sub/deep/y.png", "in/.hidden/z.png", "in/.z.png"):
        photo(name)
    Path("in/notes.txt").write_text("no image")
    for _ in range(2):
        assert infer("in", "--output", "in/out", "--overwrite") == (0, ["3 stylized, 0 skipped"], [])
    assert results("in/out") == ["sub/deep/y_one.png", "sub/x_one.png", "x_one.png"]


def test_patterns(infer, folder):
    for name in ("in/x.png", "in/sub/y.png", "in/sub/deep/z.jpg", "in/.q.png"):
        photo(name)
    assert infer("in/*.png", "--output", "flat")[0] == 0 and results("flat") == ["x_one.png"]
    assert infer(f"{folder}/in/**/*.*", "--output", "deep")[1] == ["3 stylized, 0 skipped"]
    # The results of the first lie in other folders. They are no photos either.
    assert infer("**/*.png", "--output", ".", "--style", "wave")[1:] == (
        ["2 stylized, 0 skipped"],
        ["3 pictures painted by impasto skipped; name them to paint them"],
    )
    assert infer("in/**/*.png", "--output", "in/out")[1] == ["2 stylized, 0 skipped"]
    assert infer("in/**/*.png", "--output", "in/out", "--overwrite")[1] == ["2 stylized, 0 skipped"]
    assert infer("in/out/*.png", "--output", "in/out")[1] == ["2 stylized, 0 skipped"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_results_of_another_output_are_no_photos_unless_they_are_named(infer, suffix):
    a, b = photo(f"trip/a{suffix}"), photo(f"trip/b{suffix}")
    exif = Image.Exif()
    exif[0x0131] = "Camera 1.0"  # the Software of another program
    Image.open(b).save(b, exif=exif)
    assert infer("trip", "--output", "trip/first")[0] == 0
    skipped = "2 pictures painted by impasto skipped; name them to paint them"
    assert infer("trip", "--output", "second") == (0, ["2 stylized, 0 skipped"], [skipped])
    assert results("second") == [f"a_one{suffix}", f"b_one{suffix}"]
    for searched in ("trip/**/*.*", "trip/"):
        assert infer(searched, "--output", "third", "--overwrite")[1:] == (["2 stylized, 0 skipped"], [skipped])
    # Named, alone or with the folder; and in a folder or pattern that has nothing else.
    one = f"trip/first/a_one{suffix}"
    assert infer(one, "--output", "fourth")[0] == 0 and results("fourth") == [f"a_one_one{suffix}"]
    fewer = "1 picture painted by impasto skipped; name them to paint them"
    for names in (["trip", one], [one, "trip"]):
        assert infer(*names, "--output", "fifth", "--overwrite")[1:] == (["3 stylized, 0 skipped"], [fewer])
    for only in ("trip/first", "trip/first/*_one.*"):
        assert infer(only, "--output", "sixth", "--overwrite") == (0, ["2 stylized, 0 skipped"], [])
    assert infer("trip/first", a, "--output", "seventh") == (0, ["3 stylized, 0 skipped"], [])


def test_a_folder_of_one_photo_and_its_results_goes_to_standard_output(infer, monkeypatch):
    photo("in/a.png")
    assert infer("in", "--output", "in/results")[0] == 0
    sent = SimpleNamespace(buffer=io.BytesIO(), isatty=lambda: False)
    sent.write, sent.flush, sent.reconfigure = (lambda text: None), (lambda: None), (lambda **_: None)
    monkeypatch.setattr(sys, "stdout", sent)
    assert cli.run("infer", "in", "--network", "one.safetensors", "--output", "-") == 0
    assert Image.open(io.BytesIO(sent.buffer.getvalue())).size == (20, 14)


def test_what_exists_is_no_pattern_and_dashes_are_no_options(infer):
    assert infer(photo("trip[1].png"))[0] == 0
    photo("-x.png")
    assert cli.run("infer", "--network", "one.safetensors", "--", "-x.png") == 0
    assert results() == ["-x_one.png", "trip[1]_one.png"]


def test_equal_names_are_numbered_and_a_photo_given_twice_is_done_once(infer):
    a, b, c, d = photo("p/a.png"), photo("q/a.png"), photo("q/A.gif"), photo("r/a.png")
    assert infer(a, b, c, d, a, "p")[1] == ["4 stylized, 0 skipped"]
    assert results() == ["A_one-3.png", "a_one-2.png", "a_one-4.png", "a_one.png"]
    assert infer(b, "--output", "alone.png")[0] == 0
    assert Path("alone.png").read_bytes() == Path("stylized/a_one-2.png").read_bytes()


def test_alpha_is_kept(infer):
    alpha = Image.linear_gradient("L").resize((20, 14))
    image = Image.open(photo("a.png"))
    image.putalpha(alpha)
    image.save("a.png")
    assert infer("a.png")[0] == 0
    assert Image.open("stylized/a_one.png").getchannel("A").tobytes() == alpha.tobytes()


def test_odd_files_are_stylized_and_bad_ones_skipped_with_a_line(infer):
    photo("in/cmyk.jpg", mode="CMYK")
    Image.fromarray(np.arange(280, dtype=np.uint16).reshape(14, 20) * 200).save("in/deep.png")
    photo("in/palette.png", mode="P", transparency=3)
    photo("in/tiny.png", size=(1, 1))
    frames = [Image.new("RGB", (9, 9), color) for color in ("red", "blue")]
    frames[0].save("in/moving.gif", save_all=True, append_images=frames[1:])
    Path("in/text.jpg").write_text("not an image")
    whole = photo("in/cut.jpg", size=(64, 64)).read_bytes()
    Path("in/cut.jpg").write_bytes(whole[: len(whole) // 2])
    Path("in/empty.jpg").touch()
    Path("in/gone.jpg").symlink_to("nowhere.jpg")
    status, out, err = infer("in")
    assert (status, out) == (1, ["5 stylized, 4 skipped"])
    skipped = [line.split(":")[0] for line in err if line.startswith("skipped ")]
    assert skipped == [f"skipped in/{name}.jpg" for name in ("cut", "empty", "gone", "text")]
    assert sum(line.startswith("in/moving.gif: animated, 2 frames") for line in err) == 1
    assert len(err) == 5
    assert results() == ["cmyk_one.jpg", "deep_one.png", "moving_one.png", "palette_one.png", "tiny_one.png"]
    assert Image.open("stylized/palette_one.png").mode == "RGBA"
    assert Image.open("stylized/tiny_one.png").size == (1, 1)


def test_photos_of_phones_and_behind_links_are_found_or_named(infer, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # not installed
    for name in ("a.jfif", "b.jpe", "d.avif", "trip/e.mpo"):
        photo(f"in/{name}")
    Path("in/c.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    Path("else").mkdir()
    photo("else/f.png")
    Path("in/linked").symlink_to("../else")
    status, out, err = infer("in")
    assert (status, out) == (1, ["5 stylized, 1 skipped"])
    assert err == [
        "skipped in/c.HEIC: HEIC is read where pillow-heif is installed: pip install pillow-heif, "
        "or convert the photo to JPEG"
    ]
    names = [f"{name}_one.png" for name in ("a", "b", "d", "linked/f", "trip/e")]
    assert results() == names


def test_a_single_bad_photo_is_one_line_and_status_2(infer):
    Path("bad.jpg").write_text("not an image")
    status, out, err = infer("bad.jpg")
    assert (status, out, len(err)) == (2, [], 1) and err[0].startswith("impasto infer: bad.jpg: ")
    assert results() == []


def test_an_earlier_result_is_refused_skipped_or_replaced(infer):
    a, b = photo("a.png"), photo("b.png")
    Path("stylized").mkdir()
    Path("stylized/a_one.png").write_text("earlier")
    exists = "a.png: stylized/a_one.png exists already; --overwrite replaces it, --skip-existing leaves it"
    assert infer(a) == (2, [], [f"impasto infer: {exists}"])
    assert infer(a, b) == (1, ["1 stylized, 1 skipped"], [f"skipped {exists}"])
    assert Path("stylized/a_one.png").read_text() == "earlier"
    assert infer(a, b, "--overwrite") == (0, ["2 stylized, 0 skipped"], [])
    assert Image.open("stylized/a_one.png").size == (20, 14)


def test_an_interrupted_folder_goes_on(infer):
    for name in "abc":
        photo(f"in/{name}.png")
    for name in "ab":
        Path("stylized").mkdir(exist_ok=True)
        Path(f"stylized/{name}_one.png").write_text("earlier")
    go_on = ["in", "--skip-existing"]
    assert infer(*go_on) == (0, ["1 stylized, 0 skipped"], ["2 of 3 exist already, skipped"])
    assert Path("stylized/a_one.png").read_text() == "earlier" and Image.open("stylized/c_one.png").size == (20, 14)
    assert infer(*go_on) == (0, [], ["3 of 3 exist already, skipped"])
    assert infer("in/a.png", "--skip-existing") == (0, [], ["1 of 1 exist already, skipped"])
    assert infer(*go_on, "--output", "new") == (0, ["3 stylized, 0 skipped"], [])
    status, _, err = infer(*go_on, "--overwrite")
    assert status == 2 and err[0].startswith("impasto infer: --overwrite and --skip-existing: ")


def test_a_photo_is_never_written_over(infer):
    a, b = photo("a.png"), photo("b_one.png")
    photo("b.png")
    Path("link.png").symlink_to("a.png")
    Path("hard.png").hardlink_to("a.png")
    before = a.read_bytes(), b.read_bytes()
    for output in ("a.png", "./a.png", "link.png", "hard.png"):
        status, _, err = infer(a, "--output", output, "--overwrite")
        assert status == 2 and "is a picture given, never written over" in err[0]
    status, _, err = infer("b.png", a, b, "--output", ".", "--overwrite")
    assert status == 2 and err[0].startswith("impasto infer: b_one.png: is a picture given")
    assert (a.read_bytes(), b.read_bytes()) == before and Path("link.png").is_symlink()


REFUSED = [
    (["missing.jpg"], "missing.jpg: no such file or folder"),
    (["https://a.org/b.jpg"], "https://a.org/b.jpg: an address; download it, and give the file or folder"),
    (["a.png", "missing.jpg"], "missing.jpg: no such file or folder"),
    (
        ["a.png", "b.png", "--output", "both.png"],
        "--output both.png: names one image, and there are 2 photos; name a folder",
    ),
    (["none/*.jpg"], "none/*.jpg: no images found; they end in .jpg, .jpeg, .png"),
    (["empty"], "empty: no images found"),
    ([], "no photos given: name files, folders or a pattern"),
    (["a.png", "--style", "wav"], "style 'wav' is unknown: did you mean wave?"),
    (
        ["a.png", "--style", "starry_night=0.5,wave"],
        "style 'starry_night=0.5,wave': give a weight to every style, or to none",
    ),
    (["a.png", "--strength", "2"], "strength 2.0: must be from 0"),
    (["a.png", "--strength", "-1"], "strength -1.0: must be from 0"),
    (["a.png", "--strength", "much"], "strength much: must be from 0 (the photo) to 1 (fully stylized), auto, or"),
    (["a.png", "--size", "1.5"], "--size 1.5: must be a whole number of pixels"),
    (["a.png", "--size", "-3"], "size -3: the longer side must be at least 1 pixel"),
    (["a.png", "--size"], "argument --size: expected one argument"),
    (["a.png", "--tile", "small"], "--tile small: must be auto, never or a whole number of pixels"),
    (["a.png", "--tile", "1.5"], "--tile 1.5: must be auto, never or a whole number of pixels"),
    (["a.png", "--tile", "100"], "tile 100: must be auto, never, or a side of at least 112 pixels (this network"),
    (["a.png", "--keep_colors=maybe"], "--keep_colors maybe: must be true or false"),
    (["a.png", "--stile=wave"], "unrecognized arguments: --stile=wave"),
    (["a.png", "--device", "gpu"], "device 'gpu': must be auto, cpu, cuda, cuda:N or mps"),
    (["a.png", "--output", "new.gif"], "--output new.gif: cannot be written; name it .png, .jpg, .jpeg"),
    (["a.png", "--output", "new.heic"], "--output new.heic: cannot be written; name it .png, .jpg, .jpeg"),
    (["a.png", "b.png", "--output", "new.xyz"], "--output new.xyz: cannot be written; name it .png, .jpg, .jpeg"),
    (["a.png", "--output", "file/new"], "--output: file/new cannot be written (Not a directory)"),
    (["a.png", "--output", "file"], "--output: file cannot be written (a file has that name)"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_mistakes_are_refused_in_a_line_before_any_work(infer, monkeypatch, arguments, message):
    photo("a.png"), photo("b.png")
    Path("empty").mkdir()
    Path("file").touch()
    monkeypatch.setattr(Stylizer, "stylize", lambda *_: pytest.fail("work was begun"))
    status, out, err = infer(*arguments)
    assert (status, out, len(err)) == (2, [], 1)
    assert err[0].startswith(f"impasto infer: {message}")


def test_networks_that_cannot_be_used(infer):
    photo("a.png")
    status, _, err = infer("a.png", network="nothing")
    assert status == 2 and err[0].startswith("impasto infer: network 'nothing': neither a file nor a published")
    status, _, err = infer("a.png", network="https://a.org/b.onnx")
    assert status == 2 and err[0].startswith("impasto infer: https://a.org/b.onnx: an address; download it")
    status, _, err = infer("a.png", network="a.png")
    assert status == 2 and len(err) == 1 and "a.png: damaged, or not a network" in err[0]
    status, _, err = infer("a.png", network="two.safetensors")
    assert status == 2 and err == [
        "impasto infer: this network has 2 styles, choose one or a mixture: starry_night, wave"
    ]


def test_a_style_is_looked_up_in_the_published_networks(infer, folder):
    photo("a.png")
    (folder / "checkpoints").mkdir()
    for name in ("one", "two"):
        (folder / "checkpoints" / f"{name}.safetensors").write_bytes((folder / f"{name}.safetensors").read_bytes())
    quick = TransformNet(1, 4, 0, patch=4, kernel=3)  # for real time: taken only when it is named
    save_network(folder / "checkpoints" / "a_quick.safetensors", quick, styles=[{"name": "wave"}])
    status, out, err = infer("a.png", "--style", "wave", network="")  # all know it
    assert status == 0 and out[0].startswith("stylized/a_one.png") and err == ["network: one; --network names another"]
    status, out, err = infer("a.png", "--style", "starry_night", network="")
    assert status == 0 and out[0].startswith("stylized/a_two_starry_night.png")
    assert err == ["network: two; --network names another"]
    status, _, err = infer("a.png", "--style", "wavy", network="")
    assert status == 2 and err == [
        "impasto infer: style 'wavy' is unknown: did you mean wave? published are starry_night, wave"
    ]
    status, _, err = infer("a.png", "--style", "starry_night", network="one")
    assert status == 2 and err[0].endswith("this network knows wave; two would know it")
    status, out, _ = infer("a.png", "--style", "wave", network="a_quick")
    assert status == 0 and out[0].startswith("stylized/a_a_quick.png")
    status, _, err = infer("a.png", network="twos")
    assert status == 2 and err[0].startswith("impasto infer: network 'twos': did you mean two? neither a file nor")


def test_the_default_network(infer, folder):
    photo("a.png")
    status, _, err = infer("a.png", network="")
    assert status == 2 and "--network is missing" in err[0] and "(none yet)" in err[0]
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    one = (folder / "one.safetensors").read_bytes()
    for published, chosen in (("wave", "wave"), ("scream", None), ("starry_night", "starry_night")):
        (checkpoints / f"{published}.safetensors").write_bytes(one)
        status, out, err = infer("a.png", network="")
        assert (out[0].startswith(f"stylized/a_{chosen}.png") and status == 0) if chosen else status == 2
        assert chosen or "published network (scream, wave)" in err[0]


def test_a_style_given_as_a_file_or_among_the_photos_is_told_of(infer):
    a, painting = photo("a.png"), photo("my_painting.png")
    optimize = "`impasto optimize a.png my_painting.png` paints the first like the second"
    assert infer(a, painting) == (0, ["2 stylized, 0 skipped"], [f"both are stylized as photos; {optimize}"])
    assert infer(painting, a, "--overwrite")[2] == []
    status, _, err = infer(a, "--style", "my_painting.png")
    assert status == 2 and "is painted with `impasto optimize PHOTO my_painting.png`, or learned" in err[0]
    status, _, err = infer(a, "wave")
    assert status == 2 and err == ["impasto infer: wave: no such file or folder; a style is named with --style wave"]


@pytest.mark.parametrize("flag", ["--list_styles", "--list-styles"])
def test_listing_styles_needs_no_photo(infer, flag):
    assert infer(flag, network="two.safetensors") == (
        0,
        ["starry_night  The Starry Night  Vincent van Gogh  1889", "wave          The Great Wave    Hokusai"],
        [],
    )


def test_an_interruption_says_how_many_are_done(infer, monkeypatch):
    photos = [photo(f"{name}.png") for name in "abc"]
    stylize = Stylizer.stylize

    def interrupted(self, picture):
        if results():
            raise KeyboardInterrupt
        return stylize(self, picture)

    monkeypatch.setattr(Stylizer, "stylize", interrupted)
    assert infer(*photos) == (130, [], ["interrupted: 1 of 3 stylized"])
    assert results() == ["a_one.png"]
    monkeypatch.setattr("impasto.networks.find_network", lambda path: interrupted(path, path))
    assert infer(*photos) == (130, [], ["impasto infer: interrupted"])


def test_a_photo_goes_through_a_pipe(infer, folder):
    data = photo("a.png").read_bytes()
    line = [sys.executable, "-m", "impasto", "infer", "-n", "one.safetensors", "-", "-o"]
    done = subprocess.run([*line, "-"], input=data, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert infer("a.png", "-o", "whole.png")[0] == 0
    assert Image.open(io.BytesIO(done.stdout)).tobytes() == Image.open("whole.png").tobytes()
    done = subprocess.run([*line, "out"], input=data, capture_output=True)
    assert done.returncode == 0 and results("out") == ["stdin_one.png"]
    done = subprocess.run([*line, "-"], input=b"no picture", capture_output=True, text=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"impasto infer: standard input: no image that can be read")


def test_standard_output_takes_one_picture_and_no_terminal(infer, monkeypatch):
    a, b = photo("a.png"), photo("b.png")
    status, _, err = infer(a, b, "--output", "-")
    assert status == 2 and err == ["impasto infer: --output -: is one image, and there are 2 photos; name a folder"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    status, out, err = infer(a, "--output", "-")
    assert status == 2 and out == [] and err[0].startswith("impasto infer: --output -: is a terminal")


def test_listing_networks(infer, folder):
    (folder / "checkpoints").mkdir()
    for name in ("one", "two"):
        (folder / "checkpoints" / f"{name}.safetensors").write_bytes((folder / f"{name}.safetensors").read_bytes())
    assert infer("--list-networks") == (0, ["one  wave", "two  starry_night, wave"], [])


def test_progress_is_shown_on_a_terminal_for_more_than_one(infer, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    a, b = photo("a.png"), photo("b.png")
    assert infer(a)[2] == []
    assert "stylizing" in "".join(infer(a, b, "--overwrite")[2])


# Tiles

TILED = ["--tile", "112"]  # the least for networks of one block: 56 pixels of each are kept
LARGE = (260, 200)


def hidden() -> list[str]:
    return [str(path) for path in Path().rglob(".impasto-*")]


def at_tile(monkeypatch, number: int, error: BaseException) -> None:
    """The network raises the error where the tile of that number is to be painted."""
    forward, calls = TransformNet.forward, []

    def failing(self, *given, **more):
        calls.append(given)
        if len(calls) > number:  # the first call measures the statistics
            raise error
        return forward(self, *given, **more)

    monkeypatch.setattr(TransformNet, "forward", failing)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp"])
def test_tiles_make_the_file_that_the_whole_makes(infer, suffix, mode):
    given = photo("a.png", LARGE, mode)
    status, out, err = infer(given, "--output", f"tiled.{suffix}", *TILED)
    assert (status, err, hidden()) == (0, [], []) and out[0].startswith(f"tiled.{suffix}  260×200, ")
    assert infer(given, "--output", f"whole.{suffix}", "--tile", "never")[0] == 0
    with Image.open(f"tiled.{suffix}") as tiled, Image.open(f"whole.{suffix}") as whole:
        assert (tiled.mode, tiled.format, tiled.size) == (whole.mode, whole.format, LARGE)
        difference = np.abs(np.asarray(tiled).astype(int) - np.asarray(whole))
    assert difference.mean() < 0.3 and (suffix in ("jpg", "webp") or difference.max() <= 1)


def test_options_reach_the_tiles(infer):
    given = photo("a.png", LARGE)
    options = ["--style", "wave", "--strength=0.5", "--keep-colors", "--size", 220]
    assert infer(*options, given, *TILED, network="two.safetensors")[0] == 0
    bound = {"style": "wave", "strength": 0.5, "keep_colors": True, "size": 220, "tile": "never"}
    expected = Stylizer("two.safetensors", device="cpu", **bound).stylize(read_image(given)).pixels
    written = read_image("stylized/a_two_wave_strength-0.5_colors-kept_220px_tile-112.png").pixels
    assert written.shape == expected.shape and (written - expected).abs().mean() < 1 / 255


def test_auto_takes_what_is_a_bomb_to_the_whole(infer, monkeypatch):
    given = photo("a.png", LARGE)
    monkeypatch.setattr("impasto.inference.tiles.LARGEST_WHOLE", 200 * 200)
    monkeypatch.setattr("impasto.inference.tiles.AUTO_SIDE", 112)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    bomb = "impasto infer: a.png: more than {} pixels, refused as a decompression bomb: scale it down"
    assert infer(given, "--tile", "never") == (2, [], [bomb.format("20,000")])
    status, out, _ = infer(given)
    assert status == 0 and out[0].startswith("stylized/a_one.png  260×200, ")
    monkeypatch.setattr("impasto.inference.LARGEST", 50_000)
    assert infer(given, "--output", "b.png") == (2, [], [bomb.format("50,000")])


@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_an_interruption_among_tiles_leaves_no_half_file(infer, monkeypatch, suffix):
    given, output = photo("a.png", LARGE), Path(f"out/result.{suffix}")
    output.parent.mkdir()
    output.write_bytes(b"earlier")
    at_tile(monkeypatch, 5, KeyboardInterrupt())
    options = ["--output", output, "--overwrite", *TILED]
    assert infer(given, *options) == (130, [], ["interrupted: 0 of 1 stylized"])
    assert results("out") == [output.name] and output.read_bytes() == b"earlier"


def test_a_failure_among_tiles_is_a_line_and_leaves_nothing(infer, monkeypatch):
    given = photo("a.png", LARGE)
    at_tile(monkeypatch, 5, MemoryError())
    status, out, err = infer(given, "--tile", "128")
    assert (status, out) == (2, []) and results() == []
    assert err == [
        "impasto infer: 260×200 pixels, longer side 260: does not fit in the memory of cpu; "
        "paint smaller tiles, such as --tile 112"
    ]


def test_sigterm_leaves_no_half_file(infer, monkeypatch):
    given = photo("a.png", LARGE)
    forward = TransformNet.forward

    def ended(*arguments: object, **options: object) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGTERM)
        return forward(*arguments, **options)

    monkeypatch.setattr(TransformNet, "forward", ended)
    assert infer(given, *TILED) == (143, [], ["interrupted: 0 of 1 stylized"])
    assert not Path("stylized").exists()


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("a.webp", ["--size", "16400"], "16400×1 pixels, WEBP holds 16383 a side: use .png or .tif"),
        ("a.webp", ["--size", "16400", "--tile", "512"], "16400×1 pixels, WEBP holds 16383 a side: use .png or .tif"),
        ("a.jpg", ["--size", "70000", "--tile", "never"], "70000×4 pixels, JPEG holds 65500 a side: use .png or .tif"),
        ("a.png", [], "the disk is full (it takes 0.0 MB at least, 0.0 MB are free there): make room"),
    ],
)
def test_what_cannot_be_written_is_refused_before_it_is_painted(infer, monkeypatch, output, options, message):
    monkeypatch.setattr(Stylizer, "_blended", lambda *_: pytest.fail("work was begun"))
    monkeypatch.setattr(TorchPainter, "statistics", lambda *_: pytest.fail("work was begun"))
    if "disk" in message:
        monkeypatch.setattr(writing.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    status, out, err = infer(photo("wide.png", (20_000, 1)), "--output", f"new/{output}", *options)
    assert (status, out) == (2, []) and err[-1].startswith(f"impasto infer: new/{output}: {message}")
    assert not Path("new").exists()


def test_a_photo_is_never_written_over_by_tiles_either(infer):
    given = photo("a.png", LARGE)
    before = given.read_bytes()
    status, _, err = infer(given, "--output", "a.png", "--overwrite", *TILED)
    assert status == 2 and "is a picture given, never written over" in err[0] and given.read_bytes() == before
    assert infer(given, *TILED)[0] == 0
    assert infer(given, *TILED) == (
        2,
        [],
        [
            "impasto infer: a.png: stylized/a_one_tile-112.png exists already; "
            "--overwrite replaces it, --skip-existing leaves it"
        ],
    )


def test_a_large_photo_has_a_bar_of_its_own(infer, monkeypatch):
    given, small = photo("large.png", LARGE), photo("b.png")
    assert infer(given, "--output", "quiet.png", *TILED)[2] == []
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    assert "painting large.png" in "".join(infer(given, *TILED)[2])
    both = "".join(infer(given, small, "--output", "both", *TILED)[2])
    assert "painting large.png" in both and "stylizing" in both


def test_a_pipe_is_read_once(infer, folder):
    os.mkfifo("pipe.png")
    data = photo("a.png").read_bytes()
    writer = threading.Thread(target=lambda: Path("pipe.png").write_bytes(data))
    writer.start()
    status = infer("pipe.png", "--output", "result.png")[0]
    writer.join()
    assert status == 0 and Image.open("result.png").size == (20, 14)
