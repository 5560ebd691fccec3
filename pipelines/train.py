"""One stage on Ray Train: TorchTrainer and its worker loop."""

import json
import logging
import threading
import time
from typing import TYPE_CHECKING

import torch

from pipelines.config import TrainConfig
from pipelines.ingest import batches_from, open_training_split
from pipelines.metrics_log import MetricsLog
from pipelines.placement import resources_per_worker
from pipelines.provenance import provenance
from pipelines.runs import StageRun, open_run
from pipelines.team import Team, join_team
from pipelines.validation import Validation
from sr3core.checkpoint import CheckpointInfo, list_checkpoints, restore, save_checkpoint, verify
from sr3core.errors import CheckpointError
from sr3core.randomness import derive_seed
from sr3core.training import Trainer, TrainState, create_state, learning_rate_at

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

log = logging.getLogger(__name__)


def train_stage(stage: StageRun, over: threading.Event) -> None:
    """Train a stage to its last step on the running Ray cluster, going on from its newest checkpoint.

    Args:
        stage: the stage.
        over: set when the command ends, so that what dies with it is not started again.

    Raises:
        ray.train.TrainingFailedError: workers failed more than placement.max_failures times.
        ray.exceptions.ActorDiedError: Ray Train's controller did.
    """
    import ray.exceptions

    for failures_left in reversed(range(stage.config.placement.max_failures + 1)):
        try:
            make_trainer(stage).fit()
            return
        except ray.exceptions.ActorDiedError:  # Ray Train starts workers again, but nobody starts its controller again
            if not failures_left or over.is_set():
                raise
            log.warning("%s: the process that controls its workers died; starting it again", stage.name)


def make_trainer(stage: StageRun) -> "TorchTrainer":
    """Ray Train's trainer of a stage."""
    import ray.train
    import ray.train.torch

    placement = stage.config.placement
    return ray.train.torch.TorchTrainer(
        worker_loop,
        train_loop_config={"run": str(stage.path.parent), "stage": stage.name},
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if placement.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=placement.num_workers,
            use_gpu=placement.use_gpu,
            resources_per_worker=resources_per_worker(placement),
        ),
        run_config=ray.train.RunConfig(
            # A fresh name: what resumes is our own scan of the run folder, which knows what was committed.
            name=f"{stage.name}-{time.time_ns()}",
            storage_path=str(stage.path / "ray"),
            failure_config=ray.train.FailureConfig(max_failures=placement.max_failures),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )


def worker_loop(arguments: dict[str, str]) -> None:
    """What every worker runs: Algorithm 1 on its share of each global batch, until the last step."""
    import ray.train

    stage = open_run(arguments["run"]).stage(arguments["stage"])
    config = stage.config
    team = join_team(config)
    state = create_state(config.model, config.optimizer, config.seed, team.device)
    resume(stage, state, team)
    trainer = Trainer(config.model, config.optimizer, config.seed)
    forward = team.wrap(state.model, config.precision)
    validation = Validation(stage, trainer, team)
    metrics = MetricsLog(stage.metrics, state.step, team)
    if state.step == 0:
        metrics.write({"step": 0, "kind": "validation", **validation(state)})
    split = open_training_split(stage.data, config)
    batches = batches_from(split, config, state.step, team.rank, team.world_size)
    while state.step < config.num_steps:
        with metrics.waiting():
            batch = next(batches).to(team.device)
        torch.manual_seed(derive_seed(config.seed, "dropout", state.step, team.rank))
        statistics = trainer.step(state, forward, batch.split(config.num_micro_batches))
        metrics.add(statistics.loss, statistics.gradient_norm)
        if _due(state.step, config.log_every, config):
            rate = learning_rate_at(config.optimizer, state.step - 1)
            metrics.write({"step": state.step, "kind": "train", "learning_rate": rate, **metrics.interval(config)})
        held_out: dict[str, float] = {}
        if _due(state.step, config.validation_every, config):
            held_out = validation(state)
            metrics.write({"step": state.step, "kind": "validation", **held_out})
        if _due(state.step, config.checkpoint_every, config):
            if team.rank == 0:
                write_checkpoint(stage, state, held_out)
            ray.train.report({"step": state.step, **held_out})


def _due(step: int, every: int, config: TrainConfig) -> bool:
    return step % every == 0 or step == config.num_steps


def resume(stage: StageRun, state: TrainState, team: Team) -> None:
    """Load the newest whole checkpoint, the same on every worker; a damaged one is skipped, loudly."""
    step = team.same(_newest_whole(stage) if team.rank == 0 else None)
    if step is None:
        return
    restore(next(info for info in list_checkpoints(stage.checkpoints) if info.step == step), state)
    log.warning("%s: resumed at step %d", stage.name, step)


def _newest_whole(stage: StageRun) -> int | None:
    for info in reversed(list_checkpoints(stage.checkpoints)):
        try:
            verify(info)
        except CheckpointError as error:
            log.error("%s; falling back to the checkpoint before it", error)
            continue
        return info.step
    return None


def write_checkpoint(stage: StageRun, state: TrainState, held_out: dict[str, float]) -> None:
    """Commit a checkpoint with its provenance, then delete those beyond keep_checkpoints.

    Regression keeps its peak-PSNR checkpoint however old it is (section 4).
    """
    config = stage.config
    extra = {
        "validation_psnr": held_out.get("psnr"),
        "provenance": provenance(
            config, json.loads((stage.path.parent / "config.json").read_text())["data_fingerprints"]
        ),
    }
    save_checkpoint(stage.checkpoints, state, extra)
    kept = list_checkpoints(stage.checkpoints)[-config.keep_checkpoints :]
    best = stage.newest_checkpoint()
    for info in list_checkpoints(stage.checkpoints):
        if info.step not in {best.step, *(keep.step for keep in kept)}:
            _delete(info)


def _delete(info: CheckpointInfo) -> None:
    (info.path / "state.json").unlink()  # first, so that a half-deleted folder is no checkpoint
    for path in info.path.iterdir():
        path.unlink()
    info.path.rmdir()
