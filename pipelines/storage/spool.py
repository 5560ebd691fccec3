"""Bytes that are put aside while there may be too many for the memory."""

import heapq
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from pipelines.storage.local_files import local_errors

_MEMORY_BYTES = 1 << 25
"""What a spool holds in memory; more goes to a file in the system's temporary folder ($TMPDIR), which has no name."""

_RUN_RECORDS = 100_000
"""Records that are sorted at a time in memory."""
_BLOCK_RECORDS = 200
"""Records of a run that are in memory at a time while runs are merged: of 1,000 runs, 100 million records, 200,000."""


class Extent(NamedTuple):
    """Where one piece lies in a spool."""

    offset: int
    """Its first byte."""
    size: int
    """Bytes."""


class Spool:
    """Pieces of bytes, to be read again in any order while the spool lives."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115
        self.num_bytes = 0

    def append(self, data: bytes) -> Extent:
        """Put a piece aside.

        Raises:
            StorageError: the temporary folder is full.
        """
        with local_errors(f"{tempfile.gettempdir()} (choose another folder by TMPDIR)"):
            self._file.seek(self.num_bytes)
            self._file.write(data)
        extent = Extent(self.num_bytes, len(data))
        self.num_bytes += len(data)
        return extent

    def read(self, extent: Extent) -> bytes:
        """Read a piece."""
        self._file.seek(extent.offset)
        return self._file.read(extent.size)


T = TypeVar("T", bound=Any)


class SortedSpool(Generic[T]):
    """Records that can be compared and pickled, to be read in order, any number of times."""

    def __init__(self) -> None:
        self.num_records = 0
        self._spool = Spool()
        self._recent: list[T] = []
        self._runs: list[list[Extent]] = []

    def add(self, record: T) -> None:
        """Put a record aside.

        Raises:
            StorageError: the temporary folder is full.
        """
        self._recent.append(record)
        self.num_records += 1
        if len(self._recent) == _RUN_RECORDS:
            self._runs.append(self._aside(sorted_blocks(self._recent)))
            self._recent = []

    def add_runs(self, runs: Iterable[list[bytes]]) -> None:
        """Put aside what another one, perhaps of another process, had; see runs."""
        for blocks in runs:
            first, last = (pickle.loads(blocks[end]) for end in (0, -1))
            if len(blocks) == 1:  # too few for a run of their own, which would be one more to merge
                for record in first:
                    self.add(record)
                continue
            self.num_records += (len(blocks) - 1) * len(first) + len(last)
            self._runs.append(self._aside(blocks))

    def runs(self) -> list[list[bytes]]:
        """All records, for add_runs."""
        recent = [sorted_blocks(self._recent)] if self._recent else []
        return [[self._spool.read(extent) for extent in run] for run in self._runs] + recent

    def _aside(self, blocks: Iterable[bytes]) -> list[Extent]:
        return [self._spool.append(block) for block in blocks]

    def __iter__(self) -> Iterator[T]:
        return heapq.merge(*map(self._read, self._runs), sorted(self._recent))

    def _read(self, run: list[Extent]) -> Iterator[T]:
        return (record for extent in run for record in pickle.loads(self._spool.read(extent)))


def sorted_blocks(records: list[Any]) -> list[bytes]:
    """Records in order, so many to a block, pickled."""
    records = sorted(records)
    blocks = (records[start : start + _BLOCK_RECORDS] for start in range(0, len(records), _BLOCK_RECORDS))
    return [pickle.dumps(block, pickle.HIGHEST_PROTOCOL) for block in blocks]
