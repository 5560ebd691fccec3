"""Bootstrap confidence intervals of metrics over images, with keyed seeds: the same numbers on any machine."""

from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from sr3core.errors import ConfigError, DataError
from sr3core.metrics.inputs import as_features
from sr3core.randomness import derive_seed

LEVEL = 0.95


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def bootstrap_mean(values: np.ndarray, *, num_resamples: int = 1000, level: float = LEVEL, seed: int = 0) -> Interval:
    """Compute the percentile interval of a mean over images: PSNR, SSIM, consistency, errors, precision.

    The draws depend on (seed, n) alone, so methods measured on the same images share their resamples.

    Args:
        values: one per image, (n,); inf is allowed.
        num_resamples: number of resamples; each draws n images with replacement.
        level: probability that the interval covers the population mean.
        seed: seed of the resamples.

    Raises:
        ConfigError: num_resamples or level is out of range.
        DataError: values are not one-dimensional, or empty.
    """
    _check_options(num_resamples, level)
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise DataError(f"an interval needs one value per image, got {array.shape}")
    means = np.array([array[indices].mean() for indices in resamples(len(array), num_resamples, seed)])
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(means, tails, method="inverted_cdf")  # interpolating between inf would give nan
    return Interval(float(low), float(high))


def bootstrap_values(
    statistic: Callable[[np.ndarray], float], count: int, *, num_resamples: int = 20, seed: int = 0
) -> np.ndarray:
    """Compute a statistic of each resample of a set of images, float64 (num_resamples,).

    The standard deviation of the result is the standard error of the statistic. A resample draws images with
    replacement and so contains about 63% of them. A Fréchet or kernel distance of resamples is therefore biased: they
    resemble smaller sets, with a lower rank and closer pairs. The bias does not affect the standard deviation, but it
    does affect percentiles: use `normal_interval` around the distance of the whole set. The bias of that distance
    itself at n images remains unknown.

    Two methods measured on the same images share their resamples, so the standard deviation of the difference of their
    values is the standard error of the difference.

    Args:
        statistic: maps the indices (count,) of a resample to a number.
        count: number of images.
        num_resamples: number of resamples, at least 2.
        seed: seed of the resamples.

    Raises:
        ConfigError: num_resamples is too small.
    """
    if num_resamples < 2:
        raise ConfigError(f"num_resamples must be at least 2, got {num_resamples}")
    return np.array([statistic(indices) for indices in resamples(count, num_resamples, seed)])


def bootstrap_values_of_two(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    counts: tuple[int, int],
    *,
    num_resamples: int = 20,
    seed: int = 0,
) -> np.ndarray:
    """Compute a statistic of two sets, each resampled independently, float64 (num_resamples,).

    Args:
        statistic: maps the indices (counts[0],) and (counts[1],) of a resample of each set to a number.
        counts: number of images of each set.
        num_resamples: number of resamples, at least 2.
        seed: seed of the resamples.

    Raises:
        ConfigError: num_resamples is too small.
    """
    if num_resamples < 2:
        raise ConfigError(f"num_resamples must be at least 2, got {num_resamples}")
    drawn = (resamples(count, num_resamples, derive_seed(seed, "set", number)) for number, count in enumerate(counts))
    return np.array([statistic(first, second) for first, second in zip(*drawn, strict=True)])


def normal_interval(estimate: float, error: float, level: float = LEVEL) -> Interval:
    """Compute estimate ± z · error: an interval for an estimate whose resamples are biased."""
    _check_options(1, level)
    width = NormalDist().inv_cdf((1 + level) / 2) * error
    return Interval(estimate - width, estimate + width)


def resamples(count: int, num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Draw the indices of each resample, int64 (count,), as a function of (seed, number of the resample, count)."""
    for number in range(num_resamples):
        generator = np.random.default_rng(derive_seed(seed, "bootstrap", number))
        yield generator.integers(0, count, count)


class PairedGram:
    """Inner products of two sets' features, (n, n): they give the distances of any resample without a D x D matrix.

    Args:
        features_a, features_b: (n, D) each; row i of both belongs to the same image.

    Raises:
        DataError: features are not as described in as_features, or the sets differ in size.
    """

    def __init__(self, features_a: np.ndarray, features_b: np.ndarray) -> None:
        a, b = as_features(features_a, features_b)
        if len(a) != len(b):
            raise DataError(f"paired sets need the same number of images, got {len(a)} and {len(b)}")
        self._dim = a.shape[1]
        self._aa, self._bb, self._ab = a @ a.T, b @ b.T, a @ b.T

    def frechet_distance(self, indices: np.ndarray) -> float:
        """Compute the Fréchet distance between the images `indices` (m,) of both sets, as in `metrics.fid`."""
        aa, bb, ab = self._chosen(indices)
        count = len(indices)
        mean_distance = aa.mean() + bb.mean() - 2 * ab.mean()
        traces = (np.trace(aa) - count * aa.mean() + np.trace(bb) - count * bb.mean()) / (count - 1)
        # doubly centred products, (m, m)
        centred = ab - ab.mean(axis=0) - ab.mean(axis=1, keepdims=True) + ab.mean()
        trace_root = np.linalg.svd(centred, compute_uv=False).sum() / (count - 1)
        return float(mean_distance + traces - 2 * trace_root)

    def kernel_distance(self, indices: np.ndarray) -> float:
        """Compute the unbiased squared MMD between the images `indices` (m,) of both sets, as in `metrics.kid`."""
        aa, bb, ab = ((gram / self._dim + 1) ** 3 for gram in self._chosen(indices))
        count = len(indices)
        within = sum((kernel.sum() - np.trace(kernel)) / (count * (count - 1)) for kernel in (aa, bb))
        return float(within - 2 * ab.mean())

    def _chosen(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        grid = np.ix_(indices, indices)
        return self._aa[grid], self._bb[grid], self._ab[grid]


def _check_options(num_resamples: int, level: float) -> None:
    if num_resamples < 1:
        raise ConfigError(f"num_resamples must be positive, got {num_resamples}")
    if not 0 < level < 1:
        raise ConfigError(f"level must be between 0 and 1, got {level}")
