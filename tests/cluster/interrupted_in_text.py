"""`python -m tests.cluster.interrupted_in_text`: a command, interrupted while it executes text as imports do."""

import sys

from cluster import cli
from cluster.__main__ import main


def interrupt(*_: object) -> int:
    """What Ctrl-C does at that moment."""
    exec("raise KeyboardInterrupt")
    return 0


if __name__ == "__main__":
    cli._run = interrupt
    sys.exit(main())
