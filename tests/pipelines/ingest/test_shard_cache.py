"""The cache of remote shards: bounded, checked, shared."""

import hashlib
import threading

import pytest

from pipelines.ingest.shard_cache import ShardCache
from pipelines.shards.manifest import ShardEntry
from sr3core.errors import DataError, StorageError


@pytest.fixture
def shards(tmp_path):
    """Three shards of 1000 bytes, as (uri, entry)."""
    made = []
    for index in range(3):
        content = bytes([index]) * 1000
        path = tmp_path / f"train-{index}.tar"
        path.write_bytes(content)
        made.append((str(path), ShardEntry(path.name, 1, 1000, hashlib.sha256(content).hexdigest())))
    return made


def test_a_shard_is_fetched_once_and_read_anywhere(shards, tmp_path):
    cache = ShardCache(tmp_path / "cache", 10_000)
    uri, entry = shards[1]
    assert cache.read(uri, entry, 10, 5) == b"\x01" * 5
    (tmp_path / "train-1.tar").unlink()  # the bucket is gone: what follows comes from the cache
    assert cache.read(uri, entry, 990, 10) == b"\x01" * 10
    with pytest.raises(StorageError):
        ShardCache(tmp_path / "other", 10_000).read(uri, entry, 0, 1)


def test_it_never_keeps_more_than_its_bound_and_evicts_the_least_recently_used(shards, tmp_path):
    cache = ShardCache(tmp_path / "cache", 2_000)
    for uri, entry in (shards[0], shards[1], shards[0], shards[2]):
        cache.read(uri, entry, 0, 1)
    kept = {path.stem for path in (tmp_path / "cache").glob("*.tar")}
    assert kept == {shards[0][1].sha256, shards[2][1].sha256}


def test_bytes_that_the_manifest_does_not_promise_are_refused(shards, tmp_path):
    uri, entry = shards[0]
    (tmp_path / "train-0.tar").write_bytes(b"other bytes")
    with pytest.raises(DataError, match="is not the shard that its manifest describes"):
        ShardCache(tmp_path / "cache", 10_000).read(uri, entry, 0, 1)
    assert list((tmp_path / "cache").glob("*.tar")) == []


def test_many_readers_with_room_for_one_shard_all_get_their_bytes(shards, tmp_path):
    cache = ShardCache(tmp_path / "cache", 1_000)
    wrong = []

    def read(index):
        uri, entry = shards[index]
        for _ in range(30):
            if cache.read(uri, entry, 0, 1000) != bytes([index]) * 1000:
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(index,)) for index in (0, 1, 2, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
