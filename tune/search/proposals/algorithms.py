"""The search algorithms: fixed schedules first, then the suggestions of Optuna or a grid."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ray.tune.search import Searcher

from sr3core.config import to_dict
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.errors import ConfigError
from tune.search.proposals.cma_es import CmaEs
from tune.search.proposals.space import RefinementSpace, SearchSpace, Space, distributions, propose
from tune.search.records.ledger import Ledger, Proposal
from tune.search.records.search_report import Origin, TrialRecord
from tune.search.settings import Algorithm


class ScheduleSearcher(Searcher):
    """Proposes fixed schedules first, then the algorithm's suggestions.

    Args:
        space: decodes the algorithm's points.
        origin: recorded for each of the algorithm's proposals.
        fixed: tried first: interrupted trials, defaults, warm starts.
        algorithm: proposes points of the space.
        ledger: records each trial that starts.
        budget_of: number of evaluations -> the budget of such a schedule.
    """

    def __init__(
        self,
        space: Space,
        origin: Origin,
        fixed: Iterable[Proposal],
        algorithm: Searcher,
        ledger: Ledger,
        budget_of: Callable[[int], int],
    ) -> None:
        super().__init__(metric="objective", mode="min")
        self._space, self._algorithm, self._ledger = space, algorithm, ledger
        self._origin: Origin = origin
        self._budget_of = budget_of
        self._fixed = deque(fixed)
        self._names = {record.name for record in ledger.finished}
        self._asked: set[str] = set()
        self._told: set[tuple[str, int]] = set()

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial's configuration."""
        if self._fixed:
            proposal = self._fixed.popleft()
            if proposal.point is not None and isinstance(self._algorithm, CmaEs):
                self._algorithm.retry(trial_id, proposal.point)
                self._asked.add(trial_id)
        else:
            point = self._algorithm.suggest(trial_id)
            if point is None or point == Searcher.FINISHED:
                return point
            self._asked.add(trial_id)
            schedule = self._space.schedule(point)
            proposal = Proposal(self._renamed(schedule), self._origin, dict(point))
        self._names.add(proposal.schedule.name)
        self._ledger.begin(proposal)
        return {
            "name": proposal.schedule.name,
            "origin": proposal.origin,
            "schedule": to_dict(proposal.schedule),
            "budget": self._budget_of(proposal.schedule.num_evaluations),
            "point": proposal.point,
        }

    def _renamed(self, schedule: InferenceSchedule) -> InferenceSchedule:
        """Give a schedule that the algorithm proposes again a new name."""
        names = (schedule.name, *(f"{schedule.name}-{n}" for n in range(2, len(self._names) + 3)))
        return replace(schedule, name=next(name for name in names if name not in self._names))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass an intermediate result to the algorithm."""
        key = (trial_id, result["num_images"])
        if trial_id in self._asked and key not in self._told:  # a retried trial reports its rungs again
            self._told.add(key)
            self._algorithm.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Pass the end of a trial to the algorithm, which must not take a stopped trial's value as complete."""
        if trial_id in self._asked:
            takes_all = isinstance(self._algorithm, CmaEs)  # it knows what a stopped trial's value is worth
            known = result if result and (takes_all or result.get("complete")) else None
            self._algorithm.on_trial_complete(trial_id, known, error)

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: a search resumes from the ledger, and no pickle is ever read."""

    def restore(self, checkpoint_path: str) -> None:
        """Not used."""
        raise NotImplementedError


class Listed(Searcher):
    """Proposes the points of a list: grid search."""

    def __init__(self, points: list[dict[str, Any]]) -> None:
        super().__init__(metric="objective", mode="min")
        self._points = deque(points)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next point."""
        return self._points.popleft() if self._points else Searcher.FINISHED  # type: ignore[return-value]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Does nothing: a grid does not learn."""


