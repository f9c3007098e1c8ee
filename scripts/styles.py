"""Keep styles of your own: python scripts/styles.py add painting.jpg --name mine --fit 15"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("styles", *sys.argv[1:]))
