"""The error of a difference between two methods on the same images, by exchanging their outputs at random.

Fisher's randomisation test. If neither method were better, either output of an image could be the one's or the other's,
and the difference would be as large by chance as it is after random exchanges. This holds for any statistic of the two
sets, at any number of images. A Fréchet distance of bootstrap resamples, which draw images repeatedly, scatters 1.2 to
1.9 times as much as the distance itself on fewer images than features, and would hide real gains.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sr3core.metrics.bootstrap import LEVEL, normal_interval
from sr3core.randomness import derive_seed

NUM_SWAPS = 100
"""Estimate an error within 7%."""


class Difference(NamedTuple):
    """A difference between two methods and its interval."""

    value: float
    error: float
    """Standard error over the choice of images and noise; references are taken as they are."""
    low: float
    high: float


def swapped_difference(
    difference: Callable[[np.ndarray], float],
    count: int,
    *,
    level: float = LEVEL,
    num_swaps: int = NUM_SWAPS,
    seed: int = 0,
) -> Difference:
    """Compute a difference between two methods, and its interval.

    Args:
        difference: maps a mask (n,) of images, whose outputs are exchanged between the methods, to the difference.
        count: number of images, n.
        level: probability that the interval covers the expectation of the difference.
        num_swaps: number of random exchanges.
        seed: of these.
    """
    value = difference(np.zeros(count, bool))
    masks = (np.random.default_rng(derive_seed(seed, "swap", n)).random(count) < 0.5 for n in range(num_swaps))
    error = float(np.sqrt(np.mean([difference(mask) ** 2 for mask in masks])))
    return Difference(value, error, *normal_interval(value, error, level))
