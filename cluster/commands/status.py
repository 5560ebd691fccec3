"""`sr3 status`: the progress of a run or a preparation."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.reading import CommandLine
from pipelines.settings.locations import Location
from sr3core import strict_json


@dataclass(frozen=True, kw_only=True)
class Options:
    """Show the progress of a run or a preparation, also while it is running on this machine or elsewhere."""

    path: Annotated[Location, tyro.conf.Positional]
    """Run folder, or the folder of a preparation."""
    as_json: bool = False
    """Print JSON."""


COMMAND_LINE = CommandLine(
    name="status",
    options=Options,
    essential=("PATH", "--as-json"),
    examples=("sr3 status runs/faces", "sr3 status s3://bucket/data --as-json"),
)


def run(options: Options) -> int:
    """`sr3 status PATH`."""
    with loading():
        from pipelines.report.status import describe, status_of

    found = status_of(options.path)
    print(strict_json.dumps(found, indent=1) if options.as_json else describe(found))
    return DONE
