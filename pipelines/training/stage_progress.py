"""How far the training of a stage has come, read from its files alone: for `sr3 train` and `sr3 status`."""

import time
from dataclasses import dataclass
from typing import Any

from pipelines.runs.run_folder import StageRun, read_metrics
from pipelines.runtime.progress_display import duration
from pipelines.training.checkpoints import steps_done
from pipelines.training.outcome import Outcome, read_outcome
from pipelines.training.pulse import Reading, read_pulse

NOT_RUNNING = "not running"
"""State of a training whose process was killed, so that it could not say how it ended."""
SILENT_SECONDS = 120.0
"""Time without a pulse after which it is mentioned."""


@dataclass(frozen=True, slots=True)
class StageProgress:
    """Progress of a stage's training."""

    stage: str
    step: int
    """Steps done, as far as is known; the newest checkpoint's if it has not trained since."""
    num_steps: int
    state: str
    """In words: starting, the time left, done, stopped, failed; or what it waits for."""
    loss: float | None = None
    """Mean training loss of the newest metrics."""
    images_per_second: float | None = None
    seconds_left: float | None = None
    """At that speed; None if it is not known."""

    @property
    def share(self) -> float:
        """Fraction of the steps that are done."""
        return self.step / self.num_steps

    def line(self) -> str:
        """`16-64: 0:40 left, step 120/500, loss 0.1400, 85 images/s`."""
        parts = [self.state, f"step {self.step}/{self.num_steps}"]
        parts += [f"loss {self.loss:.4f}"] if self.loss is not None else []
        parts += [f"{self.images_per_second:.3g} images/s"] if self.images_per_second is not None else []
        return f"{self.stage}: {', '.join(parts)}"


def progress_of(stage: StageRun, waits: str | None = None, is_trained: bool = True) -> StageProgress:
    """The progress of a stage, on this machine or another.

    Args:
        stage: the stage.
        waits: what it waits for, if it does.
        is_trained: whether a command trains the run now; without one, an unfinished stage is not running.
    """
    pulse, outcome, saved = read_pulse(stage.path), read_outcome(stage.path), steps_done(stage)
    lines = [line for line in read_metrics(stage.metrics) if line["kind"] == "train"]
    total = stage.config.num_steps
    if saved >= total:
        last = lines[-1] if lines else {}
        return StageProgress(stage.name, saved, total, "done", last.get("loss"), last.get("images_per_second"))
    has_begun = pulse is not None or (bool(lines) and (outcome is None or _is_newer(lines[-1], outcome)))
    if waits or not has_begun:
        return StageProgress(
            stage.name, saved, total, waits or _state_before_training(outcome, bool(saved), is_trained)
        )
    last = lines[-1] if lines else {"step": 0}
    step = max(last["step"], pulse.step if pulse else 0)
    speed = last.get("images_per_second") or _speed(pulse, stage.config.batch_size)
    left = (total - step) * stage.config.batch_size / speed if speed else None
    ended = _ended(outcome) or ("" if is_trained else NOT_RUNNING) or (_silence(pulse) if pulse else None)
    return StageProgress(stage.name, step, total, ended or _time_left(left), last.get("loss"), speed, left)


def _is_newer(line: dict[str, Any], outcome: Outcome) -> bool:
    """Whether metrics are not from an earlier training, of which the newest checkpoint may not have all steps."""
    return line.get("written", 0) > outcome.written


def _state_before_training(outcome: Outcome | None, is_begun: bool, is_trained: bool) -> str:
    if outcome is None:
        return NOT_RUNNING if is_begun else "not started"
    if not is_trained:
        return _ended(outcome) or NOT_RUNNING
    seconds = max(time.time() - outcome.written, 0)
    what = "starting for" if seconds < SILENT_SECONDS else "has not begun for"  # it waits, or its command was killed
    return _ended(outcome) or f"{what} {duration(seconds)}"


def _ended(outcome: Outcome | None) -> str | None:
    if outcome is None:
        return None
    return "stopped" if outcome.stopped else "failed" if outcome.error else None


def _silence(pulse: Reading) -> str | None:
    """Checkpoints, validation and compilation take minutes at most: after more the process has probably ended."""
    seconds = time.time() - pulse.written
    return f"silent for {duration(seconds)}" if seconds > SILENT_SECONDS else None


def _speed(pulse: Reading | None, batch_size: int) -> float | None:
    return batch_size / pulse.seconds_per_step if pulse and pulse.seconds_per_step else None


def _time_left(seconds: float | None) -> str:
    return f"{'?' if seconds is None else duration(seconds)} left"
