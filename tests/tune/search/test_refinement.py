"""The refinement of a search's best schedule: near it from the first trial on."""

from dataclasses import replace

import numpy as np
import pytest

from sr3core.diffusion.schedules import InferenceSchedule, training_gammas
from sr3core.hyperparameters import NoiseScheduleConfig
from tune.search.proposals.algorithms import create_algorithm, is_in
from tune.search.proposals.defaults import defaults
from tune.search.proposals.space import RefinementSpace
from tune.search.records.search_report import TrialRecord

TRAINED = NoiseScheduleConfig()
SMALLEST = float(training_gammas(TRAINED)[-1])


def trial(schedule: InferenceSchedule, **changes: object) -> TrialRecord:
    """A finished one."""
    record = TrialRecord(
        name=schedule.name,
        origin="default",
        status="done",
        num_steps=schedule.num_steps,
        num_evaluations=schedule.num_evaluations,
        budget=schedule.num_steps,
        gammas=schedule.gammas,
        sampler=schedule.sampler,
        num_images=16,
        objective=80.0,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def distance(space: RefinementSpace, one: dict[str, float], other: dict[str, float]) -> float:
    """Root of the mean square over the dimensions, as a share of their ranges."""
    shares = []
    for name, (low, high, log) in space.ranges.items():
        a, b, low, high = np.log([one[name], other[name], low, high]) if log else (one[name], other[name], low, high)
        shares.append((a - b) / (high - low))
    return float(np.sqrt(np.mean(np.square(shares))))


@pytest.mark.parametrize("seed", range(5))
def test_every_refinement_is_near_its_base(seed: int) -> None:
    """A point drawn anywhere is about 0.3 of the ranges away; with ten steps, no good schedule lies there."""
    base = defaults(TRAINED, 10)[3]
    space = RefinementSpace(base, SMALLEST)
    algorithm = create_algorithm("cmaes", space, seed, 12, [trial(base, point=space.centre)])
    points = [algorithm.suggest(str(number)) for number in range(8)]
    assert all(point is not None for point in points)
    distances = [distance(space, point, space.centre) for point in points if point]
    assert max(distances) < 0.25
    assert min(distances) > 0.02


def test_a_point_around_another_base_is_not_told() -> None:
    one, other = defaults(TRAINED, 10)[3], defaults(TRAINED, 10)[4]
    space = RefinementSpace(one, SMALLEST)
    point = {**space.centre, "bend_3": 0.4}
    refined = trial(space.schedule(point), point=point, origin="refinement")
    assert is_in(space, refined)
    assert not is_in(RefinementSpace(replace(one, gammas=other.gammas), SMALLEST), refined)
    assert not is_in(RefinementSpace(other, SMALLEST), refined)
    assert not is_in(space, trial(one))
