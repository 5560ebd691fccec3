"""Fréchet distance extrapolated to infinitely many images: FID-infinity (Chong and Forsyth, 2020)."""

import numpy as np

from sr3core.errors import DataError
from sr3core.metrics.fid import frechet_distance_from_features
from sr3core.metrics.inputs import as_features

NUM_SIZES = 6
MIN_PART = 2
"""A distance needs two images a set."""


def extrapolated_frechet_distance(
    features_a: np.ndarray, features_b: np.ndarray, *, num_sizes: int = NUM_SIZES
) -> float:
    """Extrapolate `frechet_distance` to infinitely many images in both sets.

    The distance of n images is too high by about c / n, and c depends on the distributions: neither equal n nor a
    correction by n makes two models comparable. For k = 1, 2, ... both sets are split into k parts, and the distances
    of part j to part j are averaged, so that every image counts once at each size. A line through these means against
    k, which is proportional to 1 / n, is read off at k = 0.

    Args:
        features_a, features_b: (n_a, D) and (n_b, D), of any real type; paired rows stay together if n_a = n_b.
        num_sizes: largest k; fewer where a part would have fewer than two images.

    Returns:
        The distance; by chance it can be negative where the true one is near 0.

    Raises:
        DataError: features are not two-dimensional, finite and of one dimension, or a set has fewer than four vectors.
    """
    a, b = as_features(features_a, features_b)
    largest = min(num_sizes, len(a) // MIN_PART, len(b) // MIN_PART)
    if largest < 2:
        raise DataError(f"a line through two sizes needs at least four images per set, got {len(a)} and {len(b)}")
    sizes = np.arange(1, largest + 1)
    means = [np.mean([frechet_distance_from_features(a[j::k], b[j::k]) for j in range(k)]) for k in sizes]
    return float(np.polynomial.Polynomial.fit(sizes, means, 1)(0.0))
