"""Searching a stage's inference schedule (section 2.4) on Ray Tune, from a run folder to schedule files."""

import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune as ray_tune

from pipelines.runs.run_folder import StageRun, open_run, write_atomic
from pipelines.runtime.actor_resources import Need, choose_gpus, wait_for_first
from pipelines.runtime.provenance import provenance
from pipelines.runtime.waiting import make_way, waiting_for
from pipelines.settings.mixtures import describe_data
from pipelines.storage.leases.folder_lease import working_in
from pipelines.storage.leases.lease import check_all_held
from sr3core.config import fingerprint_of, scientific
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.errors import Sr3Error
from tune.search.confirmation.confirm import chains, confirm, name_of
from tune.search.confirmation.gain import published_for
from tune.search.objective.held_out_images import fit_to_images
from tune.search.objective.measurements import Task
from tune.search.objective.references import with_references
from tune.search.objective.task import check_weights, load_task, operator_of_inputs
from tune.search.objective.yardstick import SCORES
from tune.search.proposals.algorithms import ScheduleSearcher, create_algorithm, is_in
from tune.search.proposals.defaults import defaults
from tune.search.proposals.space import RefinementSpace, SearchSpace, Space
from tune.search.proposals.warm_start import warm_starts
from tune.search.records.ledger import Ledger, Proposal
from tune.search.records.search_report import (
    Origin,
    SearchReport,
    TrialRecord,
    best_of,
    front_of,
    read_search,
    write_json,
)
from tune.search.results.plots import write_plots
from tune.search.results.publication import SearchResult, publish_schedules
from tune.search.results.table import format_table
from tune.search.settings import SearchConfig
from tune.search.trial import Rungs, ScheduleTrial, TrialNotes

Report = Callable[[str], None]

RESUMABLE = ("num_trials", "num_refinements", "confirm_split", "confirm_defaults", "confirm_seeds", "confirm_steps")
"""Settings that may change between runs of one search without invalidating its trials."""


def print_line(text: str) -> None:
    """Print a line of progress.

    Not print itself: Ray pickles the reporter, and once its progress bars have replaced builtins.print, the original
    can no longer be pickled by its name.
    """
    make_way()
    print(text, flush=True)


def search(run: str, config: SearchConfig, report: Report = print_line) -> SearchResult:
    """Search the inference schedule of one stage. Needs a running Ray.

    Trials that an earlier, interrupted search finished are kept; a finished search is returned at once.

    Args:
        run: the run folder.
        config: the search space and method.
        report: receives lines of progress.

    Returns:
        The result; its schedule is in RUN/<stage>/schedules/best-<budget>.json.

    Raises:
        ConfigError, CheckpointError, DataError: the run, the stage, its checkpoint, the held-out images or the
            feature weights are missing or do not fit. Fewer images than asked for are no error: `fit_to_images`.
        StorageError: another process searches the same stage.
        Sr3Error: every trial failed.
    """
    assert ray.is_initialized(), "the caller starts Ray"
    with working_in(run, "searching", config.stage):
        return _search(run, config, report)


def _search(run: str, config: SearchConfig, report: Report) -> SearchResult:
    started = time.perf_counter()
    opened = open_run(run)
    stage = opened.stage(config.stage)
    check_weights(stage, config)
    config = fit_to_images(stage, config, lambda line: report(f"search {stage.name}: {line}"))
    task = load_task(stage, config)
    longer = chains(stage.config.model, config.confirm_steps)
    identity = {"search": _identity(config), "task": task.identity}
    folder = stage.path / "search" / (config.name or f"{config.num_steps}-{fingerprint_of(identity)[:8]}")
    ledger = Ledger(folder, identity)
    known = _finished(folder, config)
    if known is not None:
        report(f"search {stage.name}: {folder} is already finished")
        return publish_schedules(stage, known, folder)
    total = config.num_trials + config.num_refinements
    report(
        f"search {stage.name}: {total} schedules on {config.num_images} {config.split} images,"
        f" {len(ledger.finished)} already tried"
    )
    config = _on_gpus(stage, config, report)
    task = with_references(task, stage, config)
    session = _Session(stage, task, config, ledger, report)
    session.explore()
    session.refine()
    found = _conclude(session, longer, time.perf_counter() - started)
    check_all_held()
    write_json(folder / "search.json", found)
    write_atomic(folder / "table.md", format_table(found))
    write_plots(found, folder)
    result = publish_schedules(stage, found, folder)
    opened.publish()
    return result


