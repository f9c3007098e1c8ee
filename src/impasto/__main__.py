"""`python -m impasto COMMAND …`: the same as `impasto COMMAND …`."""

import sys

from impasto.commands import main

if __name__ == "__main__":
    sys.exit(main())
