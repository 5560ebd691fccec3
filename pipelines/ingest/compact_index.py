"""Shard indices as a reader keeps them: numpy arrays, under 60 bytes a sample, the least recently used let go."""

import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from pipelines.shards.manifest import ShardIndex, load_index

MAX_INDEX_BYTES = 64 << 20
"""What the indices of a process may take: more than a million samples."""

_ABSENT = -1


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a sample lies in its shard."""

    key: str
    """Its key."""
    first: int
    """Its first byte in the tar."""
    size: int
    """Bytes from there to its end, headers of its members included."""
    members: dict[str, tuple[int, int]]
    """Member name without the key -> (offset from `first`, size)."""


class CompactIndex:
    """The places of a shard's samples."""

    def __init__(self, index: ShardIndex) -> None:
        self._names = tuple(sorted({name for members in index.members for name in members}))
        count = len(index.keys)
        self._keys = np.array([key.encode() for key in index.keys], dtype=bytes)
        self._firsts = np.zeros(count, np.int64)
        self._offsets = np.zeros((count, max(len(self._names) - 1, 0)), np.int32)  # of all members but the first
        self._sizes = np.full((count, len(self._names)), _ABSENT, np.int32)
        self._starts_with = np.zeros(count, np.uint8)
        for row, members in enumerate(index.members):
            first = min(members, key=lambda name: members[name][0])
            self._firsts[row] = members[first][0]
            self._starts_with[row] = self._names.index(first)
            others = [name for name in self._names if name != first]
            for column, name in enumerate(others):
                if name in members:
                    self._offsets[row, column] = members[name][0] - members[first][0]
            self._sizes[row] = [members[name][1] if name in members else _ABSENT for name in self._names]

    @property
    def num_bytes(self) -> int:
        """Memory that it takes."""
        arrays = (self._keys, self._firsts, self._offsets, self._sizes, self._starts_with)
        return sum(array.nbytes for array in arrays)

    def __getitem__(self, sample: int) -> Extent:
        """The place of a sample, by its number in the shard."""
        start = self._names[self._starts_with[sample]]
        others = (name for name in self._names if name != start)
        offsets = {start: 0, **dict(zip(others, self._offsets[sample].tolist(), strict=True))}
        sizes = zip(self._names, self._sizes[sample].tolist(), strict=True)
        members = {name: (offsets[name], size) for name, size in sizes if size != _ABSENT}
        size = max(offset + size for offset, size in members.values())
        return Extent(self._keys[sample].decode(), int(self._firsts[sample]), size, members)


class IndexCache:
    """The indices of a folder's shards, read when they are first needed; safe for threads.

    Args:
        directory: folder of the stage.
        max_bytes: bound on their memory; the index that was asked for last is kept in any case.
    """

    def __init__(self, directory: str, max_bytes: int = MAX_INDEX_BYTES) -> None:
        self._directory, self._max_bytes = directory, max_bytes
        self._kept: OrderedDict[str, CompactIndex] = OrderedDict()
        self._lock = threading.Lock()
        self.num_bytes = 0

    def __getitem__(self, shard: str) -> CompactIndex:
        """The index of a shard, by its file name."""
        with self._lock:
            if shard in self._kept:
                self._kept.move_to_end(shard)
                return self._kept[shard]
        index = CompactIndex(load_index(self._directory, shard))  # two threads may both load it, with the same result
        with self._lock:
            if shard not in self._kept:
                self._kept[shard] = index
                self.num_bytes += index.num_bytes
            while self.num_bytes > self._max_bytes and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self.num_bytes -= oldest.num_bytes
            return index
