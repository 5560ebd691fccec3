"""Training batches: sample_order says which samples a step takes; here they are read, decoded and stacked, ahead."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future
from typing import Any

from pipelines.ingest.cache_plan import open_cache, plan_cache
from pipelines.ingest.fields.loader import FieldLoader
from pipelines.ingest.loader import Loader
from pipelines.ingest.mixed_order import MixedOrder
from pipelines.ingest.sample_order import SampleOrder
from pipelines.ingest.shard_prefetch import ShardPrefetch
from pipelines.ingest.split_reader import SplitReader
from pipelines.settings.train import TrainConfig


def order_of(split: SplitReader, config: TrainConfig) -> MixedOrder:
    """The order in which a stage sees the samples of its training split."""
    orders = (
        SampleOrder(
            tuple(shard.num_samples for shard in shards),
            config.batch_size,
            config.num_lanes,
            config.shuffle_window,
            config.seed,
            config.block_boundaries,
        )
        for shards in split.shards_of
    )
    return MixedOrder(tuple(orders), tuple(part.share for part in split.stages))


def batches_from(
    split: SplitReader, config: TrainConfig, step: int, rank: int, world_size: int, workers_on_node: int = 1
) -> Generator[Any, None, None]:
    """Yield this worker's batches from `step` on, endlessly, as PixelBatch or FieldBatch; they are read ahead.

    Nothing of the batches before `step` is read. Closing the generator stops the reading ahead.

    Args:
        split: the training split.
        config: the stage's training. The batches do not depend on its placement.
        step: the first batch.
        rank: of this worker.
        world_size: number of workers.
        workers_on_node: workers that share this machine's cache of shards.
    """
    order = order_of(split, config)
    lanes = order.lanes_of(rank, world_size)  # so that a wrong world size is reported here, not in a thread
    cache = open_cache(config, split.directories)
    if cache is not None:
        capacity = cache.capacity // workers_on_node
        cache = cache if plan_cache(config, order, split.shards_of, rank, world_size, capacity).fits else None
    kind = Loader if split.sample is None else FieldLoader
    with kind(split, config, len(lanes) * order.samples_per_lane, cache) as loader:
        prefetch = None
        if cache is not None:
            prefetch = ShardPrefetch(order, lanes, split.shards_of, loader.fetching_pool().submit)
        ahead: deque[Future[Any]] = deque()
        while True:
            while len(ahead) < config.placement.prefetch_batches:
                if prefetch is not None:
                    prefetch.advance(step)
                ahead.append(loader.load(order.batch(step, rank, world_size), step))
                step += 1
            yield ahead.popleft().result()
