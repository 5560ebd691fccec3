"""Settings of upscaling that make no sense are refused by name."""

import pytest

from pipelines.settings.upscale import UpscaleConfig
from sr3core.errors import ConfigError


@pytest.mark.parametrize(
    "changes",
    [
        {"quality": 0, "format": "jpeg"},
        {"quality": 101, "format": "webp"},
        {"quality": 90, "format": "png"},
        {"tile": 0},
        {"overlap": -1},
        {"batch": 0},
        {"max_megapixels": 0.0},
        {"num_actors": 0},
    ],
)
def test_bad_values_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=rf"^{next(iter(changes))}: "):
        UpscaleConfig(**changes)


def test_quality_is_for_lossy_formats():
    assert UpscaleConfig(quality=1, format="jpeg").quality == 1
    assert UpscaleConfig(quality=100, format="webp").quality == 100
