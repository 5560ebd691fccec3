"""Between a stage's worker 0 and the command, while it trains: three small files in RUN/<stage>.

    pulse.json  from worker 0: its step and the seconds that one takes, every two seconds
    stop.json   from the command, at Ctrl-C: save a checkpoint and end
    save.json   from Ray Train's controller, before it changes the number of workers: save a checkpoint

Metrics come too seldom for either: a line of metrics.jsonl may take minutes.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.runs.run_folder import StageRun, write_atomic
from pipelines.runtime.exported_metrics import Exporter
from pipelines.storage.leases.lease import Fence
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


@dataclass(frozen=True, slots=True)
class Signal:
    """What the workers are to do after a step, the same on all of them."""

    stops: bool = False
    """The command asks to end."""
    saves: bool = False
    """A checkpoint is due by the clock, or because a node is about to be taken away or has joined."""


class Pulse:
    """One worker's side: it notes the step, and hears of signals at the same step as the other workers."""

    def __init__(
        self,
        stage: StageRun,
        team: Team,
        publish: Callable[[Path], None],
        fences: tuple[Fence, ...] = (),
        exporter: Exporter | None = None,
    ) -> None:
        """Start without a pulse.

        Args:
            stage: what is trained.
            team: the workers.
            publish: uploads a file to the run's bucket in the background; for a run on a disk it does nothing.
            fences: of the leases under which the workers write.
            exporter: of numbers for Prometheus.
        """
        self._stage, self._team, self._publish, self._fences = stage, team, publish, fences
        self._exporter = exporter or Exporter({})
        self._period = BUCKET_PERIOD_SECONDS if stage.bucket else PERIOD_SECONDS
        self._next = self._step = -1
        self._since = time.monotonic()
        self._is_silent = False
        self._saved = self._since
        self._loses_a_node = False

    def beat(self, step: int) -> Signal:
        """Note that `step` steps are done, and hear what is to be done.

        All workers must call it at every step. They exchange the answer once a period, not at every step, which would
        make a GPU wait.

        Raises:
            LeaseLostError: another process has taken a lease under which these workers write.
        """
        if step < self._next:
            return Signal()
        loses_a_node = self._team.loses_a_node()  # all workers ask
        signal, wait = self._team.same(self._look(step, loses_a_node) if self._team.rank == 0 else None)
        self._next = step + wait
        return signal

    def note_checkpoint(self) -> None:
        """Let the clock of placement.checkpoint_minutes start again."""
        self._saved = time.monotonic()
        if self._team.rank == 0:
            self._exporter.set(train_checkpoint_time_seconds=time.time())

    def _look(self, step: int, loses_a_node: bool) -> tuple[Signal, int]:
        for fence in self._fences:
            fence.check()
        now = time.monotonic()
        seconds = (now - self._since) / (step - self._step) if 0 <= self._step < step else None
        self._step, self._since = step, now
        self._note(Reading(step, seconds, time.time()))
        minutes = self._stage.config.placement.checkpoint_minutes
        is_due = minutes is not None and now - self._saved >= 60 * minutes
        is_news, self._loses_a_node = loses_a_node and not self._loses_a_node, loses_a_node
        if is_news:
            log.warning("%s: a node is about to be taken away; step %d is saved", self._stage.name, step)
        saves = is_due or is_news or _is_asked_to_save(self._stage)
        signal = Signal(stops=is_asked_to_stop(self._stage), saves=saves)
        return signal, max(1, int(self._period / seconds)) if seconds else 1

    def _note(self, reading: Reading) -> None:
        """Write the pulse, or say once that it cannot be: it informs, and no training ends over it."""
        self._exporter.set(train_step=reading.step)
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
    for path in (_pulse(stage.path), _stop(stage.path), _save(stage.path)):
        _withdraw(stage, path)


def ask_to_stop(stage: StageRun) -> None:
    """Ask the workers to save a checkpoint and to end."""
    _ask(stage, _stop(stage.path))


def is_asked_to_stop(stage: StageRun) -> bool:
    """Whether `ask_to_stop` has been called since `clear`, perhaps on another machine."""
    return _is_asked(stage, _stop(stage.path))


def ask_to_save(stage: StageRun) -> None:
    """Ask the workers to save a checkpoint and to continue."""
    _ask(stage, _save(stage.path))


def _is_asked_to_save(stage: StageRun) -> bool:
    """Whether `ask_to_save` has been called since this last returned True."""
    if not _is_asked(stage, _save(stage.path)):
        return False
    _withdraw(stage, _save(stage.path))
    return True


def _ask(stage: StageRun, path: Path) -> None:
    write_atomic(path, strict_json.dumps({"asked": time.time()}))
    if stage.bucket is not None:
        stage.bucket.push(path)


def _is_asked(stage: StageRun, path: Path) -> bool:
    return path.exists() or (stage.bucket is not None and exists(stage.bucket.uri_of(path)))


def _withdraw(stage: StageRun, path: Path) -> None:
    path.unlink(missing_ok=True)
    if stage.bucket is not None:
        delete(stage.bucket.uri_of(path))


def _pulse(folder: Path) -> Path:
    return folder / "pulse.json"


def _stop(folder: Path) -> Path:
    return folder / "stop.json"


def _save(folder: Path) -> Path:
    return folder / "save.json"
