"""CMA-ES whose state is a function of the seed and of the trials that ended: a resumed search has that of one unbroken.

Optuna's keeps its state in attributes of trials that a killed process takes along, and starts afresh when told of them.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray.tune.search import Searcher

from sr3core.errors import ConfigError
from sr3core.randomness import derive_seed
from tune.search.proposals.space import Space, between, share_of
from tune.search.records.search_report import TrialRecord

SIGMA = 1 / 6
"""First step width, in units of the ranges."""
REFINING_SIGMA = 0.15
"""The same around a base, near which a refinement stays."""
MIN_POPULATION = 3
MIN_GENERATIONS = 3
"""That the budget has room for: with fewer, nothing of what was found is used."""


class CmaEs(Searcher):
    """Proposes points by CMA-ES (Hansen, 2016); choices are numbers in [0, 1].

    Args:
        space: what is searched.
        seed: of the samples; the n-th one depends on the state, the seed and n.
        num_trials: how many points there will be, known ones included; decides the size of the population.
        centre: point to start from; the middle of the space without one.

    Raises:
        ConfigError: the package cmaes is not installed.
    """

    def __init__(self, space: Space, seed: int, num_trials: int, centre: Mapping[str, float] | None = None) -> None:
        super().__init__(metric="objective", mode="min")
        if importlib.util.find_spec("cmaes") is None:
            raise ConfigError("algorithm: cmaes needs the package of that name: pip install cmaes, or use tpe")
        from cmaes import CMA

        self._space, self._seed = space, seed
        self.names = (*space.choices, *space.ranges)
        mean = np.full(len(self.names), 0.5) if centre is None else self._as_vector(centre)
        # Three points keep one, so that an update has no weight and a bound of the package's is infinite, as it may be.
        with np.errstate(divide="ignore"):
            self.state = CMA(
                mean=mean,
                sigma=SIGMA if centre is None else REFINING_SIGMA,
                bounds=np.array([[0.0, 1.0]] * len(mean)),
                population_size=population(len(mean), num_trials),
            )
        self._asked = 0
        self._generation: list[tuple[np.ndarray, tuple[int, float]]] = []
        self._points: dict[str, dict[str, float]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next point."""
        # The package takes 32 bits.
        self.state.reseed_rng(derive_seed(self._seed, "cma-es", self._asked) % 2**32)
        self._asked += 1
        self._points[trial_id] = self._as_point(self.state.ask())
        return self._points[trial_id]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Learn from a trial that was suggested here; without a result it failed."""
        point = self._points.pop(trial_id)
        if result and not error:
            self._learn(point, result["num_images"], result["objective"])

    def retry(self, trial_id: str, point: Mapping[str, Any]) -> None:
        """Take a point that was suggested before a kill, and is tried again, as one that is suggested now."""
        self._asked += 1
        self._points[trial_id] = dict(point)

    def replay(self, trials: Sequence[TrialRecord]) -> None:
        """Learn from trials that ended before, in their order."""
        for trial in trials:
            self._asked += 1
            if trial.point is not None and trial.objective is not None:
                self._learn(trial.point, trial.num_images, trial.objective)

    def _learn(self, point: Mapping[str, Any], num_images: int, objective: float) -> None:
        """Update the state with each full generation. A trial that a rung stopped ranks below all that it let pass."""
        self._generation.append((self._as_vector(point), (-num_images, objective)))
        if len(self._generation) == self.state.population_size:
            ranked = sorted(self._generation, key=lambda one: one[1])
            self.state.tell([(vector, float(rank)) for rank, (vector, _) in enumerate(ranked)])
            self._generation.clear()

    def _as_point(self, vector: np.ndarray) -> dict[str, float]:
        ranges = self._space.ranges
        shares = dict(zip(self.names, map(float, vector), strict=True))
        return {name: between(ranges[name], share) if name in ranges else share for name, share in shares.items()}

    def _as_vector(self, point: Mapping[str, Any]) -> np.ndarray:
        ranges = self._space.ranges
        return np.array([share_of(ranges[n], point[n]) if n in ranges else point[n] for n in self.names])


def population(num_dimensions: int, num_trials: int) -> int:
    """Hansen's default, or as many as leave room for MIN_GENERATIONS in the budget."""
    default = 4 + int(3 * np.log(num_dimensions))
    return max(MIN_POPULATION, min(default, num_trials // MIN_GENERATIONS))
