"""The import table of the design: layers import downwards only, heavy libraries live in the modules named."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "impasto"
LAYERS = {
    "writing": -1,  # below all
    "samples": 0, "colors": 0, "folders": 0, "heif": 0, "transparency": 0,
    "vgg": 0, "optimizer": 0, "schedule": 0, "paintings": 0, "spelling": 0,
    "images": 1, "features": 1, "targets": 1,
    "scanlines": 2, "sheets": 2, "jobs": 2, "video": 2,
    "networks": 2, "losses": 2, "data": 2,
    "training": 3, "callbacks": 3, "runs": 3, "optimization": 3, "inference": 3,
    "export": 4, "evaluation": 4, "distillation": 4, "demo": 4,
    "arguments": 5, "cli": 5, "training_cli": 5, "inference_cli": 5, "optimization_cli": 5,
    "evaluation_cli": 5, "export_cli": 5, "__main__": 6,
}  # fmt: skip
APART = {("data", "training"), ("training", "data"), ("data", "callbacks"), ("callbacks", "data")}
HEAVY = {
    "pytorch_lightning": {
        "data/modules.py",
        "training.py",
        "callbacks.py",
        "runs.py",
        "schedule.py",
        "distillation.py",
        "evaluation/photos_needed.py",
        "training_cli.py",
    },
    "datasets": {"data/sources.py"},
    "av": {"video.py"},
    "onnx": {"export/graphs.py", "export/quantized.py"},
    "onnxruntime": {"export/quantized.py", "inference/backends.py"},
    "pillow_heif": {"heif.py"},
    "matplotlib": {"evaluation/plots.py"},
    "torchvision": {"vgg.py"},
    "torchmetrics": {"evaluation/metrics.py", "training.py"},
    "jsonargparse": {"arguments.py", "training_cli.py", "optimization_cli.py"},
}
IMAGES_MAY_IMPORT = {"torch", "numpy", "PIL", "jaxtyping", "impasto"}
FILES = sorted(SOURCE.rglob("*.py"))


def imports(file: Path) -> set[str]:
    """Every module a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str:
    """The module of the table a dotted name or a path belongs to."""
    return module.split(".")[1] if module.count(".") else ""


def test_the_table_finds_files() -> None:
    assert len(FILES) > 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_down(file: Path) -> None:
    here = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    if here == "__init__":  # public names, loaded when asked for
        return
    assert here in LAYERS, f"{here} is not in the table of the design"
    for there in {room(name) for name in imports(file) if name.startswith("impasto.")} - {here, ""}:
        assert LAYERS[there] < LAYERS[here] or LAYERS[there] == LAYERS[here] == 5, f"{here} imports {there}"
        assert (here, there) not in APART, f"{here} and {there} meet in the batch, not in an import"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_heavy_libraries_stay_where_they_belong(file: Path) -> None:
    name = str(file.relative_to(SOURCE))
    for library in {module.split(".")[0] for module in imports(file)}:
        assert library not in HEAVY or name in HEAVY[library], f"{name} imports {library}"


# Besides: rows that are added to a table, a lock, a switch of Linux, and what lies in a temporary folder.
WRITERS = {"writing.py", "callbacks.py", "runs.py", "evaluation/measure.py", "demo/runtime.py", "export/__init__.py"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_files_are_written_in_one_place(file: Path) -> None:
    """Whole or not at all: by `writing`."""
    if str(file.relative_to(SOURCE)) in WRITERS:
        return
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name, modes = node.func.attr, [value.value for value in node.args if isinstance(value, ast.Constant)]
            assert name not in ("write_text", "write_bytes", "rename"), f"{file}:{node.lineno}"
            assert name != "open" or not any(str(mode)[:1] in "wxa" for mode in modes), f"{file}:{node.lineno}"


@pytest.mark.parametrize("name", ["images", "samples", "colors", "folders", "transparency"])
def test_images_needs_little(name: str) -> None:
    import sys

    libraries = {module.split(".")[0] for module in imports(SOURCE / f"{name}.py")} - set(sys.stdlib_module_names)
    assert libraries <= IMAGES_MAY_IMPORT | {"impasto"}


def test_no_cycle() -> None:
    names = {file: ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts) for file in FILES}
    graph = {name.removesuffix(".__init__"): imports(file) for file, name in names.items()}
    del graph["impasto"]  # public names, loaded when asked for
    graph = {name: (found & set(graph)) - {name} for name, found in graph.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError
