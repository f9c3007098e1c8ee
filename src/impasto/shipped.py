"""What travels with the package: configs, published networks, the commit of the source."""

import subprocess
from pathlib import Path

_HERE = Path(__file__).parent
_ROOTS = (_HERE.parents[1], _HERE)  # of a checkout, of an installed wheel
CONFIGS = [root / "configs" for root in _ROOTS]
CHECKPOINTS = [root / "checkpoints" for root in _ROOTS]
COMPACT_FILE = "compact.safetensors"  # among them: a loss network, which stylizes nothing


def shipped_config(name: str) -> list[str]:
    """The path of one of our configs, as a list for `default_config_files`; empty where it is not installed."""
    return [str(folder / name) for folder in CONFIGS if (folder / name).exists()][:1]


def commit() -> str:
    """The commit of the source in use, with a + where it was changed since; empty outside a checkout."""
    root = _ROOTS[0]
    if not (root / ".git").exists():  # installed, perhaps below a repository that is not ours
        return ""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
