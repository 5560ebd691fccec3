"""Shards are fetched before their first sample is wanted, each once."""

from concurrent.futures import Future

import pytest

from pipelines.ingest.mixed_order import MixedOrder
from pipelines.ingest.sample_order import SampleOrder
from pipelines.ingest.shard_cache import NoRoomError
from pipelines.ingest.shard_prefetch import ShardPrefetch
from pipelines.shards.manifest import ShardEntry


class Recorder:
    """Stands for the pool: what it was told to fetch, in order."""

    def __init__(self, error=None):
        self.names = []
        self._error = error

    def submit(self, job):
        self.names.append(job.shard.name)
        done = Future()
        done.set_exception(self._error) if self._error else done.set_result(None)
        return done


@pytest.mark.parametrize("boundaries", ["aligned", "staggered"])
@pytest.mark.parametrize("first", [0, 333])
def test_a_lanes_shards_are_fetched_a_block_ahead(boundaries, first):
    sizes = (50,) * 64
    order = SampleOrder(sizes, 8, 8, 100, 3, boundaries)
    shards = tuple(ShardEntry(f"{number}", size, 1, "") for number, size in enumerate(sizes))
    pool, lanes = Recorder(), order.lanes_of(1, 2)
    prefetch = ShardPrefetch(MixedOrder((order,)), lanes, [shards], pool.submit)
    waiting, used = {}, {}  # shard -> step at which it was fetched, and at which its first sample was wanted
    for step in range(first, first + 1000):
        known = len(pool.names)
        prefetch.advance(step)
        for name in pool.names[known:]:
            waiting.setdefault(name, step)
        for place in order.batch(step, 1, 2):
            used.setdefault(str(place.shard), step)
    assert all(waiting[name] <= step for name, step in used.items())
    later = {name: step for name, step in used.items() if step > first + 100}  # not of the blocks that it starts in
    assert later
    assert all(waiting[name] < step for name, step in later.items())
    starts = {block: step for step in range(first, first + 1000) for block in [order.block(1, step)[0]]}
    assert len(starts) > 9
    assert len(pool.names) < 3 * len(lanes) * len(starts) + 2 * len(shards), "not again at every step"


def test_a_full_disk_is_reported_once(caplog):
    order = SampleOrder((50,) * 64, 8, 8, 100, 3)
    shards = tuple(ShardEntry(f"{number}", 50, 1, "") for number in range(64))
    pool = Recorder(NoRoomError("/cache: no room for train-000000.tar"))
    ShardPrefetch(MixedOrder((order,)), order.lanes_of(0, 1), [shards], pool.submit).advance(0)
    assert len(pool.names) > 8
    assert caplog.messages == [
        "/cache: no room for train-000000.tar; its records, and those of other such shards, are read one by one"
        " from the bucket"
    ]
