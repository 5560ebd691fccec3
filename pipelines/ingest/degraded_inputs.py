"""Low-resolution images that are made of their targets by random degradations, in training and of held-out images."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipelines.ingest.split_reader import SplitImages
from pipelines.settings.train import TrainConfig
from sr3core.batch import Batch
from sr3core.degradations.chain import degrade
from sr3core.degradations.settings import DegradationConfig
from sr3core.images.pixels import to_float, to_uint8
from sr3core.randomness import derive_seed
from sr3core.sizes import Size, size_of

_AT_ONCE = 32
"""Held-out images that are degraded together."""


def degrade_batch(batch: Batch, config: TrainConfig, step: int) -> Batch:
    """A training batch with the inputs that its stage wants; what is drawn depends on (seed, step, position) alone."""
    if config.degradation.order == 0:
        return batch
    assert config.model.low_size is not None, "base models have no inputs"
    seeds = [derive_seed(config.seed, "degradation", step, position) for position in batch.positions]
    return replace(batch, low=degrade(config.degradation, batch.high, config.model.low_size, seeds))


def degrade_images(images: SplitImages, config: DegradationConfig) -> SplitImages:
    """Held-out images with inputs like those of training; what is drawn depends on their keys alone."""
    if config.order == 0 or not images.keys:
        return images
    size = size_of(*images.low.shape[1:3])
    starts = range(0, len(images.keys), _AT_ONCE)
    parts = [slice(start, start + _AT_ONCE) for start in starts]
    return replace(
        images, low=np.concatenate([degrade_pixels(images.high[p], images.keys[p], config, size) for p in parts])
    )


def degrade_pixels(high: np.ndarray, keys: Sequence[str], config: DegradationConfig, size: Size) -> np.ndarray:
    """Low-resolution images, uint8 (B, *size, 3), of targets, uint8 (B, H, W, 3)."""
    seeds = [derive_seed(0, "held-out degradation", key) for key in keys]
    return to_uint8(degrade(config, to_float(high), size, seeds))
