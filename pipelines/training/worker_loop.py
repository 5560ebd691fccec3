"""One stage on Ray Train: TorchTrainer and the loop that each worker runs."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipelines.ingest.batches import batches_from, order_of
from pipelines.ingest.cache_plan import plan_cache
from pipelines.ingest.degraded_inputs import degrade_batch
from pipelines.ingest.split_reader import SplitReader, check_shards, open_training_split
from pipelines.runs.run_folder import StageRun, open_run
from pipelines.runtime.exported_metrics import Exporter
from pipelines.settings.train import TrainConfig
from pipelines.storage.leases.lease import Fence
from pipelines.storage.uris import is_remote
from pipelines.training.bad_steps import Incidents, describe_last_incident
from pipelines.training.checkpoints import CheckpointWriter, resume, steps_done
from pipelines.training.metrics_log import MetricsLog
from pipelines.training.pulse import Pulse, is_asked_to_stop
from pipelines.training.resources import fewest_workers, resources_per_worker, workers_on_a_node
from pipelines.training.sample_grids import draw_grid_between_steps
from pipelines.training.validation import Validation
from pipelines.training.worker_group import Team, join_team
from pipelines.training.workers.stragglers import OwnTimes
from sr3core.batch import Batch
from sr3core.errors import TrainingError
from sr3core.randomness import derive_seed
from sr3core.training import StepStatistics, Trainer, TrainState, create_state
from sr3core.update_rules import learning_rate_at
from sr3core.upscaling.tiled_network import for_whole_images

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

RESIZE_SECONDS = 60.0
"""Interval at which elastic training looks for nodes that have joined."""
MARGIN_SECONDS = 60.0
"""By which the exchange of gradients outlasts placement.patience_seconds: Team shall name the missing worker first."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a stage may end before its last step."""

    over: threading.Event = field(default_factory=threading.Event)
    """Set when the command ends: processes that end with it are not restarted, and missing steps are no error."""
    fences: tuple[Fence, ...] = ()
    """Of the leases under which the workers write: without one of them they stop, and write nothing more."""


def train_stage(stage: StageRun, ending: Ending | None = None) -> None:
    """Train a stage to its last step on the running Ray cluster, resuming from its newest checkpoint.

    Args:
        stage: the stage.
        ending: why it may end before its last step.

    Raises:
        DataError: its shards are missing, incomplete, or another stage's.
        TrainingError: it stopped itself at a bad step.
        CheckpointError, ConfigError, MissingError: a worker met what a restart would meet again, see final_failures.
        ray.train.TrainingFailedError: workers failed more than placement.max_failures times.
        ray.exceptions.ActorDiedError: Ray Train's controller did.
    """
    import ray.exceptions
    import ray.train

    from pipelines.training.final_failures import raise_cause

    ending = ending or Ending()
    split = open_training_split(stage.data, stage.config)
    check_shards(split)
    _tell_of_small_cache(stage, split)
    budget = FailureBudget(stage)
    while True:
        try:
            make_trainer(stage, ending.fences).fit()
            break
        except ray.exceptions.ActorDiedError:  # Ray Train restarts workers, but nothing restarts its controller
            if not budget.allows_another() or ending.over.is_set():
                raise
            log.warning("%s: the process that controls its workers died; restarting it", stage.name)
        except ray.train.TrainingFailedError as error:
            raise_cause(error)
            if not budget.is_renewed() or ending.over.is_set():
                raise
            log.warning("%s: workers failed again, but had saved newer checkpoints in between; continuing", stage.name)
    stage = open_run(stage.location, results=False).stage(stage.name)  # the workers may have been on other machines
    if ending.over.is_set() or is_asked_to_stop(stage):
        return
    if steps_done(stage) < stage.config.num_steps:  # the loop ended itself: Ray must not restart it
        raise TrainingError(f"{stage.name}: {describe_last_incident(stage.incidents, stage.config.optimizer)}")


