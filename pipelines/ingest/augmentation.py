"""Random variations of a training pair: horizontal flips, and the Gaussian blur of section 4.3."""

import numpy as np
import torch

from pipelines.shards.records import Record
from sr3core.hyperparameters import AugmentationConfig
from sr3core.images.resize import blur


def augment(record: Record, config: AugmentationConfig, seed: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Flip and blur one pair at random, as a function of the seed: (low, high) uint8, low None for a base model.

    Blur (section 4.3) is applied to the low-resolution image alone, before it is upsampled.
    """
    low, high = record.low, record.high
    generator = np.random.Generator(np.random.Philox(seed))
    flips, blurs, sigma = generator.random(3)
    if config.flip and flips < 0.5:
        low, high = None if low is None else _mirrored(low), _mirrored(high)
    if low is not None and blurs < config.blur_probability:
        # Two decimals of sigma are enough, and let the kernels be cached.
        low = blur(low, max(round(sigma * config.blur_sigma_max, 2), 0.01))
    return low, high


def _mirrored(image: np.ndarray) -> np.ndarray:
    """Mirror (H, W, C) left to right, with torch: numpy takes 15 times as long to copy such a view."""
    return torch.from_numpy(np.require(image, requirements="W")).flip(1).numpy()
