"""Intervals against scipy's bootstrap and normal theory; distances of resamples against the metrics themselves."""

import numpy as np
import pytest
import scipy.stats

from sr3core.errors import ConfigError, DataError
from sr3core.metrics.bootstrap import (
    PairedGram,
    bootstrap_mean,
    bootstrap_values,
    bootstrap_values_of_two,
    normal_interval,
    resamples,
)
from sr3core.metrics.fid import frechet_distance_from_features
from sr3core.metrics.kid import kernel_distance


def test_the_interval_of_a_mean_is_scipys() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=80)
    found = bootstrap_mean(values, num_resamples=4000)
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1)
    width = values.std() / np.sqrt(80)
    assert found == pytest.approx(tuple(theirs.confidence_interval), abs=0.15 * width)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    samples = np.random.default_rng(1).standard_normal((300, 50))
    intervals = [bootstrap_mean(values, num_resamples=200, level=0.8) for values in samples]
    covered = np.mean([low <= 0 <= high for low, high in intervals])
    assert 0.70 < covered < 0.88  # 0.8 less what 50 values cost a percentile interval; 4 standard errors each side


def test_the_same_seed_gives_the_same_interval_and_pairs_methods() -> None:
    values = np.random.default_rng(2).standard_normal(30)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    assert bootstrap_mean(values, seed=3) != bootstrap_mean(values, seed=4)
    shifted = bootstrap_mean(values + 1, seed=3)
    assert shifted == pytest.approx([bound + 1 for bound in bootstrap_mean(values, seed=3)])
    draws = list(resamples(5, 3, seed=0))
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(draw.shape == (5,) and draw.min() >= 0 and draw.max() < 5 for draw in draws)


def test_infinite_values_give_no_nan() -> None:
    low, high = bootstrap_mean(np.array([30.0, 31.0, np.inf, 32.0]))
    assert 30 <= low < np.inf
    assert high == np.inf


def test_the_error_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(3).standard_normal(200)
    error = bootstrap_values(lambda indices: float(values[indices].mean()), 200, num_resamples=2000).std(ddof=1)
    assert error == pytest.approx(values.std() / np.sqrt(200), rel=0.08)
    assert normal_interval(2.0, 0.5) == pytest.approx(scipy.stats.norm(2, 0.5).interval(0.95))


@pytest.mark.parametrize(("count", "dim"), [(12, 40), (60, 8)])
def test_distances_of_resamples_are_the_metrics_own(count: int, dim: int) -> None:
    generator = np.random.default_rng(4)
    a, b = (generator.standard_normal((count, dim)) + shift for shift in (0.0, 0.4))
    gram = PairedGram(a, b)
    for indices in (np.arange(count), *resamples(count, 3, seed=0)):
        expected = frechet_distance_from_features(a[indices], b[indices])
        assert gram.frechet_distance(indices) == pytest.approx(expected, rel=1e-8)
        assert gram.kernel_distance(indices) == pytest.approx(kernel_distance(a[indices], b[indices]), rel=1e-9)


def test_resampled_distances_are_biased_upwards_which_is_why_only_their_deviation_is_used() -> None:
    generator = np.random.default_rng(5)
    a, b = generator.standard_normal((2, 60, 30))
    gram = PairedGram(a, b)
    whole = gram.frechet_distance(np.arange(60))
    resampled = [gram.frechet_distance(indices) for indices in resamples(60, 20, seed=0)]
    assert min(resampled) > whole  # a percentile interval would not even hold the estimate


def test_unfit_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_resamples"):
        bootstrap_mean(np.zeros(3), num_resamples=0)
    with pytest.raises(ConfigError, match="at least 2"):
        bootstrap_values(lambda indices: 0.0, 3, num_resamples=1)
    with pytest.raises(ConfigError, match="level"):
        bootstrap_mean(np.zeros(3), level=1)
    with pytest.raises(DataError, match="one value per image"):
        bootstrap_mean(np.zeros(0))
    with pytest.raises(DataError, match="the same number of images, got 3 and 4"):
        PairedGram(np.zeros((3, 2)), np.zeros((4, 2)))


def test_two_sets_are_resampled_independently() -> None:
    noise = np.random.default_rng(0)
    a, b = noise.normal(0, 3, 80), noise.normal(0, 1, 200)
    values = bootstrap_values_of_two(lambda i, j: a[i].mean() - b[j].mean(), (80, 200), num_resamples=2000)
    expected = np.sqrt(a.var() / 80 + b.var() / 200)
    assert values.std() == pytest.approx(expected, rel=0.08)
    same = bootstrap_values_of_two(lambda i, j: a[i].mean() - a[j].mean(), (80, 80), num_resamples=50)
    assert same.std() > 0  # two sets of one size do not share their resamples
    with pytest.raises(ConfigError, match="at least 2, got 1"):
        bootstrap_values_of_two(lambda i, j: 0.0, (2, 2), num_resamples=1)
