"""Kernel distance (KID) between two sets of feature vectors: unbiased, and thus reliable for few images."""

from typing import NamedTuple

import numpy as np

from sr3core.errors import ConfigError
from sr3core.metrics.inputs import as_features

BLOCK_ROWS = 2048
"""Rows of a kernel matrix that are in memory at a time."""


class KernelDistance(NamedTuple):
    """A kernel distance averaged over random subsets."""

    mean: float
    """Mean over the subsets; unbiased."""
    std: float
    """Standard deviation over the subsets: the spread of one subset's value, not the error of the mean."""


def kernel_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Compute the unbiased squared MMD of whole sets with kernel (x . y / D + 1)^3; KID on Inception features.

    Args:
        features_a, features_b: (n_a, D) and (n_b, D), of any real type, computed in float64.

    Returns:
        The distance. For sets from one distribution it scatters around zero and can be negative.

    Raises:
        DataError: features are not two-dimensional, finite and of one dimension, or a set has fewer than two vectors.
    """
    a, b = as_features(features_a, features_b)
    within = _mean_off_diagonal(a) + _mean_off_diagonal(b)
    return within - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def kernel_distances_without(
    features_a: np.ndarray, features_b: np.ndarray, groups_a: np.ndarray, groups_b: np.ndarray
) -> np.ndarray:
    """Compute `kernel_distance` with each group left out of both sets (jackknife), at the cost of one distance.

    Args:
        features_a, features_b: (n_a, D) and (n_b, D), of any real type.
        groups_a, groups_b: group of each row, (n_a,) and (n_b,) integers in 0..G-1; every group has rows of both.

    Returns:
        (G,) distances.

    Raises:
        DataError: features are not two-dimensional, finite and of one dimension, or a set has fewer than two vectors.
    """
    a, b = as_features(features_a, features_b)
    one_hot = np.eye(int(groups_a.max()) + 1)
    members_a, members_b = one_hot[groups_a], one_hot[groups_b]  # (n_a, G), (n_b, G)
    left_a, left_b = len(a) - members_a.sum(0), len(b) - members_b.sum(0)

    def without(x: np.ndarray, y: np.ndarray, of_x: np.ndarray, of_y: np.ndarray) -> np.ndarray:
        # Kernel sums between groups: (G, block) @ (block, n) @ (n, G) -> (G, G)
        sums = sum(
            of_x[start : start + BLOCK_ROWS].T @ _kernel(x[start : start + BLOCK_ROWS] @ y.T, x.shape[1]) @ of_y
            for start in range(0, len(x), BLOCK_ROWS)
        )
        return np.sum(sums) - np.sum(sums, 0) - np.sum(sums, 1) + np.diag(sums)

    def within(x: np.ndarray, members: np.ndarray, left: np.ndarray) -> np.ndarray:
        diagonal = _kernel(np.einsum("nd,nd->n", x, x), x.shape[1]) @ members  # (n, D) -> (n,) -> (G,)
        return (without(x, x, members, members) - diagonal.sum() + diagonal) / (left * (left - 1))

    between = without(a, b, members_a, members_b) / (left_a * left_b)
    return within(a, members_a, left_a) + within(b, members_b, left_b) - 2 * between


def kernel_distance_of_subsets(
    features_a: np.ndarray,
    features_b: np.ndarray,
    generator: np.random.Generator,
    *,
    num_subsets: int = 100,
    subset_size: int = 1000,
) -> KernelDistance:
    """Average `kernel_distance` over random subsets, as KID is reported. A subset contains no vector twice.

    Args:
        features_a, features_b: (n_a, D) and (n_b, D), of any real type.
        generator: random generator that draws the subsets.
        num_subsets: number of subsets, at least 1.
        subset_size: vectors drawn from each set per subset, at least 2; limited to the size of the smaller set.

    Raises:
        ConfigError: num_subsets or subset_size is too small.
        DataError: features are not two-dimensional, finite and of one dimension, or a set has fewer than two vectors.
    """
    if num_subsets < 1 or subset_size < 2:
        raise ConfigError(f"KID needs num_subsets >= 1 and subset_size >= 2, got {num_subsets}, {subset_size}")
    a, b = as_features(features_a, features_b)
    size = min(subset_size, len(a), len(b))
    values = [
        kernel_distance(
            a[generator.choice(len(a), size, replace=False)], b[generator.choice(len(b), size, replace=False)]
        )
        for _ in range(num_subsets)
    ]
    return KernelDistance(mean=float(np.mean(values)), std=float(np.std(values)))


def _mean_off_diagonal(x: np.ndarray) -> float:
    diagonal = _kernel(np.einsum("nd,nd->n", x, x), x.shape[1]).sum()  # (n, D) -> (n,) -> ()
    return (_kernel_sum(x, x) - float(diagonal)) / (len(x) * (len(x) - 1))


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    blocks = (x[start : start + BLOCK_ROWS] for start in range(0, len(x), BLOCK_ROWS))
    return sum(float(_kernel(block @ y.T, x.shape[1]).sum()) for block in blocks)


def _kernel(products: np.ndarray, dim: int) -> np.ndarray:
    return (products / dim + 1) ** 3
