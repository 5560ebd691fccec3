"""Fréchet distance between two sets of feature vectors (FID in Table 2 and in the search of section 2.4)."""

import contextlib
from dataclasses import dataclass

import numpy as np

from sr3core.errors import DataError
from sr3core.metrics.inputs import as_features, check_features


@dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Moments:
    """Count, mean and scatter of feature vectors, as a Fréchet distance needs them; mergeable across workers."""

    count: int
    """Number of vectors."""
    mean: np.ndarray
    """Their mean, float64 (D,)."""
    scatter: np.ndarray
    """Sum of the outer products of their deviations from the mean, float64 (D, D)."""

    @classmethod
    def from_features(cls, features: np.ndarray) -> "Moments":
        """Compute the moments of features, (n, D) of any real type, in float64; n may be 0.

        Raises:
            DataError: features are not two-dimensional and finite.
        """
        vectors = np.asarray(features, dtype=np.float64)
        check_features(vectors)
        mean = vectors.mean(axis=0) if len(vectors) else np.zeros(vectors.shape[1])
        deviations = vectors - mean
        return cls(count=len(vectors), mean=mean, scatter=deviations.T @ deviations)

    def merge(self, other: "Moments") -> "Moments":
        """Compute the moments of the union of two disjoint sets exactly (Chan et al.).

        Raises:
            DataError: the sets differ in dimension.
        """
        _check_dimensions(self.mean, other.mean)
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        between = np.outer(delta, delta) * (self.count * other.count / count)
        return Moments(count=count, mean=mean, scatter=self.scatter + other.scatter + between)

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased covariance, float64 (D, D).

        Raises:
            DataError: there are fewer than two vectors.
        """
        if self.count < 2:
            raise DataError(f"a covariance needs at least two images, got {self.count}")
        return self.scatter / (self.count - 1)


def rank_deficient(moments: Moments) -> bool:
    """Whether there are too few vectors for a covariance of full rank (n <= D).

    A distance of such moments is far too high, by an amount that depends on the distributions: also at equal numbers of
    images it ranks what is smooth too well (docs/explanation/fid.md), the more so against the inputs' own originals.
    """
    return moments.count <= len(moments.mean)


def frechet_distance(a: Moments, b: Moments) -> float:
    """Compute |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), which is FID on Inception features (Table 2).

    The trace of the square root is the sum of the square roots of the eigenvalues of S_a^(1/2) S_b S_a^(1/2). That
    matrix is symmetric, so no general matrix square root is needed and no value becomes complex. Instead of S_a^(1/2)
    any factor L with S_a = L L^T can be used: L^T S_b L has the same eigenvalues.

    Returns:
        The distance, never negative.

    Raises:
        DataError: the sets differ in dimension, or one has fewer than two vectors.
    """
    _check_dimensions(a.mean, b.mean)
    if b.count < a.count:
        a, b = b, a
    covariance_a, covariance_b = a.covariance, b.covariance
    root = _factor(covariance_a)
    eigenvalues = np.linalg.eigvalsh(root.T @ covariance_b @ root)
    trace_root = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    return _distance(a.mean - b.mean, np.trace(covariance_a) + np.trace(covariance_b), trace_root)


def frechet_distance_from_features(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Compute `frechet_distance` from features; this is far faster if both sets have fewer than D vectors.

    With centred features A (n_a, D) and B (n_b, D), the trace of (S_a S_b)^(1/2) is the sum of the singular values of
    A B^T / ((n_a - 1)(n_b - 1))^(1/2), an n_a x n_b matrix. No D x D matrix is built, and no precision is lost by
    squaring.

    Args:
        features_a, features_b: (n_a, D) and (n_b, D), of any real type, computed in float64.

    Raises:
        DataError: features are not two-dimensional, finite and of one dimension, or a set has fewer than two vectors.
    """
    a, b = as_features(features_a, features_b)
    if max(len(a), len(b)) >= a.shape[1]:
        return frechet_distance(Moments.from_features(a), Moments.from_features(b))
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    root_a = (a - mean_a) / np.sqrt(len(a) - 1)  # root_a^T root_a = S_a
    root_b = (b - mean_b) / np.sqrt(len(b) - 1)
    # (n_a, D) @ (D, n_b) -> (n_a, n_b)
    trace_root = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    return _distance(mean_a - mean_b, np.square(root_a).sum() + np.square(root_b).sum(), trace_root)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """Factor a covariance S (D, D) into L L^T, L (D, rank).

    Cholesky costs an eighth of an eigendecomposition, but requires full rank beyond rounding errors. The alternative
    drops directions whose variance is zero up to rounding: they would only add noise to a trace.
    """
    resolution = len(covariance) * np.finfo(np.float64).eps
    with contextlib.suppress(np.linalg.LinAlgError):
        factor = np.linalg.cholesky(covariance)
        pivots = np.diag(factor) ** 2
        if pivots.min() > pivots.max() * resolution:
            return factor
    values, vectors = np.linalg.eigh(covariance)
    kept = values > max(values[-1], 0) * resolution
    return vectors[:, kept] * np.sqrt(values[kept])


def _distance(mean_difference: np.ndarray, traces: float, trace_root: float) -> float:
    return max(float(mean_difference @ mean_difference + traces - 2 * trace_root), 0.0)


def _check_dimensions(a: np.ndarray, b: np.ndarray) -> None:
    if a.shape[-1] != b.shape[-1]:
        raise DataError(f"features of {a.shape[-1]} and {b.shape[-1]} dimensions cannot be compared")
