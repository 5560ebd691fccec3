"""Training configurations that make no sense are refused before anything is started, by the key that is wrong."""

import pytest

from pipelines.settings.presets import small_stage
from sr3core.config import override
from sr3core.errors import ConfigError

STAGE = small_stage(8, 16, base_channels=8, num_steps=10, num_workers=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size: 0 is not positive"),
        ({"num_micro_batches": 0}, "num_micro_batches: 0 is not positive"),
        ({"num_validation_images": 0}, "num_validation_images: 0 is not positive"),
        ({"checkpoint_every": 0, "milestone_every": 10}, "checkpoint_every: 0 is not positive"),
        ({"num_lanes": 0}, "num_lanes: 0 is not positive"),
        ({"num_lanes": 6}, "num_lanes: 6 is not a power of two"),
        ({"placement__max_failures": -1}, "max_failures: -1 is negative"),
        ({"placement__cache_bytes": -1}, "cache_bytes: -1 is negative"),
        ({"placement__num_workers": 16}, "num_workers: 16 is more than num_lanes 8"),
    ],
)
def test_numbers_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        override(STAGE, **changes)
