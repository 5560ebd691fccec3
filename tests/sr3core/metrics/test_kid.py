"""The kernel distance against a naive double loop, and its unbiasedness."""

import numpy as np
import pytest

from sr3core.errors import ConfigError, DataError
from sr3core.metrics import kid
from sr3core.metrics.kid import kernel_distance, kernel_distance_of_subsets, kernel_distances_without


def naive(a: np.ndarray, b: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (sum(u * v for u, v in zip(x, y, strict=True)) / len(x) + 1) ** 3

    def within(s: np.ndarray) -> float:
        total = sum(kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j)
        return total / (len(s) * (len(s) - 1))

    between = sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
    return within(a) + within(b) - 2 * between


def normal(count: int, dim: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim))


def test_equals_a_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = normal(13, 5, 0), normal(9, 5, 1) + 0.5
    assert kernel_distance(a, b) == pytest.approx(naive(a, b), rel=1e-12)
    monkeypatch.setattr(kid, "BLOCK_ROWS", 4)
    assert kernel_distance(a, b) == pytest.approx(naive(a, b), rel=1e-12)


def test_unbiased_for_one_distribution_and_positive_for_two() -> None:
    same = [kernel_distance(normal(20, 8, 2 * seed), normal(20, 8, 2 * seed + 1)) for seed in range(400)]
    error = np.std(same) / np.sqrt(len(same))
    assert abs(np.mean(same)) < 4 * error
    assert min(same) < 0 < max(same)
    assert kernel_distance(normal(100, 8, 0), normal(100, 8, 1) + 1) > 0.5


def test_subsets_of_everything_are_the_whole() -> None:
    a, b = normal(30, 6, 0), normal(30, 6, 1) + 0.3
    found = kernel_distance_of_subsets(a, b, np.random.default_rng(0), num_subsets=3)
    assert found.mean == pytest.approx(kernel_distance(a, b), rel=1e-9)
    assert found.std == pytest.approx(0, abs=1e-9)


def test_subsets_follow_the_generator_and_average_to_the_whole() -> None:
    a, b = normal(60, 6, 0), normal(80, 6, 1) + 0.3
    first, again = (
        kernel_distance_of_subsets(a, b, np.random.default_rng(5), num_subsets=300, subset_size=20) for _ in range(2)
    )
    assert first == again
    assert first.std > 0
    assert first.mean == pytest.approx(kernel_distance(a, b), abs=4 * first.std / np.sqrt(300))


def test_unfit_arguments_are_refused() -> None:
    a = normal(4, 3, 0)
    with pytest.raises(DataError, match="dimensions"):
        kernel_distance(a, normal(4, 2, 0))
    with pytest.raises(DataError, match="two images"):
        kernel_distance(a, a[:1])
    with pytest.raises(ConfigError, match="subset_size"):
        kernel_distance_of_subsets(a, a, np.random.default_rng(0), subset_size=1)


def test_distances_without_each_group_are_those_of_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kid, "BLOCK_ROWS", 16)  # several blocks, the last one short
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(43, 8)), generator.normal(size=(29, 8))
    ours, theirs = np.arange(43) % 5, np.arange(29) % 5
    found = kernel_distances_without(a, b, ours, theirs)
    wanted = [kernel_distance(a[ours != group], b[theirs != group]) for group in range(5)]
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
