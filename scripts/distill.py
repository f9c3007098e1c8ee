"""Distill VGG: python scripts/distill.py fit --data.photos FOLDER --model.paintings FOLDER"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("distill", *sys.argv[1:]))
