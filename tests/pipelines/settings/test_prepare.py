"""Settings of a preparation that make no sense are refused by name."""

import pytest

from pipelines.settings.prepare import PrepareConfig
from sr3core.errors import ConfigError


def test_bad_values_are_refused() -> None:
    for changes in (
        {"validation_fraction": 1.5},
        {"validation_fraction": 0.6, "test_fraction": 0.6},
        {"samples_per_shard": 0},
        {"blur_variants": -1},
        {"num_workers": 0},
        {"crops_per_image": 2},
        {"max_flat": 0.5},
        {"crops_per_image": 0, "crop": "native"},
        {"max_flat": 1.5, "crop": "native"},
        {"align_faces": True, "crop": "native"},
    ):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            PrepareConfig(source="s", out="o", stages=("8-16",), **changes)  # type: ignore[arg-type]
