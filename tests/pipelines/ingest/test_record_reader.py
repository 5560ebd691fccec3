"""Reading records through a cache: what it lacks comes from the folder, and a damaged copy heals."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.shard_cache import ShardCache
from pipelines.ingest.split_reader import SplitReader
from sr3core.errors import DataError
from tests.synthetic_shards import write_shards


def spoil(tar: Path) -> None:
    content = bytearray(tar.read_bytes())
    content[600:-600] = b"\xff" * (len(content) - 1200)
    tar.write_bytes(content)


def test_a_damaged_copy_in_the_cache_is_replaced_and_a_damaged_shard_is_named(tmp_path):
    split = SplitReader(write_shards(tmp_path / "data", "8-16", [4]), "8-16", "train")
    (shard,) = split.shards
    expected = RecordReader(split.directory).read(shard, 2)
    cache = ShardCache(tmp_path / "cache", 10**6)
    reader = RecordReader(split.directory, cache)
    np.testing.assert_array_equal(reader.read(shard, 2).high, expected.high)
    original = Path(split.directory) / shard.name
    cache.fetch(str(original), shard)
    copy = tmp_path / "cache" / f"{shard.sha256}.tar"
    original.rename(tmp_path / "away")
    np.testing.assert_array_equal(reader.read(shard, 2).high, expected.high)  # from the cache alone
    (tmp_path / "away").rename(original)
    spoil(copy)
    np.testing.assert_array_equal(reader.read(shard, 2).high, expected.high)
    assert not copy.exists()
    spoil(original)
    with pytest.raises(DataError, match=r"hr is damaged.*run `sr3 verify`"):
        reader.read(shard, 2)
