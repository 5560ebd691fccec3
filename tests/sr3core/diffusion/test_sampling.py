"""Equation (7) and Algorithm 2 against a closed form and an independent implementation; clipping; what is refused."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sr3core.diffusion.noise import ImageNoise
from sr3core.diffusion.projection import BackProjection
from sr3core.diffusion.sampling import sample, threshold_dynamically
from sr3core.diffusion.schedules import FAMILIES, InferenceSchedule, default_schedule, inference_gammas, training_gammas
from sr3core.errors import ConfigError
from sr3core.hyperparameters import Clipping, NoiseScheduleConfig, SamplerAlgorithm, SamplerConfig
from sr3core.randomness import keyed_generator
from tests.sr3core.targets import GAUSSIAN, OneStream, plan

PAPER = SamplerConfig(variance=1.0, clip="none")
POSTERIOR = SamplerConfig(variance=0.0, clip="none")
MEAN, STD = 0.4, 0.3
"""Of GAUSSIAN."""


def schedule(num_steps, sampler, family="linear"):
    return plan(family, num_steps, sampler, gamma_first=1 - 1e-4)


def predicted_moments(gammas, variance_mix):
    """Mean and variance that line 4 of Algorithm 2 gives with that denoiser, by scalar recursion from N(0, 1)."""
    mean, variance = 0.0, 1.0
    for t in range(len(gammas) - 1, 0, -1):
        before, now = gammas[t - 1], gammas[t]
        alpha = now / before
        slope = math.sqrt(1 - now) / (now * STD**2 + 1 - now)
        factor = (1 - (1 - alpha) / math.sqrt(1 - now) * slope) / math.sqrt(alpha)
        shift = (1 - alpha) / math.sqrt(1 - now) * slope * math.sqrt(now) * MEAN / math.sqrt(alpha)
        added = (1 - alpha) * ((1 - before) / (1 - now)) ** (1 - variance_mix) if t > 1 else 0.0
        mean, variance = factor * mean + shift, factor**2 * variance + added
    return mean, variance


@pytest.mark.parametrize("num_steps", [3, 10, 100])
@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_algorithm_2_has_the_moments_that_its_recursion_predicts(num_steps, mix):
    walk = schedule(num_steps, SamplerConfig(variance=mix, clip="none"))
    images = sample(GAUSSIAN.denoise, None, (100_000, 1, 1, 1), walk, OneStream())
    mean, variance = predicted_moments(walk.gammas, mix)
    assert float(images.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / 100_000))
    assert float(images.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / 100_000))


@pytest.mark.parametrize("algorithm", get_args(SamplerAlgorithm))
def test_every_chain_starts_from_standard_normal_noise(algorithm):
    seen = []

    def denoise(x_up, y_t, gamma):
        seen.append(y_t)
        return torch.zeros_like(y_t)

    sample(denoise, None, (2, 3, 4, 4), schedule(3, SamplerConfig(algorithm=algorithm)), ImageNoise([1, 2]))
    torch.testing.assert_close(seen[0], ImageNoise([1, 2])((2, 3, 4, 4)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_the_full_chain_reaches_the_target_distribution(mix):
    walk = default_schedule(NoiseScheduleConfig(), 2000, SamplerConfig(variance=mix, clip="none"))
    images = sample(GAUSSIAN.denoise, None, (20_000, 1, 1, 1), walk, OneStream())
    assert float(images.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(images.std()) == pytest.approx(STD, rel=0.02)


@pytest.mark.parametrize(
    ("sampler", "variance_type"),
    [(PAPER, "fixed_large"), (POSTERIOR, "fixed_small"), (SamplerConfig(variance=1.0), "fixed_large")],
)
def test_algorithm_2_agrees_with_an_independent_implementation(sampler, variance_type):
    """diffusers' DDPMScheduler over the same alphas with the same noise, also with y_0_hat clipped."""
    diffusers = pytest.importorskip("diffusers")
    gammas = training_gammas(NoiseScheduleConfig(num_steps=40, beta_first=1e-3, beta_last=0.2))
    betas = (1 - gammas[1:] / gammas[:-1]).tolist()
    other = diffusers.DDPMScheduler(
        num_train_timesteps=40, trained_betas=betas, variance_type=variance_type, clip_sample=sampler.clip == "static"
    )

    def denoise(x_up, y_t, gamma):
        return torch.tanh(y_t * 1.3) * gamma.float().view(-1, 1, 1, 1).sqrt()

    shape = (2, 3, 4, 4)
    recorded = OneStream()
    levels = InferenceSchedule(gammas=tuple(gammas.tolist()), sampler=sampler)
    ours = sample(denoise, None, shape, levels, recorded)
    y_t = recorded.drawn[0]
    for t in range(40, 0, -1):
        epsilon_hat = denoise(None, y_t, torch.full((2,), gammas[t]))
        step = other.step(epsilon_hat, t - 1, y_t, generator=torch.Generator())
        z = recorded.drawn[41 - t] if t > 1 else torch.zeros(shape)
        mean = _mean_of(other, epsilon_hat, t - 1, y_t)
        y_t = mean + other._get_variance(t - 1, predicted_variance=None).clamp(min=1e-20).sqrt() * z
        assert step.prev_sample.shape == y_t.shape
    torch.testing.assert_close(ours, y_t, rtol=1e-4, atol=2e-5)


