"""Training batches: sample_order says which samples a step takes; here threads read, vary and stack them."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from pipelines.ingest.augmentation import augment
from pipelines.ingest.sample_order import Place, SampleOrder
from pipelines.ingest.split_reader import SplitReader
from pipelines.settings.train import TrainConfig
from sr3core.hyperparameters import ModelConfig
from sr3core.images.pixels import to_float
from sr3core.randomness import derive_seed
from sr3core.training import Batch


def batches_from(
    reader: SplitReader, config: TrainConfig, step: int, rank: int, world_size: int
) -> Generator[Batch, None, None]:
    """Yield this worker's batches from `step` on, endlessly; threads read ahead.

    Nothing of the batches before `step` is read. Closing the generator stops the reading ahead.
    """
    order = SampleOrder(
        tuple(shard.num_samples for shard in reader.shards),
        config.batch_size,
        config.num_lanes,
        config.shuffle_window,
        config.seed,
        config.block_boundaries,
    )
    order.lanes_of(rank, world_size)  # so that a wrong world size is reported here, not in a thread
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="ingest") as pool:
        ahead: deque[Future[Batch]] = deque()
        try:
            while True:
                while len(ahead) < config.placement.prefetch_batches:
                    places = order.batch(step, rank, world_size)
                    ahead.append(pool.submit(_load_batch, reader, places, config, step))
                    step += 1
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _load_batch(reader: SplitReader, places: list[Place], config: TrainConfig, step: int) -> Batch:
    records = [reader.read(place.shard, place.index) for place in places]
    pairs = [
        augment(record, config.augmentation, derive_seed(config.seed, "augmentation", step, place.position))
        for record, place in zip(records, places, strict=True)
    ]
    low = [low for low, _ in pairs if low is not None]
    return Batch(
        low=to_float(np.stack(low)) if low else None,
        high=to_float(np.stack([high for _, high in pairs])),
        positions=tuple(place.position for place in places),
        keys=tuple(record.key for record in records),
        classes=classes_for(config.model, [record.label for record in records]),
    )


def classes_for(model: ModelConfig, labels: Sequence[int | None]) -> torch.Tensor | None:
    """Class indices as the model takes them, (B,) int64; None for a model without classes."""
    return None if model.unet.num_classes is None else torch.tensor(labels, dtype=torch.int64)
