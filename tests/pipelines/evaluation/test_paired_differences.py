"""Paired differences: computed by hand, and more certain than the means if images differ more than methods do."""

import numpy as np
import pytest

from pipelines.evaluation.metric_intervals import Embedded, distance_numbers, resampled_distances
from pipelines.evaluation.paired_differences import Compared, average, difference
from pipelines.settings.evaluate import MeasureConfig
from sr3core.metrics.fid import Moments, frechet_distance_from_features

CONFIG = MeasureConfig(num_distance_resamples=30)


def compared(features: np.ndarray, references: np.ndarray) -> Compared:
    values = {"psnr": -np.square(features - references).mean(axis=1)}
    distances = {"distance": frechet_distance_from_features(features, references)}
    resampled = resampled_distances(features, references, CONFIG)
    return Compared(values, distances, {"distance": resampled["distance"]})


@pytest.fixture
def sets():
    """References, and two methods whose errors on an image are nearly the same."""
    noise = np.random.default_rng(0)
    references = noise.normal(size=(40, 60))
    error = noise.normal(size=(40, 1)) * noise.normal(size=(40, 60))
    return references, references + error, references + 1.05 * error


def test_a_method_does_not_differ_from_itself(sets):
    references, ours, _ = sets
    one = compared(ours, references)
    for gap in difference([one], [one], CONFIG).values():
        assert (gap["mean"], gap["standard_error"]) == (0, 0)


def test_differences_are_of_the_means_and_surer_than_they(sets):
    references, ours, theirs = sets
    a, b = compared(ours, references), compared(theirs, references)
    gap = difference([a], [b], CONFIG)
    for metric in ("psnr", "distance"):
        means = [average([one], CONFIG)[metric] for one in (a, b)]
        assert gap[metric]["mean"] == pytest.approx(means[0]["mean"] - means[1]["mean"])
        assert gap[metric]["standard_error"] < 0.5 * means[0]["standard_error"]
    assert gap["psnr"]["low"] > 0
    assert gap["distance"]["high"] < 0


def test_trainings_are_averaged_before_they_are_compared(sets):
    references, ours, theirs = sets
    a, b = compared(ours, references), compared(theirs, references)
    halfway = difference([a, b], [b], CONFIG)
    whole = difference([a], [b], CONFIG)
    assert halfway["psnr"]["mean"] == pytest.approx(whole["psnr"]["mean"] / 2)
    assert halfway["distance"]["mean"] == pytest.approx(whole["distance"]["mean"] / 2)


def test_an_averages_interval_is_the_evaluations_own(sets):
    references, ours, _ = sets
    a, b = (Embedded(each, Moments.from_features(each)) for each in (ours, references))
    resampled = resampled_distances(ours, references, CONFIG)
    expected = distance_numbers(a, b, resampled, CONFIG)["distance"]
    assert average([compared(ours, references)], CONFIG)["distance"] == pytest.approx(expected)


def test_without_resamples_a_distance_has_no_interval(sets):
    references, ours, theirs = sets
    whole = [compared(each, references) for each in (ours, theirs)]
    a, b = (Compared(one.values, one.distances, {}) for one in whole)
    assert set(difference([a], [b], CONFIG)["distance"]) == {"mean", "n"}
