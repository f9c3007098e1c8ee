"""Scripts and the console command are thin doors to the same commands, and start without what they do not need."""

import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir
from importlib import metadata
from pathlib import Path

import pytest
import torch
from pictures import save

from impasto.commands import COMMANDS, TRAINING, main
from impasto.commands.training_help import EXAMPLES, answered
from impasto.networks import TransformNet, save_network
from impasto.shipped import with_shipped_configs

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
CONSOLE = Path(sys.executable).parent / "impasto"
TELLS_WHAT_IT_IMPORTED = """
import sys
from impasto.commands import main

try:
    status = main(sys.argv[1:])
except SystemExit as stop:
    status = stop.code or 0
print(status, sorted({"torch", "numpy", "PIL", "rich"} & {*sys.modules}), file=sys.stderr)
"""

RUNS_IN_TURN = """
import sys
from impasto.commands import main

for line in sys.argv[1:]:
    print(main(line.split()), file=sys.stderr)
"""


def call(*arguments: str | Path, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100", **variables}
    encoding = variables.get("PYTHONIOENCODING", "utf-8").partition(":")[0]
    return subprocess.run([*map(str, arguments)], env=environment, capture_output=True, encoding=encoding, cwd=cwd)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_are_thin(script: Path) -> None:
    assert len(script.read_text().splitlines()) <= 15
    assert script.stem.removesuffix("_onnx").replace("_", "-") in COMMANDS


@pytest.mark.parametrize(("command", "said"), [("train", "fit"), ("infer", "--network"), ("demo", "--port")])
def test_script_and_console_command_show_the_same_help(command: str, said: str) -> None:
    by_script, by_console = (
        call(sys.executable, ROOT / "scripts" / f"{command}.py", "--help"),
        call(CONSOLE, command, "--help"),
    )
    assert by_script.returncode == by_console.returncode == 0, by_script.stderr + by_console.stderr
    assert said in by_script.stdout
    assert by_script.stdout.split("\n\n", 1)[1] == by_console.stdout.split("\n\n", 1)[1]


def test_console_command_lists_its_commands() -> None:
    helped, lost = call(CONSOLE, "--help"), call(CONSOLE, "paint")
    assert (helped.returncode, lost.returncode) == (0, 2)
    assert all(name in helped.stdout and name in lost.stderr for name in COMMANDS)


def test_the_package_runs_as_a_module_and_knows_its_version(capsys: pytest.CaptureFixture) -> None:
    told = call(sys.executable, "-m", "impasto", "--version")
    assert told.returncode == 0 and told.stdout == f"impasto {metadata.version('impasto')}\n"
    assert main(["infr", "photo.jpg"]) == 2
    assert capsys.readouterr().err.startswith("impasto infr: no such command; did you mean infer?\nusage: impasto ")


@pytest.mark.parametrize("command", TRAINING)
def test_training_help_has_every_option_of_ours_with_its_default(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The help that needs no Lightning against that of Lightning's parser."""
    at_once = call(sys.executable, "-m", "impasto", command, "fit", "--help").stdout
    told = dict(re.findall(r"^  (?:-., )?(--\S+)(.*?)(?=^\S|^  -|\Z)", at_once, re.MULTILINE | re.DOTALL))
    monkeypatch.setenv("COLUMNS", "100")  # as `call` does
    with pytest.raises(SystemExit):
        main([command, "fit", "--help-all"])  # in this process: Lightning takes seconds to import
    whole = capsys.readouterr().out
    ours, _, lightnings = whole.partition("  --trainer CONFIG")
    entries = re.findall(r"^  (?:-., )?(--[\w.]+)(.*?)(?=^\S|^  -|\Z)", ours, re.MULTILINE | re.DOTALL)
    entries = [(name, " ".join(text.split())) for name, text in entries if not text.startswith(" CONFIG  ")]
    assert len(entries) > 25 and "--trainer.devices" in lightnings
    for name, text in entries:
        if name.endswith(".help"):
            continue
        shown = [option for option in told if option == name or re.match(rf"{re.escape(name)}\.[A-Z]+$", option)]
        assert shown, name
        default = re.search(r"(?s:.*), default: (.*)\)$", text)
        if default and default[1] != "null" and "{" not in default[1]:
            assert f"[{default[1]}]" in " ".join(told[shown[0]].split()), name
    for text in (at_once, whole):
        assert " ".join(text.split()).endswith(f"Example: {EXAMPLES[command]}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no task is given (fit: train, or resume;"),
        (["fti"], "no task is given: fti, did you mean fit? ("),
        (
            ["fit", "--model.styles", "a.jpg"],
            "--model.styles a.jpg: give the painting a name, such as --model",
        ),
        (["fit", "--data.crops", "256"], "--data.crops: no such option; did you mean --data.crop? (--help lists"),
        (["fit", "--ckpt-path=last"], "--ckpt-path: no such option; did you mean --ckpt_path?"),
        (["fit", "--model.los.network=vgg16"], "--model.los.network: no such option; did you mean --model.loss.netw"),
        (["fit", "--data.batch_size", "many"], "--data.batch_size many: must be a whole number (--help lists the opt"),
        (["fit", "--model.learning_rate=fast"], "--model.learning_rate fast: must be a number (--help lists"),
        (["fit", "--minutes", "soon"], "--minutes soon: must be a number (--help lists"),
    ],
)
def test_mistakes_in_training_options_are_told_at_once(arguments: list[str], message: str) -> None:
    done = call(sys.executable, "-c", TELLS_WHAT_IT_IMPORTED, "train", *arguments)
    assert done.stderr.startswith(f"impasto train: {message}") and done.stderr.endswith("2 []\n"), done.stderr


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "infer photo.jpg --stlye x",
            "unrecognized arguments: --stlye x; did you mean --style? `impasto infer",
        ),
        ("export gallery --pixel uint8", "did you mean --pixels? `impasto export --help` lists the options"),
        ("infer udnie=0.5", "udnie=0.5: no such file or folder; a mixture is one word: --style udnie=0.5,great_wave"),
        (
            "evaluate p.jpg --paintings a.jpg --balance_photos p",
            "--paintings a.jpg: must have a name, as in --pain",
        ),
        ("benchmark --photos nope", "nope: no such folder"),
        ("infer pyproject.toml --style wave", "style 'wave' is unknown: did you mean great_wave? published are"),
        ("infer pyproject.toml --style 'The Great Wave'", "did you mean great_wave? published are"),
    ],
)
def test_mistakes_name_what_was_meant(command: str, message: str, capsys: pytest.CaptureFixture) -> None:
    with chdir(ROOT):
        assert main(shlex.split(command)) == 2
    assert message in capsys.readouterr().err


