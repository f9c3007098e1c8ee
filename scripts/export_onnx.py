"""Write a network as an ONNX file: python scripts/export_onnx.py NETWORK --output FILE.onnx"""

import sys

from impasto.commands import run

if __name__ == "__main__":
    sys.exit(run("export", *sys.argv[1:]))
