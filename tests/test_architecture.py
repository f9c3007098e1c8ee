"""The import table of the design: layers import downwards only, heavy libraries live in the modules named."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "impasto"
LAYERS = {
    "choices": 0, "shipped": 0, "spelling": 0, "kernels": 0, "writing": 0,
    "images": 1,
    "video": 2,
    "perceptual": 3, "data": 3,
    "networks": 4,
    "training": 5, "reference": 5, "inference": 5,
    "reference_video": 6, "benchmark": 6, "export": 6, "demo": 6,
    "evaluation": 7,
    "commands": 8, "__main__": 9,
}  # fmt: skip
HEAVY = {
    "pytorch_lightning": {
        "data/modules.py",
        "training/module.py",
        "training/callbacks.py",
        "training/checkpoints.py",
        "training/schedule.py",
        "training/distillation.py",
        "benchmark/optimizers.py",
        "commands/training.py",
        "commands/run_checks.py",
        "commands/train_any.py",
        "commands/train.py",
    },
    "datasets": {"data/sources.py"},
    "av": {"video/pyav.py"},
    "cv2": {"video/motion.py"},
    "onnx": {"export/graphs.py", "export/quantized.py", "inference/frozen.py"},
    "onnxruntime": {"export/quantized.py", "inference/backends.py"},
    "tkinter": {"commands/window.py"},
    "pillow_heif": {"images/heif.py"},
    "matplotlib": {"evaluation/plots.py"},
    "torchvision": set(),
    "torchmetrics": {"evaluation/metrics.py"},
    "jsonargparse": {"commands/arguments.py"},
}
IMAGES_MAY_IMPORT = {"torch", "numpy", "PIL", "jaxtyping", "impasto"}  # of impasto, what LAYERS lets it
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
        assert LAYERS[there] < LAYERS[here], f"{here} imports {there}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_heavy_libraries_stay_where_they_belong(file: Path) -> None:
    name = str(file.relative_to(SOURCE))
    for library in {module.split(".")[0] for module in imports(file)}:
        assert library not in HEAVY or name in HEAVY[library], f"{name} imports {library}"


# Besides: rows that are added to a table, a lock, a switch of Linux, and what lies in a temporary folder.
WRITERS = {
    "writing.py", "training/callbacks.py", "training/checkpoints.py", "benchmark/measure.py", "demo/runtime.py",
    "export/__init__.py",
}  # fmt: skip


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


@pytest.mark.parametrize("name", ["__init__", "errors", "picture", "reading", "saving", "scaling", "samples", "colors",
                                  "cicp", "recoloring", "transparency"])  # fmt: skip
def test_images_needs_little(name: str) -> None:
    import sys

    imported = imports(SOURCE / "images" / f"{name}.py")
    libraries = {module.split(".")[0] for module in imported} - set(sys.stdlib_module_names)
    assert libraries <= IMAGES_MAY_IMPORT


def test_no_cycle() -> None:
    names = {file: ".".join(file.relative_to(SOURCE.parent).with_suffix("").parts) for file in FILES}
    graph = {name.removesuffix(".__init__"): imports(file) for file, name in names.items()}
    del graph["impasto"]  # public names, loaded when asked for
    graph = {name: (found & set(graph)) - {name} for name, found in graph.items()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError
