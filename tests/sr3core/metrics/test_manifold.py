"""Precision, recall, density and coverage against a naive implementation, geometry and their definitions' corners."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from sr3core.errors import ConfigError, DataError
from sr3core.metrics import manifold
from sr3core.metrics.manifold import manifold_hits


def normal(count: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim)) + shift


def naive(outputs: np.ndarray, references: np.ndarray, k: int) -> tuple[float, float, float, float]:
    """As the definitions are worded, with scipy's distances, a sort, and one image at a time."""
    between = cdist(outputs, references)
    radius_of_output = np.sort(cdist(outputs, outputs), axis=1)[:, k]  # column 0 is the image itself
    radius_of_reference = np.sort(cdist(references, references), axis=1)[:, k]
    inside = [[between[i, j] <= radius_of_reference[j] for j in range(len(references))] for i in range(len(outputs))]
    precision = np.mean([any(row) for row in inside])
    recall = np.mean([any(between[:, j] <= radius_of_output) for j in range(len(references))])
    density = sum(map(sum, inside)) / (k * len(outputs))
    coverage = np.mean([between[:, j].min() <= radius_of_reference[j] for j in range(len(references))])
    return float(precision), float(recall), float(density), float(coverage)


@pytest.mark.parametrize(("n", "m", "dim", "k", "shift"), [(40, 40, 3, 3, 0.5), (31, 57, 8, 5, 0.0), (50, 20, 2, 1, 2)])
def test_equals_the_definitions_in_any_block_size(monkeypatch, n, m, dim, k, shift) -> None:
    outputs, references = normal(n, dim, 1, shift), normal(m, dim, 2)
    for block_rows in (7, 1024):
        monkeypatch.setattr(manifold, "BLOCK_ROWS", block_rows)
        hits = manifold_hits(outputs, references, num_neighbours=k)
        assert [float(np.mean(part)) for part in hits] == pytest.approx(naive(outputs, references, k), rel=1e-12)
    assert len(hits.precision) == len(hits.density) == n
    assert len(hits.recall) == len(hits.coverage) == m


def test_far_from_the_origin_nothing_is_lost() -> None:
    outputs, references = normal(30, 4, 1, 0.5), normal(30, 4, 2)
    near, far = manifold_hits(outputs, references), manifold_hits(outputs + 1e6, references + 1e6)
    for a, b in zip(near, far, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_set_is_its_own_manifold_and_a_distant_one_is_none() -> None:
    references = normal(30, 4, 0)
    assert [part.mean() for part in manifold_hits(references, references)[:2]] == [1, 1]
    assert not any(part.any() for part in manifold_hits(references + 100, references))


def test_dropped_modes_lower_recall_alone_and_outliers_precision_alone() -> None:
    centres = np.array([[0.0, 0.0], [50.0, 0.0]])
    references = np.concatenate([normal(50, 2, 1) + centre for centre in centres])
    one_mode = manifold_hits(normal(100, 2, 2), references)
    assert one_mode.precision.mean() > 0.9
    assert one_mode.recall.mean() <= 0.5
    wild = np.concatenate([references + 1e-9, normal(100, 2, 3) * 1e4])
    with_outliers = manifold_hits(wild, references)
    assert with_outliers.precision.mean() < 0.55
    assert with_outliers.coverage.all()


def test_unfit_sets_are_refused() -> None:
    x = normal(4, 2, 0)
    with pytest.raises(ConfigError, match="num_neighbours"):
        manifold_hits(x, x, num_neighbours=0)
    with pytest.raises(DataError, match="by 3 neighbours need more images per set, got 3"):
        manifold_hits(x, x[:3])
    with pytest.raises(DataError, match="dimensions"):
        manifold_hits(x, x[:, :1])
