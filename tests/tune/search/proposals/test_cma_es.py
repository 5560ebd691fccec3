"""CMA-ES after a kill is CMA-ES without one, and its population fits the budget."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.hyperparameters import SamplerConfig
from tune.search.proposals.algorithms import create_algorithm
from tune.search.proposals.cma_es import CmaEs, population
from tune.search.proposals.space import SearchSpace, between, share_of
from tune.search.records.ledger import Proposal
from tune.search.records.search_report import TrialRecord

SPACE = SearchSpace((10,), 1e-5, ("ddim", "ancestral"))
TARGET = np.array([0.8, 0.2, 0.3, 0.7, 0.6, 0.4, 0.9])


def loss(point: dict[str, Any]) -> float:
    """Of a point: the square of its distance from the target, in units of the ranges."""
    ranges = SPACE.ranges
    named = [(name, point.get(name, 0.5)) for name in (*SPACE.choices, *ranges)]
    shares = [share_of(ranges[name], value) if name in ranges else value for name, value in named]
    return float(np.square(np.array(shares) - TARGET).sum())


def result_of(point: dict[str, Any], number: int) -> dict[str, Any]:
    """Every third trial is stopped at a rung, where its value says little."""
    stopped = number % 3 == 2
    return {"num_images": 16 if stopped else 64, "objective": loss(point) * (0.01 if stopped else 1)}


def ended(point: dict[str, Any], number: int) -> TrialRecord:
    result = result_of(point, number)
    return TrialRecord(
        name=str(number),
        origin="search",
        status="stopped" if result["num_images"] == 16 else "done",
        num_steps=1,
        num_evaluations=1,
        budget=1,
        gammas=(1.0, 0.1),
        sampler=SamplerConfig(),
        point=point,
        **result,
    )


def run(algorithm: CmaEs, first: int, last: int) -> list[dict[str, Any]]:
    """Propose and judge trials first..last-1, one at a time."""
    points = []
    for number in range(first, last):
        points.append(algorithm.suggest(str(number)))
        algorithm.on_trial_complete(str(number), result_of(points[-1], number))
    return points


def created(told: list[TrialRecord], broken: list[Proposal]) -> CmaEs:
    found = create_algorithm("cmaes", SPACE, 3, 60, told, broken)
    assert isinstance(found, CmaEs)
    return found


@pytest.mark.parametrize("kill", [1, 20, 41])
def test_the_state_after_a_resume_is_the_state_without_a_kill(kill: int) -> None:
    """The kill breaks one trial off, which the resumed search tries again first."""
    whole = created([], [])
    points = run(whole, 0, 60)
    told = [ended(point, number) for number, point in enumerate(points[:kill])]
    schedule = InferenceSchedule(gammas=(1.0, 0.1), sampler=SamplerConfig())
    resumed = created(told, [Proposal(schedule, "search", points[kill])])
    resumed.retry("again", points[kill])
    resumed.on_trial_complete("again", result_of(points[kill], kill))
    rest = run(resumed, kill + 1, 60)
    np.testing.assert_allclose([list(p.values()) for p in rest], [list(p.values()) for p in points[kill + 1 :]])
    assert resumed.state.generation == whole.state.generation >= 5
    np.testing.assert_allclose(resumed.state.mean, whole.state.mean, rtol=1e-6)


def test_it_learns_also_across_a_kill() -> None:
    points = run(created([], []), 0, 30)
    told = [ended(point, number) for number, point in enumerate(points)]
    last = run(created(told, []), 30, 60)[-10:]
    assert np.mean([loss(point) for point in last]) < 0.5 * np.mean([loss(point) for point in points[:10]])


def test_the_smallest_population_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    """It would be printed into every short search."""
    assert CmaEs(SPACE, 0, num_trials=6).state.population_size == 3
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


def test_a_failed_trial_teaches_nothing_and_keeps_the_samples_apart() -> None:
    algorithm = created([], [])
    first = algorithm.suggest("first")
    algorithm.on_trial_complete("first", None, error=True)
    assert algorithm.suggest("second") != first
    assert algorithm.state.generation == 0


@pytest.mark.parametrize(
    ("dimensions", "trials", "size"), [(11, 6, 3), (11, 24, 8), (11, 100, 11), (7, 60, 9)], ids=str
)
def test_the_population_leaves_room_for_three_generations(dimensions: int, trials: int, size: int) -> None:
    assert population(dimensions, trials) == size
    assert trials // size >= 2, "what the first generation finds is used"


@pytest.mark.parametrize("ends", [(1e-6, 1e-3, True), (-1.0, 1.0, False), (0.25, 0.25, True)])
def test_shares_and_numbers_of_a_range_are_inverse(ends: Any) -> None:
    for share in (0.0, 0.25, 1.0):
        assert between(ends, share_of(ends, between(ends, share))) == pytest.approx(between(ends, share))


def test_a_grid_does_not_try_an_interrupted_point_twice() -> None:
    points = SPACE.grid(10, 3)
    schedule = InferenceSchedule(gammas=(1.0, 0.1), sampler=SamplerConfig())
    done = replace(ended({}, 0), point=points[0])
    grid = create_algorithm("grid", SPACE, 3, 10, [done], [Proposal(schedule, "search", points[1])])
    assert [grid.suggest(str(number)) for number in range(8)] == points[2:]
