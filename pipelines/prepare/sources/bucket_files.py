"""The files of a source in a bucket, listed by tasks side by side."""

from collections.abc import Iterator, Sequence
from functools import partial

from pipelines.images.file_names import IgnoredFiles, IgnoreReason
from pipelines.images.folder_files import usable_files
from pipelines.runtime.tasks import map_in_tasks
from pipelines.storage.buckets.s3_listing import Branch, branches, list_branches
from pipelines.storage.uris import remote_entry

_BRANCHES_PER_TASK = 32
"""As many as are listed at once."""

Listed = tuple[list[tuple[str, int]], list[tuple[str, IgnoreReason]]]
"""Names and sizes of files that may be images or archives, and the others with their reasons."""


def files_in_bucket(uri: str, ignored: IgnoredFiles, outputs: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield what pipelines.images.folder_files.each_file_below yields, in the same order.

    Raises:
        StorageError: it cannot be listed, perhaps only at the moment.
    """
    found = branches(uri)
    groups = (found[start : start + _BRANCHES_PER_TASK] for start in range(0, len(found), _BRANCHES_PER_TASK))
    for files, others in map_in_tasks(partial(_list, uri, outputs), groups):
        for name, reason in others:
            ignored.add(name, reason)
        yield from files


def _list(uri: str, outputs: Sequence[str], some: Sequence[Branch]) -> Listed:
    """The files of some branches: one task."""
    ignored = IgnoredFiles()
    entries = (remote_entry(name, size) for name, size in list_branches(uri, some))
    return list(usable_files(uri, entries, ignored, outputs)), list(ignored)
