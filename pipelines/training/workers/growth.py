"""Elastic training when a node joins: Ray Train restarts the workers in their new number from a checkpoint made then.

Without it they would resume from the last one that was due, up to checkpoint_every steps back.
"""

import logging
import time

from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import ResizingState, SchedulingState, TrainControllerState
from ray.train.v2._internal.execution.scaling_policy import ResizeDecision

from pipelines.runs.run_folder import StageRun, open_run
from pipelines.training.checkpoints import steps_done
from pipelines.training.pulse import ask_to_save, read_pulse

LONGEST_SECONDS = 300.0
"""The restart comes after this time even if nothing was saved."""
_POLL_SECONDS = 0.5
log = logging.getLogger(__name__)


class SaveBeforeResize(ControllerCallback):
    """Has the workers save a checkpoint before Ray Train replaces them with more or fewer ones.

    Ray Train has no public hook for it. It also resizes after a failure, when no worker is there to save anything; so
    the controller's states tell whether they still run.

    Args:
        run: what `open_run` takes on any machine.
        stage: the stage's name.
    """

    def __init__(self, run: str, stage: str) -> None:
        self._run, self._name = run, stage
        self._still_run = False

    def after_controller_state_update(
        self, previous_state: TrainControllerState, current_state: TrainControllerState
    ) -> None:
        """Note whether the next resize replaces workers that run."""
        resizes = isinstance(current_state, ResizingState)
        self._still_run = resizes or (self._still_run and isinstance(current_state, SchedulingState))

    def before_controller_execute_resize_decision(self, resize_decision: ResizeDecision) -> None:
        """Ask for a checkpoint, and wait until it is there."""
        if not self._still_run:
            return
        reading = read_pulse(self._stage().path)  # before asking, so that what they save is not older
        step = reading.step if reading else 0
        ask_to_save(self._stage())
        deadline = time.monotonic() + LONGEST_SECONDS
        while steps_done(self._stage()) < step and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        saved = steps_done(self._stage())
        log.warning("%s: restarting on %d workers at step %d", self._name, resize_decision.num_workers, saved)

    def _stage(self) -> StageRun:
        return open_run(self._run, results=False).stage(self._name)  # opened anew, for a run in a bucket
