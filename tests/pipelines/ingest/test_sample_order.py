"""DESIGN's order of samples: a pure function of (seed, step), the same at every world size."""

import hashlib
import itertools

import numpy as np
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
        boundaries=draw(st.sampled_from(["aligned", "staggered"])),
    )


def walk(order, lane, counts):
    """(shard, index) of the samples that a lane yields at these counts."""
    shards, indices = order.samples(np.full(len(counts), lane), np.array(counts))
    return list(zip(shards.tolist(), indices.tolist(), strict=True))


def walked(order, epoch):
    """How many samples each lane yields before an epoch."""
    return order._walked(np.arange(order.num_lanes), np.full(order.num_lanes, epoch)).tolist()


def samples_of_epoch(order, epoch):
    """Everything that the lanes yield while they are in an epoch."""
    bounds = zip(walked(order, epoch), walked(order, epoch + 1), strict=True)
    return [place for lane, (start, stop) in enumerate(bounds) for place in walk(order, lane, range(start, stop))]


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
    assert max(walked(order, epochs)) - min(walked(order, epochs)) <= 1


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
    shards = {shard for shard, _ in walk(order, 3, range(800))}
    assert len(shards) <= 9


@given(order=orders(), lane=st.integers(0, 7), count=st.integers(0, 200))
def test_a_block_knows_its_shards_and_its_end(order, lane, count):
    lane %= order.num_lanes
    block, end = order.block(lane, count)
    assert count < end <= count + block.size
    assert block == order.block(lane, end - 1)[0] != order.block(lane, end)[0]
    seen = {shard for shard, _ in walk(order, lane, range(end - block.size, end))}
    assert seen == set(order.shards_in(block))


RECORDED = [  # SHA-256 of 10 steps' samples, as the first version of the order gave them: runs resume in their order
    (((50,) * 40, 64, 8, 16, 1), "02d33a0b5b3e08fd"),
    ((tuple(range(97)), 256, 64, 4096, 7), "f7c1175d64f9e90c"),
    (((1000,) * 1282, 256, 64, 4096, 0), "355b3985cb28f748"),
    (((3, 0, 9, 1, 0, 5, 2), 8, 4, 5, 2**31), "e7c329dcba3f9534"),
]


@pytest.mark.parametrize(("arguments", "recorded"), RECORDED)
def test_runs_of_before_resume_in_their_order(arguments, recorded):
    order, digest = SampleOrder(*arguments), hashlib.sha256()
    for step in (0, 1, 17, 31, 32, 4999, 5007, 5008, 123456, 999_999):
        for rank in (0, 1):
            for place in order.batch(step, rank, 2):
                digest.update(f"{place.position} {place.shard} {place.index};".encode())
    assert digest.hexdigest()[:16] == recorded


class Watched(tuple):
    """Shard sizes that count how often somebody goes through all of them."""

    walks = 0

    def __iter__(self):
        type(self).walks += 1
        return super().__iter__()

    def __hash__(self):
        type(self).walks += 1
        return super().__hash__()


def test_a_step_costs_the_same_however_many_shards_there_are():
    sizes = Watched((1000,) * 3000)
    order = SampleOrder(sizes, 256, 64, 4096, 0)
    order.batch(0)
    before = Watched.walks
    for step in range(1, 200):
        order.batch(step)
    assert Watched.walks == before


def test_staggered_lanes_begin_new_blocks_one_after_another():
    """Aligned lanes change shards all in one step: what a bucket has to deliver comes in bursts."""

    def most_changes_in_a_step(boundaries):
        order = SampleOrder((100,) * 640, 64, 64, 500, 0, boundaries)
        blocks = [[order.block(lane, step)[0] for lane in range(64)] for step in range(1000)]
        return max(
            sum(a != b for a, b in zip(*pair, strict=True) if a.epoch == b.epoch) for pair in itertools.pairwise(blocks)
        )

    assert most_changes_in_a_step("aligned") == 64
    assert most_changes_in_a_step("staggered") <= 1


def test_wrong_sizes_are_refused_with_what_to_change():
    with pytest.raises(ConfigError, match="batch_size: 10 is not a multiple of num_lanes 4"):
        SampleOrder((100,), 10, 4, 16, 0)
    with pytest.raises(DataError, match="3 training samples are too few for 4 lanes"):
        SampleOrder((3,), 8, 4, 16, 0)
    with pytest.raises(ConfigError, match="num_workers: 5 is more than num_lanes 4"):
        SampleOrder((100,), 8, 4, 16, 0).batch(0, 0, 5)
