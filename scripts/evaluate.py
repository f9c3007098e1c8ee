"""Compare networks with the reference: python scripts/evaluate.py --config configs/compare.yaml"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("evaluate", *sys.argv[1:]))
