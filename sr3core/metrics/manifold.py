"""Precision and recall, density and coverage: separate measures of a set's fidelity and diversity."""

from typing import NamedTuple

import numpy as np

from sr3core.errors import ConfigError, DataError
from sr3core.metrics.inputs import as_features

NUM_NEIGHBOURS = 3
"""k of Kynkäänniemi et al., 2019."""
BLOCK_ROWS = 1024
"""Rows of a distance matrix that are in memory at a time."""


class ManifoldHits(NamedTuple):
    """Per-image results, so that intervals over images can be computed."""

    precision: np.ndarray
    """bool (n,): the output lies in the ball of at least one reference."""
    recall: np.ndarray
    """bool (m,): the reference lies in the ball of at least one output."""
    density: np.ndarray
    """float64 (n,): number of references' balls that contain the output, divided by k; not bounded by 1."""
    coverage: np.ndarray
    """bool (m,): the reference's ball contains at least one output."""


def manifold_hits(outputs: np.ndarray, references: np.ndarray, *, num_neighbours: int = NUM_NEIGHBOURS) -> ManifoldHits:
    """Estimate precision, recall, density and coverage, which are the means of the returned arrays.

    An image's ball reaches to its k-th nearest neighbour in its own set, not counting itself; points on the surface are
    inside. A set's manifold is the union of its balls. Precision and recall are those of Kynkäänniemi et al., 2019,
    density and coverage those of Naeem et al., 2020. All four depend on the numbers of images, so they are comparable
    only for sets of equal size.

    Args:
        outputs, references: features, (n, D) and (m, D), of any real type, computed in float64.
        num_neighbours: k, smaller than n and m.

    Raises:
        ConfigError: num_neighbours is not positive.
        DataError: features are not two-dimensional, finite and of one dimension, or a set has no more than k vectors.
    """
    if num_neighbours < 1:
        raise ConfigError(f"num_neighbours must be positive, got {num_neighbours}")
    ours, theirs = as_features(outputs, references)
    fewest = min(len(ours), len(theirs))
    if fewest <= num_neighbours:
        raise DataError(f"precision and recall by {num_neighbours} neighbours need more images per set, got {fewest}")
    center = theirs.mean(axis=0)  # far from the origin, |x|^2 - 2xy + |y|^2 would lose digits
    ours, theirs = ours - center, theirs - center
    our_radii, their_radii = (_squared_radii(x, num_neighbours) for x in (ours, theirs))
    near_references = np.empty(len(ours), np.int64)
    recalled, covered = np.zeros(len(theirs), bool), np.zeros(len(theirs), bool)
    for rows in _blocks(len(ours)):
        distances = _squared_distances(ours[rows], theirs)  # (block, m)
        inside = distances <= their_radii
        near_references[rows] = inside.sum(axis=1)
        covered |= inside.any(axis=0)
        recalled |= (distances <= our_radii[rows, None]).any(axis=0)
    return ManifoldHits(near_references > 0, recalled, near_references / num_neighbours, covered)


def _squared_radii(x: np.ndarray, num_neighbours: int) -> np.ndarray:
    """Squared distance of each vector to its k-th nearest other vector, (n,)."""
    radii = np.empty(len(x))
    for rows in _blocks(len(x)):
        distances = _squared_distances(x[rows], x)
        distances[np.arange(rows.stop - rows.start), np.arange(rows.start, rows.stop)] = np.inf
        radii[rows] = np.partition(distances, num_neighbours - 1, axis=1)[:, num_neighbours - 1]
    return radii


def _squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # (n, 1) + (m,) -> (n, m)
    squares = np.einsum("nd,nd->n", x, x)[:, None] + np.einsum("md,md->m", y, y)
    return np.maximum(squares - 2 * (x @ y.T), 0)


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + BLOCK_ROWS, count)) for start in range(0, count, BLOCK_ROWS)]
