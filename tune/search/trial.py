"""The trials on Ray Tune: the Trainable, the rungs of successive halving, and the record of finished trials."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import ray
import torch
from ray import tune as ray_tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from pipelines.runtime.live_nodes import wait_for_live_nodes
from pipelines.runtime.progress_display import duration
from pipelines.storage.leases.lease import check_all_held
from sr3core.config import from_dict
from sr3core.diffusion.schedules import InferenceSchedule
from tune.search.objective.evaluator import Evaluator, pick_device
from tune.search.objective.measurements import Task
from tune.search.records.ledger import Ledger
from tune.search.records.search_report import TrialRecord, best_of

NUMBERS = (
    "objective",
    "distance",
    "standard_error",
    "objective_error",
    "kid",
    "kid_error",
    "psnr",
    "ssim",
    "consistency",
    "seconds_per_image",
)


class ScheduleTrial(ray_tune.Trainable):
    """Judges one schedule after another, one rung per step; networks are loaded once per actor."""

    def setup(self, config: dict[str, Any], shared: Sequence[Any] = (), cpus: float = 1.0, gpus: float = 0.0) -> None:
        """Load what all trials share; shared holds the task's object reference."""
        torch.set_num_threads(max(1, int(cpus)))
        self.task: Task = ray.get(shared[0])
        self.evaluator = Evaluator(self.task, pick_device(gpus))
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next schedule."""
        self.schedule = from_dict(InferenceSchedule, new_config["schedule"])
        self.rungs = deque(self.task.rungs)
        self.objectives: list[float] = []
        return True

    def step(self) -> dict[str, Any]:
        """Judge the schedule on the next rung's number of images."""
        num_images = self.rungs.popleft()
        values = self.evaluator.evaluate(self.schedule, num_images)
        self.objectives.append(values["objective"])
        ended = not self.rungs
        flags = {"done": ended, "complete": ended, "num_evaluations": self.schedule.num_evaluations}
        return {"num_images": num_images, "rung_objectives": list(self.objectives), **flags, **values}


class Rungs(FIFOScheduler):
    """Asynchronous successive halving (Li et al., 2020) over fixed numbers of images, or of steps.

    A trial's objective is compared with those of trials of its budget judged on exactly as many images.

    Args:
        rungs: numbers of images, rising.
        factor: one in this many continues.
        finished: (budget, objective at each rung) of the trials of an earlier attempt.
        spared: names of trials that are never stopped.
        measured: name of the number of images in a trial's results.
    """

    def __init__(
        self,
        rungs: tuple[int, ...],
        factor: int,
        finished: Iterable[tuple[int, Sequence[float]]] = (),
        spared: Collection[str] = (),
        measured: str = "num_images",
    ) -> None:
        super().__init__()
        self._factor = factor
        self._last = rungs[-1]
        self._spared = spared
        self._measured = measured
        self._seen: dict[tuple[int, int], list[float]] = defaultdict(list)  # (budget, images) -> objectives
        for budget, objectives in finished:
            for rung, objective in zip(rungs, objectives, strict=False):
                self._seen[budget, rung].append(objective)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop a trial that is not among the best 1 / factor at its rung so far."""
        rung, objective = result[self._measured], result["objective"]
        if rung >= self._last:
            return TrialScheduler.CONTINUE
        seen = self._seen[trial.config["budget"], rung]
        better = sum(other < objective for other in seen)
        seen.append(objective)
        stops = better >= max(1, len(seen) // self._factor) and trial.config["name"] not in self._spared
        return TrialScheduler.STOP if stops else TrialScheduler.CONTINUE


class TrialNotes(ray_tune.Callback):
    """Records every finished trial in the ledger and reports it in one line.

    Args:
        ledger: this search's.
        num_trials: total number.
        report: receives a line.
        label: the objective in one word.
    """

    def __init__(self, ledger: Ledger, num_trials: int, label: str, report: Callable[[str], None]) -> None:
        self._ledger, self._num_trials, self._label, self._report = ledger, num_trials, label, report
        self._started, self._before = time.monotonic(), len(ledger.finished)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look at the leases, some ten times a second: who has lost one stops, and writes nothing more."""
        check_all_held()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial was judged on all images, or stopped at a rung."""
        result = trial.last_result
        self._note(trial, record_of(trial.config, result, "done" if result["complete"] else "stopped"))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial's process died, and the trial is about to be restarted: not on a node that is gone too."""
        wait_for_live_nodes()

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed more often than allowed."""
        self._note(trial, record_of(trial.config, {}, "failed", error=reason(trial.get_error())))

    def _note(self, trial: Any, record: TrialRecord) -> None:
        check_all_held()
        self._ledger.end(record)
        best = best_of(self._ledger.finished)
        numbers = f"{self._label} {record.objective:.4g}" if record.objective is not None else ""
        outcome = {
            "done": f"{numbers}, best {best.objective:.4g}" if best else numbers,
            "stopped": f"{numbers} at {record.num_images} images, stopped",
            "failed": f"failed: {record.error}",
        }[record.status]
        ended = len(self._ledger.finished)
        seconds = (time.monotonic() - self._started) / (ended - self._before) * (self._num_trials - ended)
        self._report(f"trial {ended}/{self._num_trials}, {duration(seconds)} left, {record.name}: {outcome}")


def record_of(config: dict[str, Any], result: dict[str, Any], status: Any, error: str | None = None) -> TrialRecord:
    """The record of a trial from its configuration and last result."""
    schedule = from_dict(InferenceSchedule, config["schedule"])
    return TrialRecord(
        name=config["name"],
        origin=config["origin"],
        status=status,
        num_steps=schedule.num_steps,
        num_evaluations=schedule.num_evaluations,
        budget=config["budget"],
        gammas=schedule.gammas,
        sampler=schedule.sampler,
        num_images=result.get("num_images", 0),
        point=config["point"],
        rung_objectives=tuple(result.get("rung_objectives", ())),
        error=error,
        **{name: _finite(result.get(name)) for name in NUMBERS},
    )


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and abs(value) < float("inf") else None


def reason(error: Any) -> str:
    """The innermost cause of a Ray error in one line."""
    cause = getattr(error, "cause", None) or error
    while getattr(cause, "cause", None):
        cause = cause.cause
    lines = [line for line in str(cause).splitlines() if line.strip()] if cause else []
    return lines[-1].strip()[:300] if lines else "its process died"
