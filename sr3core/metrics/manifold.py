"""Precision and recall, density and coverage: fidelity and variety of a set of images, told apart."""

from typing import NamedTuple

import numpy as np

from sr3core.errors import ConfigError, DataError
from sr3core.metrics.inputs import as_features

NUM_NEIGHBOURS = 3
"""k of Kynkäänniemi et al., 2019."""
BLOCK_ROWS = 1024
"""Rows of a distance matrix in memory at once."""


class ManifoldHits(NamedTuple):
    """For each image whether it lies on the other set's manifold, so that intervals can be taken over images."""

    precision: np.ndarray
    """bool (n,): the output lies within the k-th neighbour's distance of a reference, from that reference."""
    recall: np.ndarray
    """bool (m,): the reference lies within the k-th neighbour's distance of an output, from that output."""
    density: np.ndarray
    """float64 (n,): how many references the output is so close to, divided by k; not bounded by 1."""
    coverage: np.ndarray
    """bool (m,): an output lies within the reference's own k-th neighbour's distance."""


def manifold_hits(outputs: np.ndarray, references: np.ndarray, *, num_neighbours: int = NUM_NEIGHBOURS) -> ManifoldHits:
    """Estimate both sets' manifolds by balls to the k-th nearest neighbour; the means are the four measures.

    Precision and recall are those of Kynkäänniemi et al., 2019, density and coverage those of Naeem et al.,
    2020. All depend on the numbers of images: they compare only where both sets have as many. An image is no
    neighbour of itself, one on a ball's surface is in the ball.

    Args:
        outputs, references: features, (n, D) and (m, D), of any real type, computed in float64.
        num_neighbours: k, smaller than n and m.

    Raises:
        ConfigError: num_neighbours is not positive.
        DataError: not such features, or a set has no k neighbours for an image.
    """
    if num_neighbours < 1:
        raise ConfigError(f"num_neighbours must be positive, got {num_neighbours}")
    ours, theirs = as_features(outputs, references)
    fewest = min(len(ours), len(theirs))
    if fewest <= num_neighbours:
        raise DataError(f"precision and recall by {num_neighbours} neighbours need more images a set, got {fewest}")
    center = theirs.mean(axis=0)  # distances far from the origin would lose digits to |x|^2 - 2xy + |y|^2
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
    squares = np.einsum("nd,nd->n", x, x)[:, None] + np.einsum("md,md->m", y, y)
    return np.maximum(squares - 2 * (x @ y.T), 0)


def _blocks(count: int) -> list[slice]:
    return [slice(start, min(start + BLOCK_ROWS, count)) for start in range(0, count, BLOCK_ROWS)]
