"""DESIGN's order of samples: a pure function of (seed, step), the same at every world size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ingest.sample_order import SampleOrder
from sr3core.errors import ConfigError, DataError


@st.composite
def orders(draw):
    lanes = 2 ** draw(st.integers(0, 3))
    sizes = tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=8)))
    if sum(sizes) < lanes:
        sizes = (*sizes, lanes)
    return SampleOrder(
        shard_sizes=sizes,
        batch_size=lanes * draw(st.integers(1, 3)),
        num_lanes=lanes,
        window=draw(st.integers(1, 12)),
        seed=draw(st.integers(0, 2**32)),
    )


def samples_of_epoch(order, epoch):
    """Everything that the lanes yield while they are in an epoch."""
    found = []
    for lane in range(order.num_lanes):
        start, stop = order._walked(lane, epoch), order._walked(lane, epoch + 1)
        found += [order.sample(lane, count) for count in range(start, stop)]
    return found


@given(order=orders(), epoch=st.integers(0, 40))
def test_an_epoch_loses_and_repeats_no_sample(order, epoch):
    everything = [(shard, i) for shard, size in enumerate(order.shard_sizes) for i in range(size)]
    assert sorted(samples_of_epoch(order, epoch)) == everything


@given(order=orders(), step=st.integers(0, 10**7))
def test_the_global_batch_is_the_same_at_every_world_size(order, step):
    whole = order.batch(step)
    assert [place.position for place in whole] == list(range(order.batch_size))
    world_size = 1
    while world_size <= order.num_lanes:
        parts = [order.batch(step, rank, world_size) for rank in range(world_size)]
        assert {len(part) for part in parts} == {order.batch_size // world_size}
        assert sorted((place for part in parts for place in part), key=lambda place: place.position) == whole
        world_size *= 2


@given(order=orders(), epochs=st.integers(1, 40))
def test_lanes_never_drift_apart_by_more_than_one_sample(order, epochs):
    walked = [order._walked(lane, epochs) for lane in range(order.num_lanes)]
    assert max(walked) - min(walked) <= 1


def test_epochs_and_seeds_have_orders_of_their_own():
    order = SampleOrder((50, 50, 50, 50), 8, 4, 16, seed=1)
    other = SampleOrder((50, 50, 50, 50), 8, 4, 16, seed=2)
    first, second = samples_of_epoch(order, 0), samples_of_epoch(order, 1)
    assert first != second
    assert first != samples_of_epoch(other, 0)
    assert first == samples_of_epoch(SampleOrder((50, 50, 50, 50), 8, 4, 16, seed=1), 0)


def test_a_lane_reads_whole_shards_one_after_another():
    """Object stores want sequential reads: a lane visits at most the shards that its part covers, and two ends."""
    order = SampleOrder((100,) * 64, 8, 8, 32, seed=0)
    shards = [order.sample(3, count)[0] for count in range(800)]
    assert len(set(shards)) <= 9


def test_wrong_sizes_are_refused_with_what_to_change():
    with pytest.raises(ConfigError, match="batch_size: 10 is not a multiple of num_lanes 4"):
        SampleOrder((100,), 10, 4, 16, 0)
    with pytest.raises(DataError, match="3 training samples are too few for 4 lanes"):
        SampleOrder((3,), 8, 4, 16, 0)
    with pytest.raises(ConfigError, match="num_workers: 5 is more than num_lanes 4"):
        SampleOrder((100,), 8, 4, 16, 0).batch(0, 0, 5)
