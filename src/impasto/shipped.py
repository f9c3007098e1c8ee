"""Files that come with the package (configs, published networks), and its commit."""

import subprocess
from collections.abc import Sequence
from itertools import pairwise
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


def with_shipped_configs(arguments: Sequence[str]) -> list[str]:
    """Return a command line in which configs of this project are found from any folder.

    `--config configs/cpu.yaml` means the file in the current folder. If there is none, it means
    the one that comes with the package.
    """
    found = []
    for before, word in pairwise(["", *arguments]):
        option, _, value = word.rpartition("=")
        if option == "--config" or before in ("-c", "--config"):
            shipped = shipped_config(value.removeprefix("configs/"))
            if not Path(value).exists() and shipped:
                word = f"{option}={shipped[0]}" if option else shipped[0]
        found.append(word)
    return found


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
