"""Diversity of samples: closed forms, and every pair by hand."""

from itertools import combinations

import numpy as np
import pytest

from sr3core.errors import DataError
from sr3core.metrics.diversity import feature_diversity, pixel_diversity


def test_equal_samples_have_none_and_black_and_white_all() -> None:
    samples = np.zeros((3, 4, 5, 3), np.uint8)
    assert pixel_diversity(samples) == 0
    samples[0] = 255
    assert pixel_diversity(samples) == pytest.approx(2 / 3 * 255)  # of three pairs, two differ


def test_noise_differs_by_its_deviation_times_root_two() -> None:
    noise = np.random.default_rng(0).normal(128, 20, (6, 64, 64, 3)).round().clip(0, 255).astype(np.uint8)
    assert pixel_diversity(noise) == pytest.approx(20 * np.sqrt(2), rel=0.01)


def test_is_the_mean_over_all_pairs() -> None:
    generator = np.random.default_rng(1)
    samples = generator.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    pairs = [np.sqrt(np.mean((a.astype(float) - b) ** 2)) for a, b in combinations(samples, 2)]
    assert pixel_diversity(samples) == pytest.approx(np.mean(pairs), rel=1e-12)
    features = generator.standard_normal((5, 9)).astype(np.float32)
    distances = [np.linalg.norm(a.astype(float) - b) for a, b in combinations(features, 2)]
    assert feature_diversity(features) == pytest.approx(np.mean(distances), rel=1e-6)


def test_one_sample_has_no_diversity() -> None:
    with pytest.raises(DataError, match="at least two samples per input, got 1"):
        pixel_diversity(np.zeros((1, 4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="at least two samples"):
        feature_diversity(np.zeros((1, 4)))