def _mean_of(scheduler, epsilon_hat, t, y_t):
    """Their step's mean: the average of two antithetic draws, each from the same generator state."""
    total = 0
    for sign in (1, -1):
        with pytest.MonkeyPatch.context() as patch:
            module = __import__("diffusers.schedulers.scheduling_ddpm", fromlist=["randn_tensor"])
            patch.setattr(module, "randn_tensor", lambda shape, sign=sign, **_: sign * torch.ones(shape))
            total = total + scheduler.step(epsilon_hat, t, y_t).prev_sample
    return total / 2


def test_clipping_keeps_images_in_range_and_changes_nothing_inside_it():
    wild = sample(lambda x, y, g: -5 * y, None, (2, 3, 4, 4), schedule(10, SamplerConfig()), OneStream())
    assert float(wild.abs().max()) <= 1
    tame = SamplerConfig(clip="static")

    def denoise(x_up, y_t, gamma):  # y_0_hat is always 0.5
        gamma = gamma.to(y_t.dtype).view(-1, 1, 1, 1)
        return (y_t - gamma.sqrt() * 0.5) / (1 - gamma).sqrt()

    clipped = sample(denoise, None, (2, 3, 4, 4), schedule(10, tame), OneStream(1))
    unclipped = sample(denoise, None, (2, 3, 4, 4), schedule(10, PAPER), OneStream(1))
    torch.testing.assert_close(clipped, unclipped, rtol=1e-4, atol=1e-5)


def mixing(x_up, y_t, gamma):
    """A made-up network whose output at a value depends on all of its image."""
    level = gamma.to(y_t.dtype).view(-1, 1, 1, 1)
    return torch.tanh(3 * y_t.flip(-1) + y_t.mean((1, 2, 3), keepdim=True)) * level.sqrt() + 2 * y_t.roll(1, 2)


@pytest.mark.parametrize("clip", get_args(Clipping))
@pytest.mark.parametrize("algorithm", get_args(SamplerAlgorithm))
@given(cuts=st.sets(st.integers(1, 5)))
@settings(max_examples=8)
def test_an_image_is_the_same_in_any_batch_split(algorithm, clip, cuts):
    walk = schedule(4, SamplerConfig(algorithm=algorithm, clip=clip, eta=0.7, churn=0.7, clip_quantile=0.9))
    seeds = [11, 12, 13, 14, 15, 16]
    low = torch.rand(6, 3, 2, 2, generator=keyed_generator(0, "low")) * 2 - 1
    walk = replace(walk, sampler=replace(walk.sampler, project=1))

    def run(first, last):
        noise, project = ImageNoise(seeds[first:last]), BackProjection(low[first:last], (4, 4))
        return sample(mixing, None, (last - first, 3, 4, 4), walk, noise, projection=project)

    parts = [run(first, last) for first, last in pairwise([0, *sorted(cuts), 6])]
    torch.testing.assert_close(torch.cat(parts), run(0, 6), rtol=0, atol=0)


samplers = st.builds(
    SamplerConfig,
    algorithm=st.sampled_from(get_args(SamplerAlgorithm)),
    variance=st.floats(0, 1),
    eta=st.floats(0, 1),
    churn=st.floats(0, 1),
    clip=st.sampled_from(get_args(Clipping)),
    clip_quantile=st.floats(0, 1, exclude_min=True),
    project=st.integers(0, 3),
)


