"""Settings of an evaluation that make no sense are refused by name."""

import pytest

from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from sr3core.errors import ConfigError


@pytest.mark.parametrize("changes", [{"limit": 0}, {"num_seeds": 0}, {"num_actors": 0}])
def test_bad_choices_of_images_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=rf"^{next(iter(changes))}: "):
        EvaluateConfig(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_border": -1},
        {"classifier_crop": 0.0},
        {"classifier_crop": 1.1},
        {"level": 1.0},
        {"num_splits": 0},
        {"num_resamples": 0},
        {"num_distance_resamples": 1},
    ],
)
def test_bad_variants_of_metrics_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=rf"^{next(iter(changes))}: "):
        MeasureConfig(**changes)