class FailureBudget:
    """placement.max_failures, of which progress makes a new one: three failures in a month of spot nodes are few.

    Args:
        stage: what is trained.
    """

    def __init__(self, stage: StageRun) -> None:
        self._stage = stage
        self._left, self._step = stage.config.placement.max_failures, self._steps_done()

    def is_renewed(self) -> bool:
        """Whether a newer checkpoint was saved since the last answer that one was; then the budget is whole again."""
        step = self._steps_done()
        is_newer, self._step = step > self._step, max(step, self._step)
        if is_newer:
            self._left = self._stage.config.placement.max_failures
        return is_newer

    def allows_another(self) -> bool:
        """Count a failure; whether the stage may be started again."""
        self.is_renewed()
        self._left -= 1
        return self._left >= 0

    def _steps_done(self) -> int:
        run = open_run(self._stage.location, results=False)  # the workers may be elsewhere
        return steps_done(run.stage(self._stage.name))


def _tell_of_small_cache(stage: StageRun, split: SplitReader) -> None:
    """Say what the workers will do if their cache is too small; they look at their disks as well."""
    placement = stage.config.placement
    if not any(map(is_remote, split.directories)):
        return
    capacity = placement.cache_bytes // workers_on_a_node(placement)
    order, world_size = order_of(split, stage.config), max(placement.num_workers, 1)
    plan = plan_cache(stage.config, order, split.shards_of, 0, world_size, capacity)
    if not plan.fits:
        log.warning("%s: %s", stage.name, plan)


