"""Whether the shards that lanes read at once fit into the cache: from this, whole shards are fetched, or only records.

Lanes read from many shards at a time: each from those of its block, while those of its next block are fetched. If the
cache is smaller than that, every shard is evicted before it has been read and downloaded again for the next sample.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.ingest.mixed_order import MixedOrder
from pipelines.ingest.sample_order import SampleOrder
from pipelines.ingest.shard_cache import ShardCache
from pipelines.settings.train import TrainConfig
from pipelines.shards.manifest import ShardEntry
from pipelines.storage.uris import is_remote

_BLOCKS_AT_ONCE = {"aligned": 2, "staggered": 3}
"""A lane's block and its next one. Staggered, another lane may have finished a block since its own was fetched."""


@dataclass(frozen=True, slots=True)
class CachePlan:
    """What a worker's share of the cache has to hold, and what it can."""

    wanted_bytes: int
    """Shards that the worker's lanes read at once, at most."""
    capacity: int
    """The worker's share of the cache, bytes."""
    fitting_window: int | None
    """The largest half, quarter, ... of the shuffle window with which the shards would fit; None if none does."""
    num_samples: int
    """Samples in an epoch, of all preparations."""

    @property
    def fits(self) -> bool:
        """Whether whole shards are fetched; else each record is read by itself."""
        return self.wanted_bytes <= self.capacity

    def __str__(self) -> str:
        """One line for the user, for the case that they do not fit."""
        window = f", or start a run with --shuffle-window {self.fitting_window}" if self.fitting_window else ""
        return (
            f"each worker reads from {self.wanted_bytes / 1e9:,.1f} GB of shards at once, and its share of the cache"
            f" holds {self.capacity / 1e9:,.1f} GB; so records are read one by one from the bucket,"
            f" {self.num_samples:,} requests an epoch. To read whole shards, raise placement.cache_bytes{window}"
        )


def plan_cache(
    config: TrainConfig,
    order: MixedOrder,
    shards: Sequence[tuple[ShardEntry, ...]],
    rank: int,
    world_size: int,
    capacity: int,
) -> CachePlan:
    """Compute how much of the shards a worker reads at once.

    Args:
        config: the stage's training.
        order: its order of samples.
        shards: of the training split, by preparations.
        rank: of the worker.
        world_size: number of workers.
        capacity: the worker's share of the cache, bytes.
    """
    sizes = [np.array([shard.num_bytes for shard in part]) for part in shards]
    wanted = _bytes_at_once(order, sizes, rank, world_size)
    fitting = None
    if wanted > capacity:
        smaller = (config.shuffle_window >> halvings for halvings in range(1, config.shuffle_window.bit_length()))
        fits = (w for w in smaller if _bytes_at_once(order.with_window(w), sizes, rank, world_size) <= capacity)
        fitting = next(fits, None)
    return CachePlan(wanted, capacity, fitting, order.num_samples)


def open_cache(config: TrainConfig, directories: Sequence[str]) -> ShardCache | None:
    """The cache of shards that a stage's placement names; None for data on a disk.

    Of a mixture, all shards go through the cache as soon as those of one preparation are in a bucket.
    """
    placement = config.placement
    return ShardCache(placement.cache_folder, placement.cache_bytes) if any(map(is_remote, directories)) else None


def _bytes_at_once(order: MixedOrder, sizes: Sequence[np.ndarray], rank: int, world_size: int) -> int:
    """An upper bound. Lanes are in a block of every preparation at once."""
    return sum(_bytes_of(one, size, rank, world_size) for one, size in zip(order.orders, sizes, strict=True))


def _bytes_of(order: SampleOrder, sizes: np.ndarray, rank: int, world_size: int) -> int:
    """An upper bound: every lane is in its largest block, and none shares a shard with another."""
    largest = [order.largest_block(lane, sizes) for lane in order.lanes_of(rank, world_size)]
    return min(int(sizes.sum()), _BLOCKS_AT_ONCE[order.boundaries] * sum(largest))
