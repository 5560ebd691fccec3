"""Trainings with different settings on Ray Tune: by held-out loss the better ones continue (successive halving).

Each training is a run of its own in OUT/NAME, trained by Ray Train from rung to rung and resumed from its checkpoints,
so everything that holds for runs holds for it: elastic workers, leases, `sr3 status`, `sr3 report`.
"""

import os
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray import tune as ray_tune

from pipelines.runs.run_folder import create_run, read_metrics
from pipelines.runtime.node_waiting import can_gain_nodes
from pipelines.runtime.waiting import waiting_for
from pipelines.settings.train import PlacementConfig, RunConfig, TrainConfig
from pipelines.shards.mixtures import absolute_data
from pipelines.storage.leases.folder_lease import working_in
from pipelines.storage.leases.lease import check_all_held
from pipelines.storage.uris import absolute, join
from pipelines.training.parallel_stages import train_run
from pipelines.training.resources import fewest_workers, resources_per_worker
from sr3core.config import from_dict, override, scientific, to_dict
from sr3core.errors import TrainingError
from tune.search.proposals.algorithms import Listed
from tune.search.schedule_search import print_line, quiet
from tune.search.trial import Rungs, reason
from tune.sweeps.points import Point
from tune.sweeps.records import SweepRecords, TrainingRecord
from tune.sweeps.settings import SweepConfig


def train_to(place: str, config: TrainConfig, num_steps: int, data: str, fingerprints: dict[str, str]) -> float:
    """Train a run of one stage up to a step, from its newest checkpoint, and return its held-out loss there.

    Args:
        place: the run's folder.
        config: of its stage.
        num_steps: the last step; a run that has gone further is not trained.
        data: the prepared data.
        fingerprints: of the data.

    Raises:
        TrainingError: the training failed.
    """
    stage = override(config, num_steps=num_steps)
    run = create_run(place, RunConfig(name="sweep", stages=(stage,)), data, fingerprints, fresh=False)
    (result,) = train_run(run)
    if result.error is not None:
        raise TrainingError(result.error)
    lines = read_metrics(run.stage(stage.name).metrics)
    losses = [line["loss"] for line in lines if line["kind"] == "validation" and line["step"] == num_steps]
    if not losses or losses[-1] is None:
        raise TrainingError(f"{place} has no held-out loss of step {num_steps}: delete that folder, and sweep again")
    return losses[-1]


class TrainingTrial(ray_tune.Trainable):
    """One training, a rung per step."""

    def setup(
        self, config: dict[str, Any], rungs: Sequence[int] = (), data: str = "", fingerprints: Any = None
    ) -> None:
        """Take the training's settings; what is trained is in its folder."""
        self.place, self.stage = config["place"], from_dict(TrainConfig, config["config"])
        self.rungs, self.data, self.fingerprints = deque(rungs), data, fingerprints
        self.losses: list[float] = []

    def step(self) -> dict[str, Any]:
        """Train to the next rung."""
        num_steps = self.rungs.popleft()
        self.losses.append(train_to(self.place, self.stage, num_steps, self.data, self.fingerprints))
        ended = not self.rungs
        numbers = {"num_steps": num_steps, "objective": self.losses[-1], "losses": list(self.losses)}
        return {**numbers, "done": ended, "complete": ended}