def make_trainer(stage: StageRun, fences: tuple[Fence, ...] = ()) -> "TorchTrainer":
    """Ray Train's trainer of a stage."""
    import ray.train
    import ray.train.torch

    from pipelines.training.final_failures import FailAtOnce
    from pipelines.training.workers.growth import SaveBeforeResize

    placement = stage.config.placement
    fewest = fewest_workers(placement)
    workers = (fewest, placement.num_workers) if fewest < placement.num_workers else placement.num_workers
    return ray.train.torch.TorchTrainer(
        worker_loop,
        train_loop_config={"run": stage.location, "stage": stage.name, "fences": fences},
        torch_config=ray.train.torch.TorchConfig(
            backend="nccl" if placement.use_gpu else "gloo",
            timeout_s=int(placement.patience_seconds + MARGIN_SECONDS),
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=placement.use_gpu,
            resources_per_worker=resources_per_worker(placement),
            elastic_resize_monitor_interval_s=RESIZE_SECONDS,
        ),
        run_config=ray.train.RunConfig(
            # A fresh name: we resume from our own scan of the run folder, which knows what was committed.
            name=f"{stage.name}-{time.time_ns()}",
            storage_path=str(stage.path / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=placement.max_failures),
            callbacks=[FailAtOnce(), SaveBeforeResize(stage.location, stage.name)],  # type: ignore[list-item]
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )


def worker_loop(arguments: dict[str, Any]) -> None:
    """What every worker runs."""
    import ray.train

    stage = open_run(arguments["run"], results=False).stage(arguments["stage"])
    train_as_worker(stage, join_team(stage.config), ray.train.report, arguments["fences"])


def train_as_worker(
    stage: StageRun, team: Team, report: Callable[[dict[str, float]], None], fences: tuple[Fence, ...] = ()
) -> None:
    """Algorithm 1 on this worker's share of each global batch, from the newest checkpoint until the last step.

    If the command asks to stop, the step that is being computed is the last one, and is saved. If a node is about to be
    taken away, it is saved too, and the training continues until that happens.

    Args:
        stage: the stage.
        team: the workers, however they were brought together.
        report: called with the step and held-out losses of each checkpoint.
        fences: of the leases under which this worker writes.

    Raises:
        LeaseLostError: another process took one of the leases.
    """
    config = stage.config
    state = create_state(config.model, config.optimizer, config.seed, team.device)
    resume(stage, state, team)
    frozen = stage.load_mean(device=str(team.device))
    mean = None if frozen is None else for_whole_images(config.model, frozen)  # validation has whole images
    trainer = Trainer(config.model, config.optimizer, config.seed, mean)
    forward = team.wrap(state.model, config)
    validation = Validation(stage, trainer, team)
    exporter = exporter_of(stage, team)
    metrics = MetricsLog(stage, state.step, team, exporter)
    incidents = Incidents(stage.incidents, team.rank, config.optimizer)
    checkpoints = CheckpointWriter(stage, team, fences)
    if state.step == 0:
        _validate(validation, state, metrics)
    split = open_training_split(stage.data, config)
    batches = batches_from(split, config, state.step, team.rank, team.world_size, team.workers_on_node)
    pulse = Pulse(stage, team, checkpoints.publish_metrics, fences, exporter)
    signal = pulse.beat(state.step)
    while state.step < config.num_steps and not signal.stops:
        with metrics.times.waiting():
            batch = next(batches).to(team.device)
        batch = degrade_batch(batch, config, state.step)
        statistics = _step(trainer, state, metrics.times, forward, batch, config, team)
        metrics.add(statistics)
        incidents.add(state.step, batch.keys, statistics)
        signal = pulse.beat(state.step)
        if signal.stops or _due(state.step, config.log_every, config):
            rate = learning_rate_at(config.optimizer, state.step - 1)
            metrics.write({"step": state.step, "kind": "train", "learning_rate": rate, **metrics.interval()})
            checkpoints.publish_metrics(stage.metrics, stage.incidents)
            if incidents.look():
                break
        is_due = _due(state.step, config.validation_every, config)
        held_out = _validate(validation, state, metrics) if is_due else {}
        if signal.stops or signal.saves or _due(state.step, config.checkpoint_every, config):
            checkpoints.write(state, held_out)
            pulse.note_checkpoint()
        if _due(state.step, config.checkpoint_every, config):
            report({"step": state.step, **held_out})
        if team.rank == 0:
            _draw_if_due(stage, state)
    batches.close()
    checkpoints.finish()
    metrics.close()


def _draw_if_due(stage: StageRun, state: TrainState) -> None:
    """Draw a grid of samples where Ray tasks on CPUs do not: see sample_grids."""
    every = stage.config.sample_every
    if stage.config.placement.use_gpu and every is not None and state.step % every == 0:
        draw_grid_between_steps(stage, state)


def exporter_of(stage: StageRun, team: Team) -> Exporter:
    """Of a worker's numbers, from its start on."""
    run = stage.location.rstrip("/").rpartition("/")[2].partition("?")[0]
    exporter = Exporter({"run": run, "stage": stage.name, "rank": str(team.rank)})
    exporter.set(train_start_time_seconds=time.time())
    if team.rank == 0:
        exporter.set(train_num_steps=stage.config.num_steps, train_checkpoint_time_seconds=time.time())
    return exporter


def _validate(validation: Validation, state: TrainState, metrics: MetricsLog) -> dict[str, float]:
    held_out = validation(state)
    metrics.write({"step": state.step, "kind": "validation", **held_out})
    return held_out


def _step(
    trainer: Trainer,
    state: TrainState,
    times: OwnTimes,
    forward: nn.Module,
    batch: Batch,
    config: TrainConfig,
    team: Team,
) -> StepStatistics:
    """One step on this worker's share of the global batch; its dropout depends on (seed, step, rank)."""
    torch.manual_seed(derive_seed(config.seed, "dropout", state.step, team.rank))
    micro_batches = batch.split(config.num_micro_batches)
    samples_per_worker = config.batch_size / team.world_size
    with team.naming_missing():
        return trainer.step(state, times.timed(forward), micro_batches, samples_per_worker, team.no_sync(forward))


def _due(step: int, every: int, config: TrainConfig) -> bool:
    return step % every == 0 or step == config.num_steps
