"""Random variations of a training pair: horizontal flips, quarter turns, and the Gaussian blur of section 4.3."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sr3core.hyperparameters import AugmentationConfig
from sr3core.images.crops import Corner
from sr3core.images.resize import blur
from sr3core.randomness import derive_seed

if TYPE_CHECKING:  # processes that only decode avoid torch's 200 MB
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Variation:
    """How one pair is varied."""

    flip: bool
    """Mirror both images left to right."""
    sigma: float
    """Blur of the low-resolution image in pixels; 0 leaves it as it is."""
    turns: int = 0
    """Quarter turns of both images, anticlockwise, after the flip; 0 to 3."""


def draw_variation(config: AugmentationConfig, seed: int) -> Variation:
    """Draw a pair's variation, a function of the seed."""
    flips, blurs, sigma = np.random.Generator(np.random.Philox(seed)).random(3)
    # Two decimals of sigma are enough, and let the kernels be cached.
    blurred = max(round(sigma * config.blur_sigma_max, 2), 0.01) if blurs < config.blur_probability else 0.0
    # Of a key of their own, so that flips and blur are the same with and without them.
    turns = derive_seed(seed, "quarter turns") % 4 if config.quarter_turns else 0
    return Variation(bool(config.flip and flips < 0.5), blurred, turns)


def vary_low(low: np.ndarray, variation: Variation) -> np.ndarray:
    """Flip, turn and blur a low-resolution image, uint8 (h, w, 3): it alone is blurred, before it is upsampled."""
    return blur(np.rot90(low[:, ::-1] if variation.flip else low, variation.turns), variation.sigma)


def cut_high(high: np.ndarray, variation: Variation, corner: Corner, size: tuple[int, int]) -> np.ndarray:
    """A view of a flipped and turned target, uint8 (H, W, 3): the crop of (height, width) pixels at a corner."""
    (top, left), (height, width) = corner, size
    varied = np.rot90(high[:, ::-1] if variation.flip else high, variation.turns)
    return varied[top : top + height, left : left + width]


def mirror(images: "Tensor", flips: "Tensor") -> "Tensor":
    """Mirror those of (B, H, W, C) images whose flip is set, (B,) bool, on whatever device they are."""
    import torch

    return torch.where(flips[:, None, None, None], images.flip(2), images)


def turn(images: "Tensor", turns: "Tensor") -> "Tensor":
    """Turn each of (B, S, S, C) square images by its number of quarter turns, (B,) int64 in 0..3, as np.rot90 does."""
    import torch

    turned = images
    for quarters in (1, 2, 3):
        chosen = (turns == quarters)[:, None, None, None]
        turned = torch.where(chosen, images.rot90(quarters, (1, 2)), turned)
    return turned