def test_shipped_configs_are_found_from_any_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").touch()
    with chdir(tmp_path):
        given = ["fit", "-c", "configs/cpu.yaml", "--config=mine.yaml", "--config=configs/none.yaml"]
        assert with_shipped_configs(given) == ["fit", "-c", str(ROOT / "configs" / "cpu.yaml"), *given[3:]]
    with chdir(ROOT):
        assert with_shipped_configs(given)[2] == "configs/cpu.yaml"


def test_options_of_lightning_and_parts_of_options_are_let_through() -> None:
    given = "fit -c a.yaml --trainer.devices=2 --model.styles.wave w.jpg --model.styles={} --model.styles.wave.artist X"
    given += " --model.loss loss.yaml --model.loss.style_layers.relu1_1 2 --data.photos+=b --print_config=skip_unset"
    given += " --data.crop=256 --model.learning_rate 1e-3 --model.canvas=null --trainer.max_steps=-1 --minutes .5"
    given += " --seed_everything true --model.warmup_steps 1_000"
    assert not answered("train", given.split())


@pytest.mark.parametrize("module", ["impasto", "impasto.inference", "impasto.commands.painting"])
def test_inference_starts_without_lightning_and_datasets(module: str) -> None:
    heavy = {"pytorch_lightning", "lightning", "datasets", "tensorboard", "torchmetrics", "onnxruntime", "torchvision"}
    done = call(sys.executable, "-c", f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        *(([command, "--help"], 0) for command in COMMANDS),
        *(([command, "--stile=wave"], 2) for command in COMMANDS),
        (["infer", "missing.jpg"], 2),
        (["infer", "empty"], 2),
        (["infer", "photo.jpg", "--strength=much"], 2),
        (["--version"], 0),
        (["infr"], 2),
    ],
    ids=str,
)
def test_help_and_mistakes_answer_without_torch(arguments: list[str], status: int, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = call(sys.executable, "-c", TELLS_WHAT_IT_IMPORTED, *arguments, cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == f"{status} []", done.stderr


def test_public_names_are_there() -> None:
    import impasto

    assert impasto.__version__ == metadata.version("impasto")
    for name in impasto.__all__:
        assert getattr(impasto, name)
    with pytest.raises(AttributeError, match="no attribute 'Styliser'"):
        impasto.Styliser  # noqa: B018


@pytest.mark.parametrize("encoding", ["ascii", "cp1251:strict", "cp1252"])
def test_no_line_fails_for_its_encoding(encoding: str, tmp_path: Path) -> None:
    """A log in an old encoding: the picture is written and told of, whatever its name; so is a mistake, and help."""
    torch.manual_seed(0)
    save_network(tmp_path / "one.safetensors", TransformNet(1, width=4, residual_blocks=0))
    for name in ("写真.png", "b.png"):
        save(tmp_path / name, 1, height=16, width=16)
    infer = "infer --network one.safetensors 写真.png"
    done = call(sys.executable, "-c", RUNS_IN_TURN, infer, f"{infer} b.png", cwd=tmp_path, PYTHONIOENCODING=encoding)
    first, *skipped, second = done.stderr.splitlines()
    assert (first, second) == ("0", "1") and len(skipped) == 1, done.stderr
    assert skipped[0].startswith("skipped \\u5199\\u771f.png: stylized/")
    times = "×" if encoding == "cp1252" else "\\xd7"
    assert done.stdout.startswith(f"stylized/\\u5199\\u771f_one.png  16{times}16, ")
    assert done.stdout.splitlines()[1:] == ["1 stylized, 1 skipped"]
    assert (tmp_path / "stylized" / "写真_one.png").exists() and (tmp_path / "stylized" / "b_one.png").exists()


@pytest.mark.parametrize("command", [*COMMANDS, "train fit", ""])
def test_help_is_printed_in_any_encoding(command: str) -> None:
    done = call(sys.executable, "-m", "impasto", *command.split(), "--help", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "impasto" in done.stdout, done.stderr
