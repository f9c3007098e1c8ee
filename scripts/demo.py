"""Serve a page that paints photos in the browser: python scripts/demo.py --network gallery.onnx"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("demo", *sys.argv[1:]))
