"""What a source holds besides images that are taken as they are: told to the user, and all of it named in a file."""

from collections.abc import Iterator

from pipelines.prepare.sources.items import Source
from pipelines.settings.prepare import PrepareConfig
from pipelines.storage.atomic_writers import write_pieces
from pipelines.storage.uris import delete, join
from sr3core import strict_json

IGNORED = "ignored.jsonl"
"""File in a preparation's folder that names every file of the source that is not among its images, and why."""

_NUM_CLASSES_SHOWN = 5


def remarks_of(source: Source) -> Iterator[str]:
    """Lines on what a source holds besides images to be trained on as they are."""
    yield from source.ignored.remarks()
    if source.class_names:
        shown = [f"{name!r} is {number}" for number, name in enumerate(source.class_names[:_NUM_CLASSES_SHOWN])]
        shown += ["..."] * (len(source.class_names) > len(shown))
        yield f"classes, numbered by the alphabetical order of their names: {', '.join(shown)}"


def write_ignored(config: PrepareConfig, source: Source) -> tuple[str, ...]:
    """Write the names of all that a source's preparation ignores; returns the remarks, which say where."""
    remarks = tuple(remarks_of(source))
    path = join(config.out, IGNORED)
    if not source.ignored:
        delete(path)
        return remarks
    encode = strict_json.row_encoder()  # of whole rows, it would take three times as long
    rows = (f'{{"path": {encode(name)}, "reason": {encode(reason)}}}\n' for name, reason in source.ignored)
    write_pieces(path, map(str.encode, rows))
    return f"{remarks[0]}; {path} names them all", *remarks[1:]
