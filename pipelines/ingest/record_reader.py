"""Reading single records of prepared shards: by byte ranges, or from the cached copies of whole shards."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from pipelines.ingest.compact_index import MAX_INDEX_BYTES, Extent, IndexCache
from pipelines.ingest.shard_cache import ShardCache
from pipelines.shards.fields import FieldRecord, read_field
from pipelines.shards.manifest import ShardEntry
from pipelines.shards.records import Record, read_record
from pipelines.storage.uris import join, read_range
from sr3core.errors import DataError

T = TypeVar("T")


class RecordReader:
    """Random access to the records of a prepared stage; safe for threads.

    Args:
        directory: folder of the stage.
        cache: holds whole shards on a local disk. What it does not hold is read from the directory, record by record:
            nothing waits for a download.
        max_index_bytes: bound on the memory of the indices.
    """

    def __init__(self, directory: str, cache: ShardCache | None = None, max_index_bytes: int = MAX_INDEX_BYTES) -> None:
        self._directory, self._cache = directory, cache
        self._indices = IndexCache(directory, max_index_bytes)

    def read(self, shard: ShardEntry, index: int) -> Record:
        """Read one record; its members lie side by side in the tar, so one range read gets them all.

        Raises:
            DataError: the record is damaged; if that is the cached copy's fault, it is deleted, and the record read
                from the directory.
            StorageError: the shard cannot be read.
        """
        return self._read(shard, index, read_record)

    def read_field(self, shard: ShardEntry, index: int) -> FieldRecord:
        """The same for a shard of fields."""
        return self._read(shard, index, read_field)

    def _read(self, shard: ShardEntry, index: int, parse: Callable[[str, Mapping[str, bytes]], T]) -> T:
        extent = self._indices[shard.name][index]
        data = self._cached(shard, extent)
        if data is not None:
            try:
                return parse(extent.key, _members(extent, data))
            except DataError:
                if self._cache is None or not self._cache.discard_if_damaged(shard):
                    raise
        data = read_range(join(self._directory, shard.name), extent.first, extent.size)
        return parse(extent.key, _members(extent, data))

    def _cached(self, shard: ShardEntry, extent: Extent) -> bytes | None:
        return None if self._cache is None else self._cache.read(shard, extent.first, extent.size)


def _members(extent: Extent, data: bytes) -> dict[str, bytes]:
    return {name: data[offset : offset + size] for name, (offset, size) in extent.members.items()}
