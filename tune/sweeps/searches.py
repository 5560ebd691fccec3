"""Schedule searches of many runs, stages and budgets, one after the other, each of which resumes by itself."""

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.runs.run_folder import Run, open_run
from pipelines.settings.mixtures import describe_data
from pipelines.storage.leases.folder_lease import working_in
from pipelines.storage.leases.lease import LeaseLostError
from pipelines.storage.uris import is_remote
from sr3core.errors import ConfigError, DataError, Sr3Error
from tune.search.records.search_report import SearchReport
from tune.search.schedule_search import print_line, search
from tune.search.settings import SearchConfig, SearchesConfig


@dataclass(frozen=True, slots=True)
class PlannedSearch:
    """One search of many."""

    run: str
    config: SearchConfig

    @property
    def name(self) -> str:
        """Run, stage and budget, in words."""
        return f"{self.run}, stage {self.config.stage}, {self.config.num_steps} steps"


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """How one search of many ended."""

    planned: PlannedSearch
    report: SearchReport | None
    """Its result; None if it failed."""
    error: str | None = None
    """Why it failed."""


def find_runs(places: Sequence[str]) -> list[str]:
    """The runs that are meant: run folders, and those among what patterns such as runs/* match, in order of name.

    Raises:
        DataError: a pattern matches no run.
    """
    found: dict[str, None] = {}
    for place in places:
        if is_remote(place) or not glob.has_magic(place) or Path(place).exists():
            found[place] = None
            continue
        runs = [match for match in sorted(glob.glob(place)) if (Path(match) / "config.json").is_file()]
        if not runs:
            raise DataError(f"run: {place} matches no run; name folders that `sr3 train` wrote")
        found |= dict.fromkeys(runs)
    return list(found)


def plan_searches(places: Sequence[str], config: SearchesConfig) -> list[PlannedSearch]:
    """Every search: of each run's stages, by rising budgets.

    Raises:
        ConfigError: a run has no such stage, or none to search.
        DataError: there is no such run, or stages of one name were trained on different data.
    """
    runs = [open_run(place) for place in find_runs(places)]
    stages = {run.location: config.stage or tuple(stage.name for stage in run.cascade()) for run in runs}
    for run in runs:
        if not stages[run.location]:
            raise ConfigError(f"run: {run.location} has no SR3 stage, whose schedule could be searched; leave it out")
        for stage in stages[run.location]:
            run.stage(stage)
    refuse_different_data(runs, stages)
    return [
        PlannedSearch(run.location, each)
        for run in runs
        for stage in stages[run.location]
        for each in sorted(config.searches(stage), key=lambda each: each.num_steps)
    ]


def refuse_different_data(runs: Sequence[Run], stages: dict[str, tuple[str, ...]]) -> None:
    """Refuse runs whose distances would stand in one table, but be measured on different images.

    Raises:
        DataError: names two such runs and their data.
    """
    seen: dict[str, Run] = {}
    for run in runs:
        for data_stage in {run.stage(name).config.data_stage for name in stages[run.location]}:
            first = seen.setdefault(data_stage, run)
            (ours, here), (theirs, there) = (
                (one.data_fingerprints.get(data_stage), f"{describe_data(one.data)}, {data_stage}")
                for one in (run, first)
            )
            if ours != theirs:
                raise DataError(
                    f"run: {first.location} and {run.location} were trained on different data: {there} ({theirs}) and"
                    f" {here} ({ours}). Their distances do not compare in one report; search them by two commands"
                )


def search_all(
    planned: Sequence[PlannedSearch], wait: bool = False, report: Callable[[str], None] = print_line
) -> Iterator[SearchOutcome]:
    """Search one after the other, each with the whole cluster; one that fails does not stop the others.

    Needs a running Ray. Each is found finished, or resumed, if the same command ran before.

    Args:
        planned: the searches.
        wait: whether to wait where another process searches the same stage.
        report: receives lines of progress.

    Raises:
        LeaseLostError: another process has taken a lease that this one holds.
    """
    for number, one in enumerate(planned, start=1):
        report(f"search {number} of {len(planned)}: {one.name}")
        found, error = None, None
        try:
            with working_in(one.run, "searching", one.config.stage, wait):
                found = search(one.run, one.config, report).report
        except LeaseLostError:
            raise
        except Sr3Error as problem:
            error = str(problem)
            report(f"search {number} of {len(planned)} failed: {error}")
        yield SearchOutcome(one, found, error)
