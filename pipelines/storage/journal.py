"""Numbered entries that are never changed; the last one counts. So a file is compared and swapped on any storage.

Entry n + 1 is created by one process alone, the first of all that have seen n as the last: on a disk by a link that
never replaces, on S3 by a put with If-None-Match. Nothing else is asked of the storage, and what was before is history.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.storage.uris import create, delete, exists, join, list_files, read_bytes
from sr3core.errors import StorageError

_NAME = re.compile(r"(\d{8})\.json")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry."""

    number: int
    """From 1; 0 where there is none yet."""
    content: dict[str, Any]
    """What was written."""


NOTHING = Entry(0, {})


@dataclass(frozen=True, slots=True)
class Journal:
    """A folder or prefix of entries."""

    uri: str

    def last(self) -> Entry:
        """The newest entry; NOTHING where there is none.

        Raises:
            StorageError: it cannot be read.
        """
        while True:
            numbers = self._numbers()
            if not numbers:
                return NOTHING
            try:
                return self._read(numbers[-1])
            except StorageError:
                if self._numbers()[-1:] == numbers[-1:]:  # else it was forgotten meanwhile, since there is a newer one
                    raise

    def entries(self) -> Iterator[Entry]:
        """All entries, the oldest first."""
        yield from map(self._read, self._numbers())

    def append(self, after: Entry, content: dict[str, Any]) -> Entry | None:
        """Write the entry that follows `after`; None if another process was first.

        Args:
            after: the last entry that the writer knows of.
            content: JSON data that no other writer would write, such as a name of its own in it.
        """
        number = after.number + 1
        if not create(self._path(number), (json.dumps(content, indent=1) + "\n").encode()):
            return None
        there = self._numbers()
        forgotten = after.number not in (0, *there) or (there[-1] > number and number + 1 not in there)
        if forgotten:  # `after` was so old that what followed it has been deleted: others were first, long ago
            delete(self._path(number))
            return None
        return Entry(number, content)

    def forget(self, before: int) -> None:
        """Delete the entries below a number; never the last one."""
        for number in self._numbers()[:-1]:
            if number < before:
                delete(self._path(number))

    def _numbers(self) -> list[int]:
        if not exists(self.uri):
            return []
        return sorted(int(found[1]) for name, _ in list_files(self.uri) if (found := _NAME.fullmatch(name)))

    def _read(self, number: int) -> Entry:
        path = self._path(number)
        try:
            return Entry(number, json.loads(read_bytes(path)))
        except ValueError as error:
            raise StorageError(f"{path} is damaged: {error}; delete it to return to the entry before it") from error

    def _path(self, number: int) -> str:
        return join(self.uri, f"{number:08d}.json")
