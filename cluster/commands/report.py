"""`sr3 report`: a run's results as one HTML file."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.reading import CommandLine
from pipelines.settings.locations import Location
from sr3core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Write RUN/report.html: one self-contained file, with the paper's tables beside this run's."""

    runs: Annotated[tuple[Location, ...], tyro.conf.Positional]
    """Run folder; further ones fill in the paper's tables for their tasks: an ablation, a run of another size."""
    study: Location | None = None
    """Folder that `sr3 study results` wrote to; default: RUN/study, if it exists."""


COMMAND_LINE = CommandLine(
    name="report",
    options=Options,
    essential=("RUNS", "--study"),
    examples=("sr3 report runs/faces", "sr3 report runs/faces runs/ablation --study studies/faces"),
)


def read(arguments: list[str]) -> Options:
    """Read the options.

    Raises:
        ConfigError: no run is named.
    """
    options = COMMAND_LINE.read(arguments)
    if not options.runs:
        raise ConfigError("name a run folder: `sr3 report RUN`")
    return options


def run(options: Options) -> int:
    """`sr3 report RUN…`."""
    with loading():
        from pipelines.report.html_report import write_report

    first, *others = options.runs
    print(f"open in a browser: {write_report(first, options.study, others)}")
    return DONE
