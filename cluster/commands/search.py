"""`sr3 search`: the inference schedule of a trained stage."""

from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Annotated

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.declared import Configured, Flat, OnRay, Writing
from cluster.options.reading import CommandLine, print_configuration
from cluster.session import ray_session
from pipelines.settings.locations import DataLocation, Location
from pipelines.settings.mixtures import read_data
from tune.search.settings import SearchConfig

if TYPE_CHECKING:
    from tune.search.results.publication import SearchResult


@dataclass(frozen=True, kw_only=True)
class Options(Configured, Writing, OnRay):
    """Search for a trained stage's inference schedule by FID on held-out images (section 2.4)."""

    run: Location
    """Run folder that `sr3 train` wrote."""
    data: tuple[DataLocation, ...] = ()
    """Where the data that the run was trained on are now, if they were moved; the run remembers it."""
    config: Annotated[SearchConfig, Flat]


COMMAND_LINE = CommandLine(
    name="search",
    options=Options,
    essential=(
        *("--run", "--stage", "--num-steps", "--num-trials", "--num-images", "--objective", "--num-refinements"),
        *("--num-concurrent", "--gpus-per-trial", "--data", "--dry-run", "--config", "--address"),
    ),
    examples=(
        "sr3 search --run runs/faces --stage 64-256",
        "sr3 search --run runs/faces --stage 16-64 --num-steps 10 --num-refinements 16 --objective kid",
    ),
)


def run(options: Options) -> int:
    """`sr3 search --run RUN --stage 16-128`."""
    if options.print_config:
        print_configuration(options)
        return DONE
    with loading():
        from pipelines.storage.folder_lease import refuse_if_busy, working_in

    if options.dry_run:
        refuse_if_busy(options.run, "searching", options.config.stage)
        for line in _checked(options):
            print(line)
        return DONE
    with working_in(options.run, "searching", options.config.stage, options.wait):
        _checked(options)
        with loading():
            from tune.search.schedule_search import search

        with ray_session(options.address):
            result = search(options.run, options.config)
    for line in describe_search(result, options.run):
        print(line)
    return DONE


def describe_search(result: "SearchResult", run: str) -> Iterator[str]:
    """What the search found, where it is, and the next command."""
    from pipelines.report.verdict import search_verdict
    from sr3core.config import to_dict

    yield search_verdict(to_dict(result.report))
    yield f"published: {result.schedule.name}, in {result.schedule_path}; all trials: {result.path}"
    yield f"next: sr3 upscale PHOTOS --run {quote(run)} --out DIR    (takes this schedule)"


def _checked(options: Options) -> list[str]:
    """What the search would do, in lines; refuses what cannot be searched, and remembers moved data."""
    with loading():
        from pipelines.runs.run_data import remember_data, require_data, with_data
        from pipelines.runs.run_folder import open_run
        from tune.search.objective.held_out_images import fit_to_images

    run, lines = with_data(open_run(options.run), read_data(options.data) if options.data else None), []
    stage = run.stage(options.config.stage)
    checkpoint = stage.weights.newest()
    require_data(run, stage.config.data_stage, options.config.split, 0)
    config = fit_to_images(stage, options.config, lines.append)
    if not options.dry_run:
        remember_data(run)
    return [*lines, f"would try {config.num_trials} schedules on {config.num_images} images for {checkpoint.path}"]
