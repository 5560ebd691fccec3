"""Trackers that receive a stage's metrics besides metrics.jsonl: TensorBoard and, as extras, MLflow and W&B."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from pipelines.runs.run_folder import StageRun, write_atomic
from pipelines.settings.train import PlacementConfig, Tracker
from sr3core.config import to_dict
from sr3core.errors import ConfigError

MOST_WAITING = 1000
"""Lines of metrics that wait for a slow tracker."""
CLOSE_SECONDS = 60.0
"""How long the end of a training waits for a tracker."""
log = logging.getLogger(__name__)


class Sink(Protocol):
    """Receives a stage's metrics."""

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log a step's values by name."""
        ...

    def close(self) -> None:
        """Flush and close."""
        ...


class TensorBoard:
    """Event files in RUN/STAGE/tensorboard; resuming purges the steps that will be repeated."""

    def __init__(self, stage: StageRun, resume_step: int) -> None:
        from tensorboardX import SummaryWriter

        folder = str(stage.path / "tensorboard")
        self._writer = SummaryWriter(folder, purge_step=resume_step + 1 if resume_step else None, flush_secs=10)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log a step's values by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class MLflow:
    """A run of the experiment MLFLOW_EXPERIMENT_NAME at MLFLOW_TRACKING_URI; resuming continues the same run."""

    def __init__(self, stage: StageRun, resume_step: int) -> None:
        self._mlflow = _imported("mlflow")
        old = _known_run(stage, "mlflow")
        self._run = self._mlflow.start_run(run_id=old, run_name=f"{stage.path.parent.name}/{stage.name}")
        if old is None:
            _remember_run(stage, "mlflow", self._run.info.run_id)
            self._mlflow.log_dict(to_dict(stage.config), "config.json")

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log a step's values by name."""
        self._mlflow.log_metrics(values, step=step, run_id=self._run.info.run_id)

    def close(self) -> None:
        """Mark the run as finished."""
        self._mlflow.end_run()


class WeightsAndBiases:
    """A run of the project WANDB_PROJECT; resuming continues the same run."""

    def __init__(self, stage: StageRun, resume_step: int) -> None:
        wandb = _imported("wandb")
        old, name = _known_run(stage, "wandb"), f"{stage.path.parent.name}-{stage.name}"
        self._run = wandb.init(id=old, name=name, config=to_dict(stage.config), resume="allow" if old else None)
        if old is None:
            _remember_run(stage, "wandb", self._run.id)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log a step's values by name."""
        self._run.log(values, step=step)

    def close(self) -> None:
        """Wait until everything is sent."""
        self._run.finish()


_SINKS: dict[Tracker, Callable[[StageRun, int], Sink]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}


def _known_run(stage: StageRun, tracker: str) -> str | None:
    """The tracker's identifier of this stage's run, recorded at its start; `--fresh` deletes it with the rest."""
    path = stage.path / f"{tracker}-run"
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _remember_run(stage: StageRun, tracker: str, identifier: str) -> None:
    path = stage.path / f"{tracker}-run"
    write_atomic(path, identifier)
    if stage.bucket is not None:
        stage.bucket.push(path)


class InBackground:
    """A tracker in a thread of its own: neither its errors nor its waiting reach the training, whose log they are.

    metrics.jsonl has all that a tracker loses.

    Args:
        name: for messages.
        make: connects to the tracker; tried again for the next metrics if it fails.
    """

    def __init__(self, name: str, make: Callable[[], Sink]) -> None:
        self._name, self._make = name, make
        self._sink: Sink | None = None
        self._calls: queue.Queue[Callable[[Sink], None] | None] = queue.Queue(MOST_WAITING)
        self._told: set[str] = set()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)  # a tracker that hangs keeps no one
        self._thread.start()

    def log(self, step: int, values: dict[str, float]) -> None:
        """Log a step's values by name, unless too many are waiting."""
        self._put(lambda sink: sink.log(step, values))

    def close(self) -> None:
        """Flush and close, but wait no longer than CLOSE_SECONDS."""
        self._put(lambda sink: sink.close())
        self._put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._tell(f"did not take all metrics within {CLOSE_SECONDS:g} s")

    def _put(self, call: Callable[[Sink], None] | None) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._tell("is too slow, so that metrics are left out")

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                self._sink = self._sink or self._make()
                call(self._sink)
            except Exception as error:  # noqa: BLE001  # whatever a tracker raises, the training continues
                self._tell(f"failed: {type(error).__name__}: {error}")

    def _tell(self, what: str) -> None:
        """Warn once of each kind of trouble."""
        kind = what.split(":")[0]
        if kind not in self._told:
            self._told.add(kind)
            log.warning("%s %s; training continues, and metrics.jsonl has everything", self._name, what)


def open_trackers(stage: StageRun, resume_step: int) -> list[Sink]:
    """The trackers that a stage's placement names."""
    return [
        InBackground(f"{stage.name}: {name}", partial(_SINKS[name], stage, resume_step))
        for name in stage.config.placement.trackers
    ]


def check_trackers(placement: PlacementConfig) -> None:
    """Refuse a tracker whose package is missing before any worker starts.

    Raises:
        ConfigError: names the extra to install.
    """
    for name in placement.trackers:
        if name != "tensorboard":
            _imported(name)


def _imported(package: str) -> Any:
    from importlib import import_module

    with contextlib.suppress(ModuleNotFoundError):
        return import_module(package)
    raise ConfigError(f"placement.trackers: {package} is not installed; pip install 'sr3-on-ray[{package}]'")
