"""Chains that start from the input: what they draw, in closed form; residuals, tiles, and what is refused."""

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch

from sr3core.config import scientific
from sr3core.diffusion.input_start import noised_input, started_from_input
from sr3core.diffusion.noise import ImageNoise
from sr3core.diffusion.residual import Residual
from sr3core.diffusion.sampling import sample
from sr3core.diffusion.schedules import default_schedule, schedule_from_json
from sr3core.errors import ConfigError
from sr3core.hyperparameters import NoiseScheduleConfig, SamplerAlgorithm, SamplerConfig
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.tile_grid import Tiling
from sr3core.upscaling.tiles import run_tiled_cascade
from tests.sr3core.targets import GAUSSIAN, OneStream, plan
from tests.sr3core.upscaling.test_tiles import local_stage, picture

MEAN, STD = 0.4, 0.3
"""Of GAUSSIAN."""
INPUT = -0.2
DRAWS = 100_000


def from_input(algorithm: SamplerAlgorithm, gamma_start: float, num_steps: int = 300, **settings: float):
    config = SamplerConfig(algorithm=algorithm, clip="none", start="input", **settings)  # type: ignore[arg-type]
    return plan("sigmoid", num_steps, config, gamma_first=1 - 1e-6, gamma_last=gamma_start)


def drawn(walk):
    x_up = torch.full((DRAWS, 1, 1, 1), INPUT)
    return sample(GAUSSIAN.denoise, x_up, x_up.shape, walk, OneStream())


def assert_moments(images, mean, variance):
    assert float(images.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / DRAWS) + 0.002)
    assert float(images.var()) == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize("gamma_start", [0.01, 0.3, 0.8])
@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_algorithm_2_draws_from_the_posterior_given_the_noised_input(mix, gamma_start):
    """y_0 given y_N is Gaussian, and so is y_N given the input: their composition."""
    images = drawn(from_input("ancestral", gamma_start, variance=mix))
    total = gamma_start * STD**2 + 1 - gamma_start
    slope = math.sqrt(gamma_start) * STD**2 / total
    mean = MEAN + slope * math.sqrt(gamma_start) * (INPUT - MEAN)
    assert_moments(images, mean, slope**2 * (1 - gamma_start) + STD**2 * (1 - gamma_start) / total)


@pytest.mark.parametrize("gamma_start", [0.01, 0.3, 0.8])
@pytest.mark.parametrize("algorithm", ["ddim", "dpmpp_2m", "heun"])
def test_deterministic_samplers_follow_the_probability_flow_from_the_noised_input(algorithm, gamma_start):
    """The flow keeps quantiles, which for a Gaussian is a line."""
    ratio = STD / math.sqrt(gamma_start * STD**2 + 1 - gamma_start)
    mean = MEAN + ratio * math.sqrt(gamma_start) * (INPUT - MEAN)
    assert_moments(drawn(from_input(algorithm, gamma_start)), mean, ratio**2 * (1 - gamma_start))


@pytest.mark.parametrize("algorithm", get_args(SamplerAlgorithm))
def test_the_network_first_sees_the_input_with_noise_of_the_last_level(algorithm):
    seen, x_up = [], torch.rand(2, 3, 4, 4) * 2 - 1

    def denoise(x_up, y_t, gamma):
        seen.append((y_t, float(gamma[0])))
        return torch.zeros_like(y_t)

    sample(denoise, x_up, x_up.shape, from_input(algorithm, 0.3, 3), ImageNoise([1, 2]))
    expected = math.sqrt(0.3) * x_up + math.sqrt(0.7) * ImageNoise([1, 2])(x_up.shape)
    torch.testing.assert_close(seen[0][0], expected, rtol=1e-6, atol=1e-6)
    assert seen[0][1] == pytest.approx(0.3)


def test_of_residuals_the_input_is_none_at_all():
    x_up, noise = torch.rand(2, 3, 4, 4) * 2 - 1, ImageNoise([1, 2])((2, 3, 4, 4))
    start = noised_input(x_up, 0.3, noise, Residual(x_up, (0.1, 0.2, 0.05)))
    torch.testing.assert_close(start, math.sqrt(0.7) * noise)


def test_a_cascade_starts_each_stage_from_its_own_input_and_tiles_are_its_parts():
    stages, low = [local_stage(8, 16), local_stage(16, 32)], picture(21, 34)
    near = [
        replace(stage, schedule=started_from_input(default_schedule(NoiseScheduleConfig(), 4), 0.2)) for stage in stages
    ]

    def tiled(stages, tile):
        return torch.cat([strip for _, strip in run_tiled_cascade(stages, low, 3, Tiling(tile, 16, 2))], dim=-2)

    one = upscale(near[1], upscale(near[0], low, [3]), [3])
    torch.testing.assert_close(tiled(near, 32), one, rtol=0, atol=1e-5)
    assert float((tiled(stages, 32) - one).abs().max()) > 0.01, "from noise it is another image: the test can fail"


def test_a_schedule_keeps_its_levels_below_the_start():
    whole = default_schedule(NoiseScheduleConfig(), 100)
    part = started_from_input(whole, 0.25)
    assert part.gammas[-1] == 0.25
    assert part.gammas[:-1] == whole.gammas[: part.num_steps]
    assert whole.gammas[part.num_steps] <= 0.25 < part.gammas[-2]
    assert (part.name, part.sampler.start) == ("respaced-100@0.25", "input")
    assert schedule_from_json(part.to_json(), "test") == part


@pytest.mark.parametrize("gamma", [1.0, 1.5, 0.0, -0.1, 1e-9, float("nan"), float("inf")])
def test_a_start_outside_of_the_schedule_is_refused(gamma):
    with pytest.raises(ConfigError, match="a start from the input at gamma"):
        started_from_input(default_schedule(NoiseScheduleConfig(), 100), gamma)


def test_a_base_model_has_no_input_to_start_from():
    with pytest.raises(ConfigError, match='start: "input" needs a low-resolution image'):
        sample(GAUSSIAN.denoise, None, (1, 1, 1, 1), from_input("ddim", 0.3), OneStream())


def test_a_chain_from_noise_has_the_fingerprint_that_it_had():
    assert "start" not in scientific(SamplerConfig())
    assert scientific(SamplerConfig(start="input"))["start"] == "input"
