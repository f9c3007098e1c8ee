"""Time training, painting and the losses: python scripts/benchmark.py --device cpu"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("benchmark", *sys.argv[1:]))
