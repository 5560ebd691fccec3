"""`sr3 search`: the inference schedules of trained stages."""

from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Annotated

from cluster.exits import DONE, FAILURE
from cluster.loading import loading
from cluster.options.declared import Configured, Flat, OnRay, Writing
from cluster.options.reading import CommandLine, print_configuration
from cluster.session import ray_session
from pipelines.settings.locations import DataLocation, Location
from pipelines.settings.mixtures import read_data
from sr3core.errors import ConfigError
from tune.search.settings import SearchConfig, SearchesConfig

if TYPE_CHECKING:
    from tune.search.results.publication import SearchResult
    from tune.sweeps.searches import PlannedSearch


@dataclass(frozen=True, kw_only=True)
class Options(Configured, Writing, OnRay):
    """Search for trained stages' inference schedules by FID on held-out images (section 2.4)."""

    run: tuple[Location, ...]
    """Run folder that `sr3 train` wrote. Several, or a pattern such as 'runs/*', are searched one after the other;
    --runs is the same."""
    out: Location | None = None
    """Folder for a report of several searches: a table, and a chart a stage."""
    data: tuple[DataLocation, ...] = ()
    """Where the data that the run was trained on are now, if they were moved; the run remembers it."""
    config: Annotated[SearchesConfig, Flat]

    @property
    def single(self) -> SearchConfig | None:
        """The only search that is asked for; None if there may be several."""
        is_pattern = any(letter in place for place in self.run for letter in "*?[")
        if is_pattern or not len(self.run) == len(self.config.stage) == len(self.config.num_steps) == 1:
            return None
        return self.config.searches(self.config.stage[0])[0]


COMMAND_LINE = CommandLine(
    name="search",
    options=Options,
    essential=(
        *("--run", "--stage", "--num-steps", "--num-trials", "--num-images", "--objective", "--num-refinements"),
        *("--num-concurrent", "--gpus-per-trial", "--data", "--out", "--dry-run", "--config", "--address"),
    ),
    examples=(
        "sr3 search --run runs/faces --stage 64-256",
        "sr3 search --run runs/faces --stage 16-64 --num-steps 10 --num-refinements 16 --objective kid",
        "sr3 search --runs 'runs/*' --num-steps 10 25 50 100 --out searches",
    ),
)


def read(arguments: list[str]) -> Options:
    """Read the options; --runs is another word for --run."""
    spelt = [f"--run{word.removeprefix('--runs')}" if word.split("=")[0] == "--runs" else word for word in arguments]
    return COMMAND_LINE.read(spelt)


def run(options: Options) -> int:
    """`sr3 search --run RUN --stage 16-128`, and of several runs, stages or budgets."""
    if options.print_config:
        print_configuration(options)
        return DONE
    config = options.single
    if config is None:
        return _run_several(options)
    with loading():
        from pipelines.storage.leases.folder_lease import refuse_if_busy, working_in

    place = options.run[0]
    if options.dry_run:
        refuse_if_busy(place, "searching", config.stage)
        for line in _checked(place, config, options):
            print(line)
        return DONE
    with working_in(place, "searching", config.stage, options.wait):
        _checked(place, config, options)
        with loading():
            from tune.search.schedule_search import search

        with ray_session(options.address):
            result = search(place, config)
    for line in describe_search(result, place):
        print(line)
    return DONE


def _run_several(options: Options) -> int:
    """Every search is checked before Ray starts; one that fails later does not stop the others."""
    with loading():
        from pipelines.storage.writable import refuse_unwritable_folder
        from tune.sweeps.searches import find_runs, plan_searches

    if options.data and len(find_runs(options.run)) > 1:
        raise ConfigError("data: it says where one run's data are now; give it with each moved run alone, once")
    if options.out is not None:
        refuse_unwritable_folder(options.out)
    planned = plan_searches(options.run, options.config)
    for one in planned:
        lines = _checked(one.run, one.config, options)
        if options.dry_run:
            print(f"{one.name}: {'; '.join(lines)}")
    if options.dry_run:
        return DONE
    return _search_and_report(planned, options)


def _search_and_report(planned: "list[PlannedSearch]", options: Options) -> int:
    with loading():
        from tune.sweeps.search_results import format_table, write_report
        from tune.sweeps.searches import search_all

    outcomes = []
    with ray_session(options.address):
        for outcome in search_all(planned, options.wait):
            outcomes.append(outcome)
            if options.out is not None:  # what is known is there if the command is stopped
                write_report(outcomes, options.out)
    print(format_table(outcomes), end="")
    if options.out is not None:
        print(f"report: {quote(options.out)}/table.md")
    print("next: sr3 upscale PHOTOS --run RUN --out DIR    (takes the best schedule of most steps)")
    return FAILURE if any(one.error for one in outcomes) else DONE


def describe_search(result: "SearchResult", run: str) -> Iterator[str]:
    """What the search found, where it is, and the next command."""
    from pipelines.report.next_commands import upscaling
    from pipelines.report.verdict import search_verdict
    from pipelines.runs.run_folder import open_run
    from sr3core.config import to_dict

    yield search_verdict(to_dict(result.report))
    yield f"published: {result.schedule.name}, in {result.schedule_path}; all trials: {result.path}"
    yield f"next: {upscaling(open_run(run))}    (takes this schedule)"


def _checked(place: str, config: SearchConfig, options: Options) -> list[str]:
    """What the search would do, in lines; refuses what cannot be searched, and remembers moved data."""
    with loading():
        from pipelines.runs.run_data import remember_data, require_data, with_data
        from pipelines.runs.run_folder import open_run
        from tune.search.objective.held_out_images import fit_to_images

    run, lines = with_data(open_run(place), read_data(options.data) if options.data else None), []
    stage = run.stage(config.stage)
    checkpoint = stage.weights.newest()
    require_data(run, stage.config.data_stage, config.split, 0, fields=True)
    config = fit_to_images(stage, config, lines.append)
    if not options.dry_run:
        remember_data(run)
    return [*lines, f"would try {config.num_trials} schedules on {config.num_images} images for {checkpoint.path}"]