def _on_gpus(stage: StageRun, config: SearchConfig, report: Report) -> SearchConfig:
    """Decide on a trial's GPUs, and wait until the first trial fits."""
    gpus = choose_gpus(config.gpus_per_trial, config.num_concurrent, stage.config.placement.use_gpu)
    bundle = {"CPU": config.cpus_per_trial, **({"GPU": gpus} if gpus else {})}
    need = Need(bundle, "cpus_per_trial, gpus_per_trial: a trial needs", "--cpus-per-trial")
    wait_for_first(need, 1, "--gpus-per-trial", lambda text: report(f"search {stage.name}: {text}"))
    return replace(config, gpus_per_trial=gpus)


def _identity(config: SearchConfig) -> dict[str, Any]:
    return {name: value for name, value in scientific(config).items() if name not in RESUMABLE}


def _finished(folder: Path, config: SearchConfig) -> SearchReport | None:
    """The report of the same search, if it has finished."""
    if not (folder / "search.json").is_file():
        return None
    report = read_search(folder / "search.json")
    return report if scientific(report.config) == scientific(config) else None


class _Session:
    """One call of search(): what its steps share."""

    def __init__(self, stage: StageRun, task: Task, config: SearchConfig, ledger: Ledger, report: Report) -> None:
        self.stage, self.task, self.config, self.ledger, self.report = stage, task, config, ledger, report
        self.training = stage.config.model.noise_schedule
        self.bounded = stage.config.model.bounded
        self.space = SearchSpace.of(self.training, config.steps, config.samplers, config.starts, self.bounded)
        self.shared = ray.put(task)
        self.placement = {"cpus": config.cpus_per_trial, "gpus": config.trial_resources.gpus}

    def explore(self) -> None:
        """Try the missing defaults, warm starts and proposals of the algorithm."""
        ended = [trial for trial in self.ledger.finished if trial.origin != "refinement"]
        missing = self.config.num_trials - len(ended)
        if missing <= 0:
            return
        told = [trial for trial in ended if trial.point is not None]
        config = self.config
        broken = [proposal for proposal in self.ledger.interrupted if proposal.origin == "search"]
        algorithm = create_algorithm(
            config.algorithm, self.space, config.seed, config.num_trials, told, broken, front=bool(config.front)
        )
        known = {trial.name for trial in ended}
        fixed = [proposal for proposal in self._fixed(known) if proposal.schedule.name not in known]
        left = max(missing - len(fixed), 0)
        hint = "" if left else "; a larger --num-trials gives it some"
        self.report(
            f"search {self.stage.name}: {missing - left} fixed schedules, then {left} by {config.algorithm}{hint}"
        )
        self._run(self.space, "search", fixed[:missing], algorithm, missing)

    def defaults(self, budget: int) -> list[InferenceSchedule]:
        """The schedules that one would use without a search; the winner is compared with the first."""
        found = defaults(self.training, budget)
        if not self.bounded:
            found = tuple(replace(one, sampler=replace(one.sampler, clip="none")) for one in found)
        return [self._named(schedule, budget) for schedule in found]

    def _named(self, schedule: InferenceSchedule, budget: int) -> InferenceSchedule:
        """With several budgets, a fixed schedule's name includes its own."""
        return replace(schedule, name=self._name(schedule.name, budget))

    def _name(self, name: str, budget: int) -> str:
        return f"{name}-{budget}" if len(self.config.steps) > 1 else name

    def _fixed(self, known: set[str]) -> Iterator[Proposal]:
        """Defaults, interrupted trials, warm starts; a schedule has the same name in every attempt."""
        for budget in self.config.steps:
            yield from (Proposal(schedule, "default") for schedule in self.defaults(budget))
        yield from (p for p in self.ledger.interrupted if p.origin == "search")
        methods = self.config.warm_starts
        if {self._name(method, budget) for method in methods for budget in self.config.steps} <= known:
            return
        remote: Any = ray.remote(warm_starts).options(num_cpus=self.placement["cpus"], num_gpus=self.placement["gpus"])
        smallest = self.space.smallest_gamma
        jobs: Any = [
            remote.remote(self.shared, method, self.config.steps, smallest, **self.placement) for method in methods
        ]
        with waiting_for(f"computing warm starts ({', '.join(methods)})"):
            found = ray.get(jobs)
        for schedule in itertools.chain(*found):
            yield Proposal(self._named(schedule, schedule.num_steps), "warm start")

    def refine(self) -> None:
        """Try schedules around the best one, with every step free."""
        ended = [trial for trial in self.ledger.finished if trial.origin == "refinement"]
        missing = self.config.num_refinements - len(ended)
        base = best_of([trial for trial in self.ledger.finished if trial.origin != "refinement"])
        if missing <= 0 or base is None:
            return
        self.report(f"search {self.stage.name}: refining every step of {base.name}")
        space = RefinementSpace(base.schedule, self.space.smallest_gamma)
        # Further trials may have changed the base, around which the same point is another schedule.
        told = [replace(base, point=space.centre), *(trial for trial in ended if is_in(space, trial))]
        # It starts at the base and stays near it; TPE's first trials are anywhere, and there are few.
        name = "random" if self.config.algorithm == "random" else "cmaes"
        fixed = [proposal for proposal in self.ledger.interrupted if proposal.origin == "refinement"]
        algorithm = create_algorithm(name, space, self.config.seed + 1, self.config.num_refinements, told, fixed)
        self._run(space, "refinement", fixed[:missing], algorithm, missing)

    def _run(self, space: Space, origin: Origin, fixed: Sequence[Proposal], algorithm: Any, missing: int) -> None:
        """Run trials with Ray Tune."""
        config, task, ledger = self.config, self.task, self.ledger
        resources = {"cpu": config.cpus_per_trial, "gpu": config.trial_resources.gpus}
        trainable = ray_tune.with_parameters(ScheduleTrial, shared=[self.shared], **self.placement)
        fid, kid = ("FID", "KID") if task.feature_network.is_fid else ("distance", "kernel distance")
        words: dict[str, str] = {"fid": fid, "fid-infinity": fid, "kid": kid, "weighted": "objective", **SCORES}
        word = words[task.estimates[-1]]
        notes = TrialNotes(ledger, config.num_trials + config.num_refinements, word, self.report)
        # The table compares with these; the other defaults are judged in full by the confirmation.
        spared = [self.defaults(budget)[0].name for budget in config.steps]
        before = [(trial.budget, trial.rung_objectives) for trial in ledger.finished]
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # no tables by Ray Tune in a job's log
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
        os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ray's ends fit() on Ctrl-C as if all trials were done
        storage = ledger.folder / "ray"
        tuner = ray_tune.Tuner(
            ray_tune.with_resources(trainable, resources),
            tune_config=ray_tune.TuneConfig(
                metric="objective",
                mode="min",
                search_alg=ScheduleSearcher(space, origin, fixed, algorithm, ledger, config.budget_of),
                scheduler=Rungs(task.rungs, config.rung_factor, before, spared),
                num_samples=missing,
                max_concurrent_trials=config.num_concurrent,
                reuse_actors=True,
                trial_name_creator=_trial_id,
                trial_dirname_creator=_trial_id,
            ),
            run_config=ray_tune.RunConfig(
                name="trials",
                storage_path=str(storage),
                verbose=0,
                callbacks=[notes],
                failure_config=ray_tune.FailureConfig(max_failures=config.max_retries),
                checkpoint_config=ray_tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        total = config.num_trials + config.num_refinements
        now = lambda: f"trying schedules, {len(ledger.finished)}/{total} tried"  # noqa: E731
        with quiet("ray.tune"), waiting_for(now):
            tuner.fit()
        shutil.rmtree(storage, ignore_errors=True)  # the ledger has it all


def _trial_id(trial: Any) -> str:
    return trial.trial_id


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Silence a logger below critical: a failed trial is reported in one line and recorded, without a traceback."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _conclude(session: _Session, longer: Sequence[TrialRecord], seconds: float) -> SearchReport:
    """Choose and confirm the winner."""
    stage, task, config, trials = session.stage, session.task, session.config, session.ledger.finished
    front: tuple[TrialRecord, ...] = front_of(trials) if config.front else ()
    winner = front[-1] if front else best_of(trials)
    if winner is None:
        raise Sr3Error(f"every trial of {session.ledger.folder} failed; the first: {trials[0].error}")
    winners = (winner, *front[:-1])
    sure = confirm(stage, config, trials, winners, longer, session.report)
    parents = {"checkpoint": stage.weights.fingerprint(), "task": task.identity}
    origin = {"checkpoint_step": stage.weights.newest().step, "data": describe_data(stage.data)}
    return SearchReport(
        stage=stage.name,
        num_steps=config.num_steps,
        label=name_of(task, config.num_images),
        is_fid=task.feature_network.is_fid,
        feature_network=task.feature_network.name,
        split=config.split,
        num_images=config.num_images,
        front=tuple(trial.name for trial in front),
        best=winner.name,
        default=session.defaults(winner.budget)[0].name,
        trials=tuple(trials),
        published=tuple(published_for(one, sure) for one in front or (winner,)),
        confirmation=sure,
        config=config,
        provenance={**provenance(config, parents), **origin},
        seconds=seconds,
        operator=operator_of_inputs(stage),
    )
