"""`sr3 status`: the progress of a run or a preparation."""

import sys
import time
from collections.abc import Callable
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
    watch: bool = False
    """Print it again whenever it has changed, until it is interrupted or nothing runs any more."""


WATCH_SECONDS = 2.0
COMMAND_LINE = CommandLine(
    name="status",
    options=Options,
    essential=("PATH", "--as-json", "--watch"),
    examples=("sr3 status runs/faces", "sr3 status runs/faces --watch", "sr3 status s3://bucket/data --as-json"),
)


def run(options: Options) -> int:
    """`sr3 status PATH`."""
    with loading():
        from pipelines.report.status import describe, status_of
        from pipelines.storage.leases.folder_lease import is_busy

    def told() -> str:
        found = status_of(options.path)
        return strict_json.dumps(found, indent=1) if options.as_json else describe(found)

    if options.watch:
        watch(told, lambda: is_busy(options.path, "training") or is_busy(options.path, "preparing"))
    else:
        print(told())
    return DONE


def watch(told: Callable[[], str], runs: Callable[[], bool], seconds: float = WATCH_SECONDS) -> None:
    """Print what is told, and again whenever it is another text, as long as something runs; on a terminal in its place.

    Args:
        told: the status.
        runs: whether a command works in the folder.
        seconds: between two looks.
    """
    shown = None
    while True:
        lasts = runs()  # before the status, so that the last one printed is the final one
        text = told()
        if text != shown:
            print(("\x1b[H\x1b[2J" if sys.stdout.isatty() else "") + text, flush=True)
        shown = text
        if not lasts:
            return
        time.sleep(seconds)
