"""The `sr3` program: its name is nobody else's, so that Python finds it whatever lies in PYTHONPATH."""

import sys
from pathlib import Path


def main() -> int:
    """Run `sr3` with the packages beside this file; a `cluster.py` in PYTHONPATH is told in a line."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from cluster.__main__ import main as run

    del sys.path[0]
    return run()
