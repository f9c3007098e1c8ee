"""Stylize a clip: python scripts/video.py CLIP --network NAME"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("video", *sys.argv[1:]))
