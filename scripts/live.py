"""Paint a camera, or a clip, in a window: python scripts/live.py --network gallery"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("live", *sys.argv[1:]))
