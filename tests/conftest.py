"""Fixtures and order of the tests.

While the tests run, and only then, jaxtyping checks the shapes in the types of public functions.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from impasto.networks import TransformNet

install_import_hook("impasto", "beartype.beartype")

SHARED = Path(os.environ.get("IMPASTO_SHARED", Path(__file__).parents[2] / "shared"))

# Files that take minutes, the longest first.
LONG = ("test_many_machines", "test_readme", "test_runs", "test_training", "test_export",
        "test_benchmark", "test_configs", "test_stream_checkpoints", "test_demo_page")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long files first, so that processes that share the files end at about the same time."""
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data beside the checkout: photos, paintings, VGG16's weights.

    Tests that use it are skipped where it is missing.
    """
    if not (SHARED / "weights").is_dir():
        pytest.skip(f"needs the development data, which is not at {SHARED} (set IMPASTO_SHARED)")
    return SHARED


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
