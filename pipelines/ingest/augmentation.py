"""Random variations of a training pair: horizontal flips, and the Gaussian blur of section 4.3."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sr3core.hyperparameters import AugmentationConfig
from sr3core.images.resize import blur

if TYPE_CHECKING:  # processes that only decode avoid torch's 200 MB
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Variation:
    """How one pair is varied."""

    flip: bool
    """Mirror both images left to right."""
    sigma: float
    """Blur of the low-resolution image in pixels; 0 leaves it as it is."""


def draw_variation(config: AugmentationConfig, seed: int) -> Variation:
    """Draw a pair's variation, a function of the seed."""
    flips, blurs, sigma = np.random.Generator(np.random.Philox(seed)).random(3)
    # Two decimals of sigma are enough, and let the kernels be cached.
    blurred = max(round(sigma * config.blur_sigma_max, 2), 0.01) if blurs < config.blur_probability else 0.0
    return Variation(bool(config.flip and flips < 0.5), blurred)


def vary_low(low: np.ndarray, variation: Variation) -> np.ndarray:
    """Flip and blur a low-resolution image, uint8 (h, w, 3): it alone is blurred, before it is upsampled."""
    return blur(low[:, ::-1] if variation.flip else low, variation.sigma)


def mirror(images: "Tensor", flips: "Tensor") -> "Tensor":
    """Mirror those of (B, H, W, C) images whose flip is set, (B,) bool, on whatever device they are."""
    import torch

    return torch.where(flips[:, None, None, None], images.flip(2), images)
