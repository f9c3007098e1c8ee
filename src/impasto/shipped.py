"""Files that come with the package (configs, published networks), and its commit."""

import subprocess
from pathlib import Path

_HERE = Path(__file__).parent
_ROOTS = (_HERE.parents[1], _HERE)  # folders of these files in a checkout, in an installed wheel
CONFIGS = [root / "configs" for root in _ROOTS]
CHECKPOINTS = [root / "checkpoints" for root in _ROOTS]
COMPACT_FILE = "compact.safetensors"  # a loss network in `checkpoints`; it cannot stylize


def shipped_config(name: str) -> list[str]:
    """Return the path of a config of this project in a list, or an empty list if it is missing.

    The list is meant for jsonargparse's `default_config_files`.
    """
    return [str(folder / name) for folder in CONFIGS if (folder / name).exists()][:1]


def commit() -> str:
    """Return the commit of the source in use, with a + if it has changes; "" outside a checkout."""
    root = _ROOTS[0]
    # An installed package may lie inside another project's repository.
    if not (root / ".git").exists():
        return ""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
