"""Training that stops at a step and waits there, so that a test ends a process exactly in the middle.

    python -m tests.faults.gate ADDRESS train --config ...

runs a command of sr3 whose training workers, once the checkpoint of step HELD_AT is saved, write the file `held` into
the run folder and wait to be ended, or to be asked to stop, for which they look at every step. The workers that take
their place begin after that step and are not held.
"""

import logging
import signal
import sys
from typing import Any

from tests.commands import ROOT

HELD_AT = 20
RUNTIME_ENV = {
    "worker_process_setup_hook": "tests.faults.gate.hold_training",
    "env_vars": {"PYTHONPATH": str(ROOT)},  # by which a worker finds the hook
}
"""Of a Ray job whose workers are to be held."""


def hold_training() -> None:
    """Let this process wait after the checkpoint of step HELD_AT, for ever or until it is asked to stop."""
    from pipelines.training import checkpoints, pulse

    pulse.PERIOD_SECONDS = 0.0

    write = checkpoints.write_checkpoint

    def write_and_wait(stage, snapshot, held_out) -> None:
        write(stage, snapshot, held_out)
        if snapshot.step == HELD_AT:
            (stage.path.parent / "held").touch()
            while not pulse.is_asked_to_stop(stage):
                signal.sigtimedwait((), 0.1)

    checkpoints.write_checkpoint = write_and_wait


def main(address: str, *arguments: str) -> int:
    """Run a command of sr3 on the Ray at an address, or on one of its own ("local")."""
    import ray

    from cluster.cli import main as sr3

    local: dict[str, Any] = (
        {"include_dashboard": False, "object_store_memory": 100_000_000} if address == "local" else {}
    )
    ray.init(address, runtime_env=RUNTIME_ENV, log_to_driver=False, logging_level=logging.ERROR, **local)
    return sr3(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
