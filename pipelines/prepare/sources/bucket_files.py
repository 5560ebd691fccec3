"""The files of a source in a bucket, listed by tasks side by side."""

from collections.abc import Iterator, Sequence
from functools import partial

from pipelines.images.file_names import IgnoredFiles, IgnoredPart
from pipelines.images.folder_files import usable_files
from pipelines.runtime.tasks import map_in_tasks
from pipelines.storage.buckets.s3_listing import Branch, branches, divide_by_names, list_branches
from pipelines.storage.uris import remote_entry

_BRANCHES_PER_TASK = 32
"""As many as are listed at once."""

Listed = tuple[list[tuple[str, int]], IgnoredPart, list[Branch]]
"""Names and sizes of files that may be images or archives, the others with their reasons, and what is left to list."""


def files_in_bucket(uri: str, ignored: IgnoredFiles, outputs: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield what pipelines.images.folder_files.each_file_below yields, in another order where a folder is large.

    A task lists a bounded number of names, so that no process holds those of a folder with millions. What it leaves is
    divided by the names, and listed side by side in the next round.

    Raises:
        StorageError: it cannot be listed, perhaps only at the moment.
    """
    left = branches(uri)
    while left:
        rest: list[Branch] = []
        groups = [left[start : start + _BRANCHES_PER_TASK] for start in range(0, len(left), _BRANCHES_PER_TASK)]
        for files, others, more in map_in_tasks(partial(_list, uri, outputs), groups):
            rest += more
            ignored.merge(others)
            yield from files
        left = divide_by_names(uri, rest)


def _list(uri: str, outputs: Sequence[str], some: Sequence[Branch]) -> Listed:
    """The files of some branches: one task."""
    ignored = IgnoredFiles()
    found, left = list_branches(uri, some)
    entries = (remote_entry(name, size) for name, size in found)
    return list(usable_files(uri, entries, ignored, outputs)), ignored.packed(), left