class SweepNotes(ray_tune.Callback):
    """Records every training that ended, and reports it in one line."""

    def __init__(self, records: SweepRecords, report: Callable[[str], None]) -> None:
        self._records, self._report = records, report

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look at the lease: who has lost it stops, and writes nothing more."""
        check_all_held()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A training reached its last step, or was stopped at a rung."""
        found = trial.last_result
        status = "done" if found["complete"] else "stopped"
        numbers = {"step": found["num_steps"], "losses": tuple(found["losses"])}
        self._note(trial, TrainingRecord(**_of(trial), status=status, **numbers))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A training failed more often than allowed."""
        self._note(trial, TrainingRecord(**_of(trial), status="failed", error=reason(trial.get_error())))

    def _note(self, trial: Any, record: TrainingRecord) -> None:
        check_all_held()
        self._records.end(record)
        what = record.error or f"held-out loss {record.loss:.4g} at step {record.step}"
        ended, total = len(self._records.ended), len(self._records.names)
        self._report(f"training {ended}/{total}, {record.name}: {record.status}, {what}")


def _of(trial: Any) -> dict[str, Any]:
    return {"name": trial.config["name"], "changes": trial.config["changes"]}


def sweep(
    out: str,
    points: Sequence[Point],
    data: str,
    fingerprints: dict[str, str],
    config: SweepConfig,
    report: Callable[[str], None] = print_line,
) -> SweepRecords:
    """Train every point from rung to rung, as long as it is among the best. Needs a running Ray.

    What an earlier, interrupted sweep finished is kept; what it broke off resumes from its checkpoints.

    Args:
        out: folder of the runs, which all nodes share.
        points: the trainings.
        data: the prepared data.
        fingerprints: of the data.
        config: how they compete.
        report: receives lines of progress.

    Raises:
        ConfigError: out holds another sweep.
        StorageError: another process trains there.
    """
    out, data = absolute(out), absolute_data(data)  # trials run in other folders
    rungs = config.rungs(points[0].config.num_steps)
    identity = {
        "points": {point.name: scientific(point.config) for point in points},
        "data": fingerprints,
        "sweep": scientific(config),
    }
    with working_in(out, "training"):
        records = SweepRecords(out, identity, [point.name for point in points])
        known = {record.name for record in records.ended}
        todo = [point for point in points if point.name not in known]
        report(f"sweep: {len(points)} trainings, compared at {', '.join(map(str, rungs))} steps; {len(known)} ended")
        if todo:
            _run(out, todo, rungs, records, config, report, {"data": data, "fingerprints": fingerprints})
    return records


def _run(
    out: str,
    todo: Sequence[Point],
    rungs: tuple[int, ...],
    records: SweepRecords,
    config: SweepConfig,
    report: Callable[[str], None],
    shared: dict[str, Any],
) -> None:
    """Run trainings with Ray Tune."""
    trials = [
        {
            "name": point.name,
            "changes": dict(point.changes),
            "place": join(out, point.name),
            "config": to_dict(point.config),
            "budget": 0,
        }
        for point in todo
    ]
    placement = todo[0].config.placement
    trainable = ray_tune.with_parameters(TrainingTrial, rungs=rungs, **shared)
    finished = [(0, record.losses) for record in records.ended]
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ray's ends fit() on Ctrl-C as if all trials were done
    storage = join(out, "sweep", "ray")
    with quiet("ray.tune"), waiting_for(lambda: _now(records)):
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(trainable, _resources(placement)),
            tune_config=ray_tune.TuneConfig(
                metric="objective",
                mode="min",
                search_alg=Listed(trials),
                scheduler=Rungs(rungs, config.rung_factor, finished, measured="num_steps"),
                num_samples=len(trials),
                max_concurrent_trials=_at_once(placement, config, len(trials)),
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=ray_tune.RunConfig(
                name="trials",
                storage_path=storage,
                verbose=0,
                callbacks=[SweepNotes(records, report)],
                failure_config=ray_tune.FailureConfig(max_failures=config.max_retries),
                checkpoint_config=ray_tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        tuner.fit()
    shutil.rmtree(storage, ignore_errors=True)  # the runs and the records have it all


def _now(records: SweepRecords) -> str:
    return f"training, {len(records.ended)}/{len(records.names)} ended"


def _resources(placement: PlacementConfig) -> dict[str, float]:
    """What a trial's own process reserves: next to nothing where workers train, which reserve for themselves.

    No part of a CPU, of which the workers may need all; Ray does not accept nothing at all.
    """
    return {"memory": 1e6} if placement.num_workers else {"cpu": placement.cpus_per_worker}


def _at_once(placement: PlacementConfig, config: SweepConfig, count: int) -> int:
    """Trainings that run at once: more than fit would only wait, each with a process of its own."""
    if config.num_concurrent is not None or can_gain_nodes():
        return config.num_concurrent or count
    need, have = resources_per_worker(placement), ray.cluster_resources()
    workers = max(fewest_workers(placement), 1)
    return max(1, min(count, *(int(have.get(kind, 0) // (amount * workers)) for kind, amount in need.items())))
