"""Stylize photos: python scripts/infer.py PHOTO --network NAME"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("infer", *sys.argv[1:]))
