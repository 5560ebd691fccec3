"""Trackers that receive a stage's metrics besides metrics.jsonl: TensorBoard and, as extras, MLflow and W&B."""

import contextlib
from collections.abc import Callable
from typing import Any, Protocol

from pipelines.runs.run_folder import StageRun, write_atomic
from pipelines.settings.train import PlacementConfig, Tracker
from sr3core.config import to_dict
from sr3core.errors import ConfigError


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


def open_trackers(stage: StageRun, resume_step: int) -> list[Sink]:
    """The trackers that a stage's placement names.

    Raises:
        ConfigError: a tracker's package is not installed.
    """
    return [_SINKS[name](stage, resume_step) for name in stage.config.placement.trackers]


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
