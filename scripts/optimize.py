"""Paint one photo by optimization: python scripts/optimize.py PHOTO PAINTING"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("optimize", *sys.argv[1:]))
