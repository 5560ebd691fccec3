"""Training configurations that make no sense are refused before anything is started, by the key that is wrong."""

import re

import pytest

from pipelines.settings.presets import PRESETS, preset, small_stage
from pipelines.settings.train import MOST_SIGNAL, RunConfig
from sr3core.config import override
from sr3core.diffusion.schedules import training_gammas
from sr3core.errors import ConfigError
from sr3core.hyperparameters import NoiseScheduleConfig

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


@pytest.mark.parametrize("name", PRESETS)
def test_every_presets_chain_ends_in_noise(name):
    preset(name).check_ends()


def test_a_noise_schedule_that_ends_early_is_refused_with_what_would_do():
    """gamma_T by numpy's product: 0.61 with 100 steps, 0.08 with 500 (both from the paper's end points)."""
    for num_steps, gamma in ((100, "0.61"), (500, "0.081")):
        run = RunConfig(
            name="short", stages=(override(preset("small-16-64").stages[0], model__noise_schedule=short(num_steps)),)
        )
        schedule = run.stages[0].model.noise_schedule
        assert schedule.last_gamma == pytest.approx(training_gammas(schedule)[-1], rel=1e-12)
        with pytest.raises(ConfigError, match=rf"gamma_T is {gamma}: .*take beta_last (0\.\d+),") as refusal:
            run.check_ends()
        enough = float(re.search(r"beta_last (0\.\d+), more", str(refusal.value))[1])
        assert short(num_steps, enough).last_gamma <= MOST_SIGNAL


def short(num_steps, beta_last=1e-2):
    return NoiseScheduleConfig(num_steps=num_steps, beta_last=beta_last)
