"""The cache of remote shards: bounded, checked, shared, and one download a shard."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines.ingest import shard_cache
from pipelines.ingest.shard_cache import NoRoomError, ShardCache
from pipelines.shards.manifest import ShardEntry
from sr3core.errors import DataError, StorageError
from tests.commands import ROOT


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


def kept(folder):
    return {path.name for path in folder.iterdir()} - {".lock"}


def name(shard):
    return f"{shard[1].sha256}.tar"


def test_a_shard_is_fetched_once_and_read_anywhere(shards, tmp_path):
    cache = ShardCache(tmp_path / "cache", 10_000)
    uri, entry = shards[1]
    assert cache.read(entry, 10, 5) is None
    cache.fetch(uri, entry)
    (tmp_path / "train-1.tar").unlink()  # the bucket is gone: what follows comes from the cache
    cache.fetch(uri, entry)
    assert cache.read(entry, 10, 5) == b"\x01" * 5
    assert cache.read(entry, 990, 10) == b"\x01" * 10
    with pytest.raises(StorageError):
        ShardCache(tmp_path / "other", 10_000).fetch(uri, entry)
    assert kept(tmp_path / "other") == set()


def test_it_never_keeps_more_than_its_bound_and_evicts_the_least_recently_used(shards, tmp_path):
    cache = ShardCache(tmp_path / "cache", 2_000)
    for shard in (shards[0], shards[1], shards[0], shards[2]):
        cache.fetch(*shard)
    assert kept(tmp_path / "cache") == {name(shards[0]), name(shards[2])}


def test_bytes_that_the_manifest_does_not_promise_are_refused(shards, tmp_path):
    for content in (b"other bytes", b"\0" * 999, b"\1" * 1000, b"\0" * 1001):
        (tmp_path / "train-0.tar").write_bytes(content)
        with pytest.raises(DataError, match="is not the shard that its manifest describes"):
            ShardCache(tmp_path / "cache", 10_000).fetch(*shards[0])
        assert kept(tmp_path / "cache") == set()


def test_a_damaged_or_truncated_copy_is_deleted(shards, tmp_path):
    cache = ShardCache(tmp_path / "cache", 10_000)
    uri, entry = shards[1]
    path = tmp_path / "cache" / name(shards[1])
    cache.fetch(uri, entry)
    assert not cache.discard_if_damaged(entry)
    path.write_bytes(b"\1" * 500 + b"\0" + b"\1" * 499)
    assert cache.discard_if_damaged(entry)
    assert not path.exists()
    cache.fetch(uri, entry)
    path.write_bytes(b"\1" * 10)
    assert cache.read(entry, 0, 5) is None
    assert not path.exists()


def test_many_processes_that_want_a_shard_cost_one_download(shards, tmp_path, monkeypatch):
    """Threads stand for processes: the lock is on an open file, and each opens its own."""
    cache, downloads, begun = ShardCache(tmp_path / "cache", 10_000), [], threading.Event()
    others = [threading.Thread(target=cache.fetch, args=shards[0]) for _ in range(5)]

    def slow(uri):
        downloads.append(uri)
        if not begun.is_set():
            begun.set()
            for thread in others:
                thread.start()
            cache.fetch(*shards[1])  # another shard does not wait for this one
        yield bytes([int(uri[-5])]) * 1000

    monkeypatch.setattr(shard_cache, "read_chunks", slow)
    cache.fetch(*shards[0])
    for thread in others:
        thread.join()
    assert sorted(downloads) == [shards[0][0], shards[1][0]]
    assert kept(tmp_path / "cache") == {name(shards[0]), name(shards[1])}


KILLED = """
import os, signal, sys
from pipelines.ingest import shard_cache
from pipelines.shards.manifest import ShardEntry
def die(uri):
    yield b"half"
    os.kill(os.getpid(), signal.SIGKILL)
shard_cache.read_chunks = die
shard_cache.ShardCache(sys.argv[1], 10_000).fetch("any", ShardEntry("train-9.tar", 1, 1800, "f" * 64))
"""


def test_what_a_killed_process_left_makes_room_and_is_no_obstacle(shards, tmp_path):
    folder = tmp_path / "cache"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], cwd=ROOT, stderr=subprocess.DEVNULL)
    assert killed.returncode == -9
    assert kept(folder) == {"f" * 64 + ".part"}
    ShardCache(folder, 2_000).fetch(*shards[0])
    assert kept(folder) == {name(shards[0])}
    (folder / f"{shards[1][1].sha256}.part").write_bytes(b"half of another program's run")
    ShardCache(folder, 2_000).fetch(*shards[1])
    assert kept(folder) == {name(shards[0]), name(shards[1])}
    assert ShardCache(folder, 2_000).read(shards[1][1], 0, 1000) == b"\1" * 1000


def test_a_cache_smaller_than_a_shard_and_a_full_disk_say_so_and_leave_nothing(shards, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    with pytest.raises(NoRoomError, match=r"of 1,000 bytes in a cache of 999; raise placement.cache_bytes"):
        ShardCache(folder, 999).fetch(*shards[0])

    def full(descriptor, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoRoomError, match=r"No space left on device; free some, or set placement.cache_folder"):
        ShardCache(folder, 10_000).fetch(*shards[0])
    assert kept(folder) == set()


def test_capacity_is_the_bound_or_what_the_disk_has(shards, tmp_path):
    assert ShardCache(tmp_path / "cache", 10_000).capacity == 10_000
    huge = ShardCache(tmp_path / "cache", 10**18)
    huge.fetch(*shards[0])
    assert 1000 < huge.capacity < 10**18


@pytest.mark.parametrize("ends_after", [1, 2], ids=["between the listings", "before it is looked at"])
def test_a_download_that_ends_while_the_cache_is_listed_is_counted_once(shards, tmp_path, monkeypatch, ends_after):
    """Three shards and room for two: one not counted would leave all three in the cache."""
    cache, (_, entry) = ShardCache(tmp_path / "cache", 2_000), shards[1]
    part = tmp_path / "cache" / f"{entry.sha256}.part"
    part.write_bytes(bytes(1_000))
    glob, listings = Path.glob, []

    def list_and_finish(folder, pattern):
        found = list(glob(folder, pattern))
        listings.append(pattern)
        if len(listings) == ends_after:
            part.rename(part.with_suffix(".tar"))
        return found

    monkeypatch.setattr(Path, "glob", list_and_finish)
    assert [size for _, size, _ in cache._held()] == [1_000]
    assert len(listings) == 2


def test_many_readers_with_room_for_two_shards_get_right_bytes_or_none(shards, tmp_path):
    cache = ShardCache(tmp_path / "cache", 2_000)
    wrong = []

    def read(index):
        uri, entry = shards[index]
        for _ in range(30):
            try:
                cache.fetch(uri, entry)
            except NoRoomError:  # the others are downloading theirs at this moment
                continue
            if cache.read(entry, 0, 1000) not in (None, bytes([index]) * 1000):
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(index,)) for index in (0, 1, 2, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.*")) <= 2_000
