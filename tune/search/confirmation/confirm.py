"""Confirming the winner on a second held-out split with fresh noise, since a search overfits its own split."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from pipelines.runs.run_folder import StageRun
from pipelines.runtime.tasks import watch
from sr3core.diffusion.schedules import InferenceSchedule, default_sampler, default_schedule
from sr3core.hyperparameters import ModelConfig
from tune.search.confirmation.gain import measure_gains, pairs_of
from tune.search.objective.evaluator import judge
from tune.search.objective.measurements import Task, schedule_fingerprint
from tune.search.objective.references import with_references
from tune.search.objective.task import load_task
from tune.search.objective.yardstick import label_of as distance_label
from tune.search.records.search_report import Confirmation, TrialRecord, best_of, describe_gain
from tune.search.settings import SearchConfig, TrialResources
from tune.search.trial import NUMBERS, reason


def confirm(
    stage: StageRun,
    config: SearchConfig,
    trials: Sequence[TrialRecord],
    winners: Sequence[TrialRecord],
    others: Sequence[TrialRecord],
    report: Callable[[str], None],
) -> Confirmation | None:
    """Judge the winners, the defaults of their budgets, and others, on the second split with fresh noise.

    Args:
        stage: the stage of the run.
        config: the search's configuration; returns None if it has no confirm_split.
        trials: all trials.
        winners: the best, or the front.
        others: further schedules to judge, such as `chains`.
        report: receives lines of progress.
    """
    if config.confirm_split is None:
        return None
    task = with_references(load_task(stage, config, confirm=True), stage, config, confirm=True)
    label = name_of(task, len(task.keys))
    compared = {schedule_fingerprint(trial.schedule): trial for trial in winners}
    for winner in winners:
        for trial in _rivals(winner, trials, every=config.confirm_defaults == "all"):
            compared.setdefault(schedule_fingerprint(trial.schedule), trial)
    for trial in others:
        compared.setdefault(schedule_fingerprint(trial.schedule), trial)
    judged = _judge_all(task, list(compared.values()), config.trial_resources)
    by_kid = task.estimates[-1] == "kid"
    what = f"KID on the features of {task.feature_network.description}" if by_kid else label
    for trial in judged:
        number = trial.kid if by_kid else trial.distance
        report(f"confirmation on {config.confirm_split}: {trial.name}: {what}: {_in_short(number)}")
    gains = measure_gains(task, pairs_of(judged, {trial.name for trial in winners}), config)
    for gain in gains:
        report(f"confirmation on {config.confirm_split}: {describe_gain(gain)}")
    return Confirmation(
        split=config.confirm_split, num_images=len(task.keys), label=label, trials=tuple(judged), gains=gains
    )


def name_of(task: Task, num_images: int) -> str:
    """Name of what schedules are judged by."""
    if task.fields is not None:
        return task.fields.label
    return distance_label(task.feature_network, num_images, len(task.references))


def chains(model: ModelConfig, steps: Sequence[int]) -> tuple[TrialRecord, ...]:
    """Algorithm 2 on the trained schedule respaced to each number of steps, up to all training steps.

    Raises:
        ConfigError: more steps than the schedule was trained with.
    """
    sampler = default_sampler(model)
    return tuple(_chain(default_schedule(model.noise_schedule, num_steps, sampler)) for num_steps in steps)


def _chain(schedule: InferenceSchedule) -> TrialRecord:
    steps = schedule.num_steps
    return TrialRecord(
        name=f"trained-{steps}-steps",
        origin="default",
        status="done",
        num_steps=steps,
        num_evaluations=steps,
        budget=steps,
        gammas=schedule.gammas,
        sampler=schedule.sampler,
    )


def _rivals(winner: TrialRecord, trials: Sequence[TrialRecord], every: bool) -> list[TrialRecord]:
    """Its budget's default, and the best of the other defaults or all of them, including those that a rung stopped."""
    defaults = [
        trial
        for trial in trials
        if trial.origin == "default" and trial.budget == winner.budget and trial.objective is not None
    ]
    plain = [trial for trial in defaults if trial.name.startswith("trained-respaced")]
    best = best_of(defaults)
    return [*plain, *(defaults if every or best is None else [best])]


def _judge_all(task: Task, trials: Sequence[TrialRecord], resources: TrialResources) -> list[TrialRecord]:
    cpus, gpus = resources.cpus, resources.gpus
    remote = ray.remote(judge).options(num_cpus=cpus, num_gpus=gpus, max_retries=resources.max_retries)
    shared = ray.put(task)
    jobs = [remote.remote(shared, trial.schedule, cpus, gpus) for trial in trials]
    watch(jobs, "confirmation", "schedules")
    return [_judged(trial, job, task) for trial, job in zip(trials, jobs, strict=True)]


def _judged(trial: TrialRecord, job: Any, task: Task) -> TrialRecord:
    try:
        values: dict[str, float] = ray.get(job)
    except RayError as error:  # one schedule's failure must not hide the others
        blank: dict[str, Any] = dict.fromkeys(NUMBERS)
        return replace(trial, status="failed", error=reason(error), num_images=0, rung_objectives=(), **blank)
    numbers = {name: values[name] if np.isfinite(values[name]) else None for name in NUMBERS}
    return replace(trial, num_images=len(task.keys), rung_objectives=(), **numbers)


def _in_short(number: float | None) -> str:
    return "failed" if number is None else f"{number:.4g}"
