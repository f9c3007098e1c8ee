"""Train a network: python scripts/train.py fit --config CONFIG.yaml --data.photos FOLDER"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("train", *sys.argv[1:]))
