"""Fixtures and order of the tests.

While the tests run, and only then, jaxtyping checks the shapes in the types of public functions.
"""

import fcntl
import gc
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from impasto.networks import TransformNet

install_import_hook("impasto", "beartype.beartype")

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("IMPASTO_SHARED", Path(__file__).parents[2] / "shared"))

# Files that take most of the time, the longest first.
LONG = ("test_export", "test_readme", "test_runs", "test_many_machines", "test_training", "test_any_painting",
        "test_demo_page", "test_optimization", "test_configs", "test_streams", "test_adain", "test_benchmark",
        "test_reference_video", "test_evaluate_command", "test_video_command", "test_infer_command", "test_clips_out",
        "test_modules", "test_steady", "test_stream_checkpoints", "test_scripts", "test_losses")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long files first, so that processes that share the files end at about the same time."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


def pytest_collection_finish() -> None:
    """Python's search for unreachable objects leaves out what was imported, which stays: it takes time at every one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data beside the checkout: photos, paintings, VGG16's weights.

    Tests that use it are skipped where it is missing.
    """
    if not (SHARED / "weights").is_dir():
        pytest.skip(f"needs the development data, which is not at {SHARED} (set IMPASTO_SHARED)")
    return SHARED


EXPORT_GALLERY = "python scripts/export_onnx.py checkpoints/gallery.safetensors --pixels uint8 --output gallery.onnx"


@pytest.fixture(scope="session")
def gallery_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published gallery as the README exports it: by the first process of the tests that asks, for all."""
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    pytest.importorskip("onnxscript", reason="the export extra is not installed")
    place = tmp_path_factory.getbasetemp()
    place = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "gallery"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "gallery.onnx").exists():
            for name in ("scripts", "checkpoints"):
                (place / name).symlink_to(ROOT / name)
            command = [sys.executable, *shlex.split(EXPORT_GALLERY)[1:]]
            done = subprocess.run(command, cwd=place, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    return place / "gallery.onnx"


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed torch before every test, so that a failure can be reproduced."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def network() -> "TransformNet":
    """A small network whose γ and β are random, so that each pixel depends on its surroundings."""
    from impasto.networks import TransformNet  # after the import hook

    torch.manual_seed(0)
    network = TransformNet(1, width=4, residual_blocks=1)
    for name, parameter in network.named_parameters():
        if name.endswith(("gamma", "beta")):
            torch.nn.init.normal_(parameter)
    return network
