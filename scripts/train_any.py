"""Train a network for any painting: scripts/train_any.py fit --model.paintings '[FOLDER]'"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("train-any", *sys.argv[1:]))
