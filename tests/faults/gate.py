"""Training that stops at steps and waits there, so that a test ends a process exactly in the middle.

    python -m tests.faults.gate ADDRESS STEPS train --config ...

runs a command of sr3 whose training workers, once the checkpoint of one of the STEPS (20,40) is saved, write the file
`held-STEP` into the run folder and wait to be ended, or to be asked to stop, for which they look at every step. The
workers that take their place begin after that step, and are held at the next.
"""

import logging
import os
import signal
import sys
from typing import Any

from tests.commands import ROOT
from tests.ray_head import init_ray

HELD_AT = 20
"""The step at which most tests end something."""
_STEPS = "SR3_TEST_HELD_AT"


def holding(*steps: int) -> dict[str, Any]:
    """The runtime_env of a Ray job whose workers are held after the checkpoints of these steps."""
    variables = {"PYTHONPATH": str(ROOT), _STEPS: ",".join(map(str, steps))}  # by the path a worker finds the hook
    return {"worker_process_setup_hook": "tests.faults.gate.hold_training", "env_vars": variables}


def hold_training() -> None:
    """Let this process wait after the regular checkpoint of each of its job's steps, until it is asked to stop."""
    from pipelines.training import checkpoints, pulse

    pulse.PERIOD_SECONDS = 0.0

    write = checkpoints.write_checkpoint
    steps = [int(step) for step in os.environ[_STEPS].split(",")]

    def write_and_wait(stage, snapshot, held_out) -> None:
        write(stage, snapshot, held_out)
        if snapshot.step in steps and snapshot.step % stage.config.checkpoint_every == 0:
            (stage.path.parent / f"held-{snapshot.step}").touch()
            while not pulse.is_asked_to_stop(stage):
                signal.sigtimedwait((), 0.1)

    checkpoints.write_checkpoint = write_and_wait


def main(address: str, steps: str, *arguments: str) -> int:
    """Run a command of sr3 on the Ray at an address, or on one of its own ("local"); it is held itself, too."""
    from cluster.cli import main as sr3
    from cluster.session import without_dashboard

    local = {"object_store_memory": 100_000_000, **without_dashboard()}
    environment = holding(*map(int, steps.split(",")))
    init_ray(address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR, **local)
    os.environ |= environment["env_vars"]
    hold_training()  # where placement.num_workers is 0, this process trains
    return sr3(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
