"""`sr3 study results`: what the answers of a human study say."""

from dataclasses import dataclass
from shlex import quote
from typing import Annotated

import tyro

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.reading import CommandLine
from pipelines.settings.locations import DatabaseAddress, Location
from sr3core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compute fool rates, two-way bootstrap intervals and tests of a study, or of one study per task side by side."""

    studies: Annotated[tuple[Location, ...], tyro.conf.Positional]
    """Folders that `sr3 study new` wrote, at most one per task."""
    database: tuple[DatabaseAddress, ...] = ()
    """Database address of each study, in the same order; default: STUDY/study.sqlite."""
    out: Location | None = None
    """Folder for results.json, trials.csv, trials.json and figures/; default: the first study's."""
    num_replicates: int = 10_000
    """Replicates of the bootstrap."""

    def __post_init__(self) -> None:
        if not self.studies:
            raise ConfigError("studies: name at least one folder that `sr3 study new` wrote")


COMMAND_LINE = CommandLine(
    name="study results",
    options=Options,
    essential=("STUDIES", "--database", "--out", "--num-replicates"),
    examples=("sr3 study results studies/faces", "sr3 study results studies/task-1 studies/task-2 --out results"),
)


def run(options: Options) -> int:
    """`sr3 study results STUDY…`."""
    with loading():
        from pipelines.storage.writable import refuse_unwritable_folder
        from pipelines.study.results import tabulate, write_results

    refuse_unwritable_folder(options.out or options.studies[0])
    found = write_results(options.studies, options.database, options.out, options.num_replicates)
    print(tabulate(found))
    out = quote(options.out or options.studies[0])
    print(f"next: sr3 report RUN --study {out}    (figures and trials are in {out})")
    return DONE
