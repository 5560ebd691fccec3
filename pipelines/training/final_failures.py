"""Failures that a restart of the workers would meet again: training fails at once, with the worker's own message.

Crashes, lost nodes and storage that does not answer are no such failures; Ray Train restarts the workers after them.
"""

import ray.train

from pipelines.storage.leases.lease import LeaseLostError
from sr3core.errors import CheckpointError, ConfigError, DataError, MissingError, Sr3Error, TrainingError

FINAL = (CheckpointError, ConfigError, DataError, LeaseLostError, MissingError, TrainingError)


class FailAtOnce(ray.train.UserCallback):
    """Ends the training when a worker raises one of FINAL.

    FailureConfig knows only how often to retry. An error that a callback raises, though, is one of the controller,
    which is not retried; `raise_cause` finds the worker's error in it.
    """

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Raise the first of the workers' errors that is final."""
        for error in worker_exceptions.values():
            if isinstance(error, FINAL):
                raise error


def raise_cause(error: Exception) -> None:
    """Raise the error of a worker for which FailAtOnce ended a training, if it did."""
    cause = getattr(error, "controller_failure", None)
    if isinstance(cause, Sr3Error):
        raise cause from error
