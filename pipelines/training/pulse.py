"""Between a stage's worker 0 and the command, while it trains: two small files in RUN/<stage>.

    pulse.json  from worker 0: its step and the seconds that one takes, every two seconds
    stop.json   from the command, at Ctrl-C: save a checkpoint and end

Metrics come too seldom for either: a line of metrics.jsonl may take minutes.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.runs.run_folder import StageRun, write_atomic
from pipelines.storage.uris import delete, exists
from pipelines.storage.versioned_json import read_object
from pipelines.training.worker_group import Team
from sr3core import strict_json
from sr3core.config import from_dict
from sr3core.errors import ConfigError, StorageError

PERIOD_SECONDS = 2.0
"""Interval between two pulses."""
BUCKET_PERIOD_SECONDS = 10.0
"""The same for a run in a bucket, where each costs two requests."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """Where a training was when it last wrote."""

    step: int
    seconds_per_step: float | None
    """Mean since the reading before; None at the first one."""
    written: float
    """Unix time, seconds."""


class Pulse:
    """One worker's side: it notes the step, and hears of a stop at the same step as the other workers."""

    def __init__(self, stage: StageRun, team: Team, publish: Callable[[Path], None]) -> None:
        """Start without a pulse.

        Args:
            stage: what is trained.
            team: the workers.
            publish: uploads a file to the run's bucket in the background; for a run on a disk it does nothing.
        """
        self._stage, self._team, self._publish = stage, team, publish
        self._period = BUCKET_PERIOD_SECONDS if stage.bucket else PERIOD_SECONDS
        self._next = self._step = -1
        self._since = time.monotonic()
        self._is_silent = False

    def beat(self, step: int) -> bool:
        """Note that `step` steps are done; whether the command asks to stop, the same answer on every worker.

        All workers must call it at every step. They exchange the answer once a period, not at every step, which would
        make a GPU wait.
        """
        if step < self._next:
            return False
        stop, wait = self._team.same(self._look(step) if self._team.rank == 0 else None)
        self._next = step + wait
        return stop

    def _look(self, step: int) -> tuple[bool, int]:
        now = time.monotonic()
        seconds = (now - self._since) / (step - self._step) if 0 <= self._step < step else None
        self._step, self._since = step, now
        self._note(Reading(step, seconds, time.time()))
        return is_asked_to_stop(self._stage), max(1, int(self._period / seconds)) if seconds else 1

    def _note(self, reading: Reading) -> None:
        """Write the pulse, or say once that it cannot be: it informs, and no training ends over it."""
        path = _pulse(self._stage.path)
        try:
            write_atomic(path, strict_json.dumps(asdict(reading)))
            self._publish(path)
        except StorageError as error:
            if not self._is_silent:
                log.warning("%s: its progress cannot be shown between its metrics: %s", self._stage.name, error)
            self._is_silent = True


def read_pulse(folder: Path) -> Reading | None:
    """Read a stage folder's pulse; None if no worker has begun to train since `clear`, or its file is damaged."""
    found = read_object(_pulse(folder))
    try:
        return from_dict(Reading, found) if found else None
    except ConfigError:
        return None


def clear(stage: StageRun) -> None:
    """Delete what an earlier training left, before another begins."""
    for path in (_pulse(stage.path), _stop(stage.path)):
        path.unlink(missing_ok=True)
        if stage.bucket is not None:
            delete(stage.bucket.uri_of(path))


def ask_to_stop(stage: StageRun) -> None:
    """Ask the workers to save a checkpoint and to end."""
    path = _stop(stage.path)
    write_atomic(path, strict_json.dumps({"asked": time.time()}))
    if stage.bucket is not None:
        stage.bucket.push(path)


def is_asked_to_stop(stage: StageRun) -> bool:
    """Whether `ask_to_stop` has been called since `clear`, perhaps on another machine."""
    path = _stop(stage.path)
    return path.exists() or (stage.bucket is not None and exists(stage.bucket.uri_of(path)))


def _pulse(folder: Path) -> Path:
    return folder / "pulse.json"


def _stop(folder: Path) -> Path:
    return folder / "stop.json"
