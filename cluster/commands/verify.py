"""`sr3 verify`: prepared shards, checked again."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from cluster.exits import DONE, FAILURE
from cluster.loading import loading
from cluster.options.reading import CommandLine
from pipelines.settings.locations import Location


@dataclass(frozen=True, kw_only=True)
class Options:
    """Check prepared shards: every planned shard exists, is complete, and has the recorded offsets and checksums."""

    path: Annotated[Location, tyro.conf.Positional]
    """Folder or s3:// prefix that `sr3 prepare` wrote, or one stage of it."""
    contact_sheet: Location | None = None
    """PNG file for a contact sheet: random records of a stage, to look at."""
    num_records: int = 24
    """Records on the contact sheet."""


COMMAND_LINE = CommandLine(
    name="verify",
    options=Options,
    essential=("PATH", "--contact-sheet", "--num-records"),
    examples=("sr3 verify data", "sr3 verify data/64-256 --contact-sheet sheet.png"),
)


def run(options: Options) -> int:
    """`sr3 verify DIR`, `sr3 verify DIR/64-256 --contact-sheet sheet.png`."""
    with loading():
        from pipelines.prepare.finished.contact_sheet import contact_sheet
        from pipelines.prepare.finished.verify import describe, verify
        from pipelines.storage.writable import refuse_unwritable_file

    refuse_unwritable_file("contact-sheet", options.contact_sheet, ".png")
    problems = verify(options.path)
    print(describe(options.path, problems))
    if options.contact_sheet is not None:
        contact_sheet(options.path, options.contact_sheet, options.num_records)
        print(options.contact_sheet)
    return FAILURE if problems else DONE
