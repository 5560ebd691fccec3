"""`python -m cluster COMMAND`: the entry point of a job, which is `sr3` where the nodes' PATH may lack it."""

import sys

from cluster.exits import FAILURE
from cluster.own_packages import in_the_way


def main() -> int:
    """Run `sr3`, once it is certain that its packages are its own; returns the exit status."""
    if (found := in_the_way(sys.path)) is not None:
        print(f"sr3: {found}; rename it, or leave its folder out of PYTHONPATH", file=sys.stderr)
        return FAILURE
    from cluster.cli import main as run

    status = run()
    # CPython remembers an interrupt that passed through executed text, of which imports are full, although it was
    # handled, and would end a module that was run by -m by SIGINT instead of by its status. Text that ends well clears
    # that.
    exec("")
    return status


if __name__ == "__main__":
    sys.exit(main())