@given(
    samplers,
    st.sampled_from(FAMILIES),
    st.integers(1, 12),
    st.floats(1e-7, 0.3),
    st.floats(4e-5, 0.3),
    st.floats(1 / 3, 3),
)
@settings(max_examples=150, deadline=None)
def test_any_sampler_on_any_schedule_gives_finite_images(sampler, family, num_steps, first, last, shape):
    gammas = inference_gammas(family, num_steps, 1 - first, last, shape)
    walk = InferenceSchedule(gammas=tuple(float(gamma) for gamma in gammas), sampler=sampler)
    projection = BackProjection(torch.full((2, 3, 2, 2), 0.8), (4, 4))
    images = sample(mixing, None, (2, 3, 4, 4), walk, OneStream(), projection=projection)
    assert images.isfinite().all()
    if sampler.clip != "none":
        assert float(images.abs().max()) <= 1


@given(st.floats(0, 1, exclude_min=True), st.floats(0.1, 4), st.integers(0, 10**6))
@settings(max_examples=50)
def test_dynamic_thresholding_is_imagens(quantile, scale, seed):
    images = scale * torch.randn(3, 3, 5, 7, generator=keyed_generator(seed, "images"))
    found = threshold_dynamically(images, quantile)
    for image, ours in zip(images.numpy(), found.numpy(), strict=True):
        s = max(np.quantile(np.abs(image), quantile, method="higher"), 1.0)
        np.testing.assert_allclose(ours, np.clip(image, -s, s) / s, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "dpmp_2m"}, "algorithm: unknown 'dpmp_2m', did you mean 'dpmpp_2m'?"),
        ({"clip": "dynamical"}, "clip: unknown 'dynamical', did you mean 'dynamic'?"),
        ({"variance": 1.1}, "variance: 1.1 is not in"),
        ({"eta": -0.1}, "eta: -0.1 is not in"),
        ({"eta": float("nan")}, "eta: nan is not in"),
        ({"churn": 1.5}, "churn: 1.5 is not in"),
        ({"guidance": -1.0}, "guidance: -1.0 is not in"),
        ({"guidance": float("inf")}, "guidance: inf is not in"),
        ({"clip_quantile": 0.0}, "clip_quantile: 0.0 is not in"),
        ({"project": -1}, "project: -1 is negative; 0 turns it off"),
    ],
)
def test_a_sampler_out_of_range_is_refused(changes, message):
    with pytest.raises(ConfigError) as caught:
        SamplerConfig(**changes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("gammas", "message"),
    [
        ((1.0, 0.5, 0.5), "fall strictly; they rise after t = 1"),
        ((1.0, 0.5, 0.7), "fall strictly"),
        ((1.0, float("nan"), 0.1), "fall strictly"),
        ((1.0, 0.5, 0.0), "must stay in (0, 1]; the last is 0.0"),
        ((1.0, 0.5, -0.1), "must stay in (0, 1]"),
        ((1.5, 0.5), "gammas[0] == 1"),
        ((1.0,), "at least one step"),
    ],
)
def test_gammas_that_are_no_schedule_are_refused(gammas, message):
    with pytest.raises(ConfigError) as caught:
        InferenceSchedule(gammas=gammas)
    assert message in str(caught.value)


@pytest.mark.parametrize("clip", get_args(Clipping))
@pytest.mark.parametrize("algorithm", get_args(SamplerAlgorithm))
def test_a_chain_never_waits_for_its_device(algorithm, clip):
    """The meta device holds shapes and no values: whoever wanted to read one on the host would fail."""
    sampler = SamplerConfig(algorithm=algorithm, clip=clip, eta=0.5, churn=0.5, project=2)
    shape = (2, 3, 8, 8)
    projection = BackProjection(torch.empty(2, 3, 3, 3, device="meta"), (6, 6))
    images = sample(
        lambda x_up, y_t, gamma: y_t * gamma.to(y_t.dtype).view(-1, 1, 1, 1),
        None,
        shape,
        schedule(3, sampler),
        lambda shape: torch.empty(shape, device="meta"),
        projection=projection,
    )
    assert images.shape == shape
    assert images.is_meta


def test_a_projection_without_an_image_is_refused():
    with pytest.raises(ConfigError, match="project: 2 iterations need a low-resolution image"):
        sample(mixing, None, (1, 3, 4, 4), schedule(3, SamplerConfig(project=2)), OneStream())


def test_progress_is_told_of_every_step():
    told = []
    sample(GAUSSIAN.denoise, None, (1, 1, 1, 1), schedule(4, PAPER), OneStream(), lambda *done: told.append(done))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
