"""By how much a winner is better than the best default, with an interval: what decides which of them is published."""

from collections.abc import Sequence
from dataclasses import fields
from itertools import product
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError

from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.metrics.bootstrap import LEVEL
from sr3core.metrics.swaps import Difference, swapped_difference
from tune.search.objective.estimates import objective_of
from tune.search.objective.evaluator import Evaluator, judge, pick_device
from tune.search.objective.measurements import Compared, Measurements, Task
from tune.search.objective.task import with_noise
from tune.search.objective.yardstick import Estimate
from tune.search.records.search_report import Confirmation, Gain, TrialRecord, best_of
from tune.search.settings import SearchConfig

Pair = tuple[TrialRecord, TrialRecord]
"""A winner, and the best default of its budget."""


def pairs_of(judged: Sequence[TrialRecord], winners: set[str]) -> list[Pair]:
    """Each winner that is no default, with the default of its budget that has the lowest objective."""
    pairs = []
    for winner in judged:
        if winner.name in winners and winner.origin != "default" and winner.objective is not None:
            rival = best_default(judged, winner.budget)
            pairs += [] if rival is None else [(winner, rival)]
    return pairs


def best_default(judged: Sequence[TrialRecord], budget: int) -> TrialRecord | None:
    """The default of a budget with the lowest objective; None if none could be judged."""
    return best_of([trial for trial in judged if trial.origin == "default" and trial.budget == budget])


def measure_gains(task: Task, pairs: Sequence[Pair], config: SearchConfig) -> tuple[Gain, ...]:
    """Sample each pair with further noise, and measure the winner's gain over all draws. Needs a running Ray.

    Args:
        task: the confirmation's; each pair was judged with its noise already.
        pairs: what is compared.
        config: the search's configuration.
    """
    tasks = [with_noise(task, number) for number in range(config.confirm_seeds)]
    shared = [ray.put(one) for one in tasks]
    resources = config.trial_resources
    options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    place = resources.cpus, resources.gpus
    schedules = {trial.name: trial.schedule for pair in pairs for trial in pair}
    sampled = ray.remote(judge).options(**options, max_retries=resources.max_retries)
    sampling = [sampled.remote(one, schedule, *place) for one, schedule in product(shared[1:], schedules.values())]
    if sampling:
        ray.wait(sampling, num_returns=len(sampling))  # what fails here fails again below
    measured = ray.remote(measure_gain).options(**options)
    jobs = [measured.remote(shared, winner.schedule, rival.schedule, *place) for winner, rival in pairs]
    found = [_found(job) for job in jobs]
    return tuple(_gain(pair, *gain, config) for pair, gain in zip(pairs, found, strict=True) if gain is not None)


def _found(job: Any) -> tuple[Difference, float | None] | None:
    """A pair's gain; None if one of the two cannot be sampled with further noise, so that nothing is confirmed."""
    try:
        return ray.get(job)
    except RayError:
        return None


def _gain(pair: Pair, found: Difference, by_kid: float | None, config: SearchConfig) -> Gain:
    winner, rival = pair
    return Gain(
        name=winner.name,
        default=rival.name,
        value=found.value,
        low=found.low,
        high=found.high,
        level=LEVEL,
        num_seeds=config.confirm_seeds,
        second_opinion=by_kid,
    )


def measure_gain(
    shared: Sequence[Any], winner: InferenceSchedule, rival: InferenceSchedule, cpus: float, gpus: float
) -> tuple[Difference, float | None]:
    """The gain of a winner over a rival, and the same by KID where FID decides, as a Ray task.

    Args:
        shared: references to the same task with different noise.
        winner, rival: schedules.
        cpus, gpus: reserved for the task.
    """
    torch.set_num_threads(max(1, int(cpus)))
    tasks: list[Task] = ray.get(list(shared))
    evaluators = [Evaluator(task, pick_device(gpus)) for task in tasks]
    draws = [[one.measured(schedule, one.task.rungs[-1]) for schedule in (winner, rival)] for one in evaluators]
    estimate = tasks[0].estimates[-1]
    found = gain_of(tasks[0], draws, estimate)
    if estimate not in ("fid", "fid-infinity"):
        return found, None
    return found, gain_of(tasks[0], draws, "kid", num_swaps=1).value


def gain_of(
    task: Compared,
    draws: Sequence[Sequence[Measurements]],
    estimate: Estimate,
    num_swaps: int = 50,
    level: float = LEVEL,
) -> Difference:
    """The rival's objective minus the winner's, the mean over draws of noise, with an interval by exchange.

    Args:
        task: whose references are used.
        draws: (winner's, rival's) measurements of the same images, for each draw of noise.
        estimate: what decides.
        num_swaps: random exchanges of the two schedules' images.
        level: probability that the interval covers the expected gain.
    """
    count = len(draws[0][0].features)
    references = task.references[:count] if task.paired else task.references
    groups = np.arange(count) if task.groups is None else task.groups[:count]

    def difference(exchanged_groups: np.ndarray) -> float:
        mask, gaps = exchanged_groups[groups], []
        for winner, rival in draws:
            first, second = exchanged(winner, rival, mask), exchanged(rival, winner, mask)
            ours, theirs = (objective_of(one, references, task, estimate) for one in (first, second))
            gaps.append(theirs - ours)
        return float(np.mean(gaps))

    return swapped_difference(difference, int(groups.max()) + 1, num_swaps=num_swaps, level=level)


def exchanged(ours: Measurements, theirs: Measurements, mask: np.ndarray) -> Measurements:
    """Ours, but theirs of the images where mask, (n,) bool, is true."""

    def mixed(name: str) -> np.ndarray:
        a, b = getattr(ours, name), getattr(theirs, name)
        return np.where(mask.reshape(-1, *[1] * (a.ndim - 1)), b, a)

    return Measurements(*(mixed(field.name) for field in fields(Measurements)))


def published_for(winner: TrialRecord, sure: Confirmation | None) -> str:
    """The schedule to publish for a winner: itself if it is surely better than the best default, else that default.

    Without a confirmation it is the winner, which nothing could refute.
    """
    if sure is None:
        return winner.name
    rival = best_default(sure.trials, winner.budget)
    gain = sure.gain_of(winner.name)
    return winner.name if rival is None or (gain is not None and gain.is_sure) else rival.name
