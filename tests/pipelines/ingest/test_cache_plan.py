"""Whether whole shards are fetched: FFHQ's size, ImageNet's, a cache that is too small."""

from itertools import pairwise

import numpy as np
import pytest

from pipelines.ingest.cache_plan import plan_cache
from pipelines.ingest.mixed_order import MixedOrder
from pipelines.ingest.sample_order import SampleOrder
from pipelines.settings.paper_stages import sr3_stage
from pipelines.settings.train import BlockBoundaries
from pipelines.shards.manifest import ShardEntry
from sr3core.config import override
from sr3core.networks.architectures import unet_64_256

CONFIG = sr3_stage(64, unet_64_256())


def planned(num_shards, shard_bytes, capacity, boundaries: BlockBoundaries = "aligned", world_size=8, **changes):
    shards = tuple(ShardEntry(f"train-{n:06d}.tar", 1000, shard_bytes, "") for n in range(num_shards))
    config = override(CONFIG, block_boundaries=boundaries, **changes)
    order = SampleOrder((1000,) * num_shards, 256, 64, config.shuffle_window, 0, boundaries)
    return plan_cache(config, MixedOrder((order,)), [shards], 0, world_size, capacity), order


def test_ffhq_at_1024_does_not_fit_into_50_gb_and_says_what_happens():
    plan, _ = planned(69, 1_670_000_000, 50_000_000_000, world_size=1)
    assert not plan.fits
    assert plan.wanted_bytes == 69 * 1_670_000_000, "every shard of the data set at once"
    assert plan.fitting_window is None, "64 lanes read from as many shards, however small the window"
    assert str(plan) == (
        "each worker reads from 115.2 GB of shards at once, and its share of the cache holds 50.0 GB; so records are"
        " read one by one from the bucket, 69,000 requests an epoch. To read whole shards, raise placement.cache_bytes"
    )
    assert planned(69, 1_670_000_000, 120_000_000_000, world_size=1)[0].fits


def test_a_smaller_window_is_proposed_where_it_helps():
    plan, _ = planned(13_000, 100_000_000, 60_000_000_000, world_size=1)
    assert not plan.fits
    assert plan.fitting_window is not None
    assert str(plan).endswith(f"or start a run with --shuffle-window {plan.fitting_window}")
    assert planned(13_000, 100_000_000, 60_000_000_000, world_size=1, shuffle_window=plan.fitting_window)[0].fits


@pytest.mark.parametrize("boundaries", ["aligned", "staggered"])
def test_no_worker_ever_needs_more_than_what_was_computed(boundaries):
    plan, order = planned(400, 1, 10**9, boundaries, world_size=4, shuffle_window=1500)
    for epoch_start in (0, 6250):
        for count in range(epoch_start, epoch_start + 6000, 97):
            needed = set()
            for lane in order.lanes_of(0, 4):
                block, end = order.block(lane, count)
                following, _ = order.block(lane, end)
                needed.update([*order.shards_in(block), *order.shards_in(following)])
            assert len(needed) <= plan.wanted_bytes


def test_the_largest_block_is_the_largest():
    _, order = planned(40, 1, 1, "staggered", shuffle_window=300)
    sizes = np.arange(40) + 1
    for lane in (0, 5, 63):
        starts = [0]
        while (end := order.block(lane, starts[-1])[1]) <= order._walked(np.array([lane]), np.array([1]))[0]:
            starts.append(end)
        blocks = [order.block(lane, start)[0] for start, _ in pairwise(starts)]
        assert order.largest_block(lane, sizes) == max(sizes[order.shards_in(block)].sum() for block in blocks)