def is_in(space: RefinementSpace, trial: TrialRecord) -> bool:
    """Whether a trial's point stands for its schedule here, around this base."""
    if trial.point is None or trial.point.keys() != space.ranges.keys():
        return False
    decoded = space.schedule(trial.point)
    return (decoded.gammas, decoded.sampler) == (trial.gammas, trial.sampler)


def create_algorithm(
    name: Algorithm,
    space: Space,
    seed: int,
    num_trials: int,
    told: Sequence[TrialRecord],
    interrupted: Sequence[Proposal] = (),
    front: bool = False,
) -> Searcher:
    """Create an algorithm, and feed it the results of an interrupted search.

    Args:
        name: which algorithm.
        space: what it searches.
        seed: for its random draws.
        num_trials: how many it will propose, including the known ones.
        told: finished trials with points of the space, in the order in which they ended.
        interrupted: trials that a kill broke off, and that are tried again before any other.
        front: also minimise the number of evaluations.

    Raises:
        ConfigError: the grid has fewer points than trials, or the space has none.
    """
    if name == "grid":
        if not isinstance(space, SearchSpace):
            raise ConfigError(
                "algorithm: grid has no points for a refinement; set num_refinements=0 or use another algorithm"
            )
        points = space.grid(num_trials, seed)
        if len(points) < num_trials:
            raise ConfigError(
                f"num_trials: the grid has {len(points)} points, fewer than {num_trials}; lower num_trials"
            )
        known = [one.point for one in (*told, *interrupted)]
        return Listed([point for point in points if point not in known])
    if name == "cmaes":
        centre = space.centre if isinstance(space, RefinementSpace) else None
        found = CmaEs(space, seed, num_trials, centre)
        found.replay(told)
        return found
    return _optuna(name, space, seed, num_trials, told, front)


def _optuna(
    name: Algorithm, space: Space, seed: int, num_trials: int, told: Sequence[TrialRecord], front: bool
) -> Searcher:
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The seed advances with the known trials, or the algorithm would repeat its first suggestions after a kill.
    sampler = _sampler(name, space, seed + len(told), num_trials)
    found = distributions(space)
    storage = optuna.storages.InMemoryStorage()
    metric, mode = (["objective", "num_evaluations"], ["min", "min"]) if front else ("objective", "min")
    search = OptunaSearch(
        space=partial(propose, space),  # omits dimensions without effect
        metric=metric,
        mode=mode,
        sampler=sampler,
        storage=storage,
        study_name="schedules",
    )
    study = optuna.load_study(study_name="schedules", storage=storage)
    for trial in told:
        study.add_trial(_as_optuna(trial, found, front))
    return search


def _as_optuna(trial: TrialRecord, found: dict[str, Any], front: bool) -> Any:
    """A finished trial as Optuna's. A stopped one is pruned, not complete: its value is from fewer images."""
    from optuna.trial import TrialState, create_trial

    assert trial.point is not None
    found = {name: found[name] for name in trial.point}
    if trial.status == "done" and trial.objective is not None:
        values = [trial.objective, trial.num_evaluations] if front else [trial.objective]
        return create_trial(state=TrialState.COMPLETE, params=trial.point, distributions=found, values=values)
    if trial.status == "failed":
        return create_trial(state=TrialState.FAIL, params=trial.point, distributions=found)
    reached = {} if front else dict(enumerate(trial.rung_objectives, start=1))
    return create_trial(state=TrialState.PRUNED, params=trial.point, distributions=found, intermediate_values=reached)


def _sampler(name: Algorithm, space: Space, seed: int, num_trials: int) -> Any:
    from optuna import exceptions, samplers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.ExperimentalWarning)  # of the options below
        warnings.simplefilter("ignore", FutureWarning)  # Optuna 6 has no x0 and sigma0; the exact version is pinned
        if name == "random":
            return samplers.RandomSampler(seed=seed)
        startup = min(10, max(3, num_trials // 4))
        # Groups: parameters that not every point has are modelled on the points that have them.
        return samplers.TPESampler(
            seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True
        )
