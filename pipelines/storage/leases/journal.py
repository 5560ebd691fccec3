"""Compare-and-swap on any storage: numbered entries that never change, of which the last one is in force.

Of all processes that have seen entry n as the last, exactly one creates entry n + 1: on a disk through a hard link,
which never replaces a file, on S3 through a put with If-None-Match. The storage needs nothing else, and older entries
are the history.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.storage.uris import create, delete, exists, is_remote, join, list_files, read_bytes
from sr3core import strict_json
from sr3core.errors import StorageError

_NAME = re.compile(r"(\d{8})\.json")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a journal."""

    number: int
    """Counts from 1; 0 if there is no entry yet."""
    content: dict[str, Any]
    """The JSON data that was written."""


NOTHING = Entry(0, {})


@dataclass(frozen=True, slots=True)
class Journal:
    """A folder or prefix that holds entries."""

    uri: str

    def last(self) -> Entry:
        """The newest entry, or NOTHING if there is none.

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
                if self._numbers()[-1:] == numbers[-1:]:  # else a newer one came, and this one was deleted meanwhile
                    raise

    def entries(self) -> Iterator[Entry]:
        """All entries, the oldest first."""
        yield from map(self._read, self._numbers())

    def append(self, after: Entry, content: dict[str, Any], is_last: bool = False) -> Entry | None:
        """Write the entry that follows `after`; None if another process was faster.

        Args:
            after: the last entry that the writer knows of.
            content: JSON data that no other writer would write, for example because it holds a random number.
            is_last: the writer knows that `after` is still there, which saves a listing.
        """
        number = after.number + 1
        if not create(self._path(number), (strict_json.dumps(content, indent=1) + "\n").encode()):
            return None
        if is_last:
            return Entry(number, content)
        there = self._numbers()
        forgotten = after.number not in (0, *there) or (there[-1] > number and number + 1 not in there)
        if forgotten:  # `after` is so old that its successors have been deleted: others were faster, long ago
            delete(self._path(number))
            return None
        return Entry(number, content)

    def forget(self, before: int) -> None:
        """Delete the entries below a number; never the last one."""
        for number in self._numbers()[:-1]:
            if number < before:
                delete(self._path(number))

    def forget_all(self, last: Entry) -> None:
        """Delete all entries up to the last one, the oldest first, so that the last one is in force until the end."""
        for number in self._numbers():
            if number <= last.number:
                delete(self._path(number))

    def forget_one(self, number: int) -> None:
        """Delete an entry that is not the last one, if it exists."""
        if number > 0:
            delete(self._path(number))

    def _numbers(self) -> list[int]:
        if not is_remote(self.uri) and not exists(self.uri):
            return []
        return sorted(int(found[1]) for name, _ in list_files(self.uri) if (found := _NAME.fullmatch(name)))

    def _read(self, number: int) -> Entry:
        path = self._path(number)
        try:
            content = strict_json.loads(read_bytes(path))
            if not isinstance(content, dict):
                raise ValueError("it holds no JSON object")
            return Entry(number, content)
        except (ValueError, RecursionError) as error:
            raise StorageError(f"{path} is damaged: {error}; delete it to return to the entry before it") from error

    def _path(self, number: int) -> str:
        return join(self.uri, f"{number:08d}.json")
