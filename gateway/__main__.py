"""`python -m gateway --state DIR --listen HOST:PORT`."""

from __future__ import annotations

import sys

from gateway.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
