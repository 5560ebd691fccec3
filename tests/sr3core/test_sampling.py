"""Equation (7), Algorithm 2 and DDIM: against the recursion's closed form and an independent implementation."""

import math

import numpy as np
import pytest
import torch

from sr3core.hyperparameters import NoiseScheduleConfig, SamplerConfig
from sr3core.randomness import ImageNoise
from sr3core.sampling import sample
from sr3core.schedules import InferenceSchedule, default_schedule, inference_gammas, training_gammas

PAPER = SamplerConfig(variance=1.0, clip="none")
POSTERIOR = SamplerConfig(variance=0.0, clip="none")
MEAN, STD = 0.4, 0.3


def schedule(num_steps, sampler, family="linear"):
    gammas = inference_gammas(family, num_steps, 1 - 1e-4, 1e-3)
    return InferenceSchedule(gammas=tuple(float(gamma) for gamma in gammas), sampler=sampler)


def gaussian_denoiser(x_up, y_t, gamma):
    """E[epsilon | y_t] for y_0 ~ N(MEAN, STD^2): linear in y_t."""
    gamma = gamma.to(y_t.dtype).view(-1, 1, 1, 1)
    return (1 - gamma).sqrt() * (y_t - gamma.sqrt() * MEAN) / (gamma * STD**2 + 1 - gamma)


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


class OneStream:
    """All noise from one generator: fast for many tiny images."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, shape):
        return torch.randn(tuple(shape), generator=self.generator)


@pytest.mark.parametrize("num_steps", [3, 10, 100])
@pytest.mark.parametrize("mix", [0.0, 0.5, 1.0])
def test_algorithm_2_has_the_moments_that_its_recursion_predicts(num_steps, mix):
    plan = schedule(num_steps, SamplerConfig(variance=mix, clip="none"))
    images = sample(gaussian_denoiser, None, (100_000, 1, 1, 1), plan, OneStream())
    mean, variance = predicted_moments(plan.gammas, mix)
    assert float(images.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / 100_000))
    assert float(images.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / 100_000))


@pytest.mark.parametrize("mix", [0.0, 1.0])
def test_the_full_chain_reaches_the_target_distribution(mix):
    plan = default_schedule(NoiseScheduleConfig(), 2000, SamplerConfig(variance=mix, clip="none"))
    images = sample(gaussian_denoiser, None, (20_000, 1, 1, 1), plan, OneStream())
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

    class Recorded(OneStream):
        def __init__(self):
            super().__init__()
            self.drawn = []

        def __call__(self, shape):
            self.drawn.append(super().__call__(shape))
            return self.drawn[-1]

    shape = (2, 3, 4, 4)
    recorded = Recorded()
    plan = InferenceSchedule(gammas=tuple(gammas.tolist()), sampler=sampler)
    ours = sample(denoise, None, shape, plan, recorded)
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


def test_with_eta_1_ddim_is_the_ancestral_sampler_of_posterior_variance():
    shape = (4, 3, 5, 5)
    ancestral = sample(gaussian_denoiser, None, shape, schedule(17, POSTERIOR), OneStream(3))
    ddim = SamplerConfig(algorithm="ddim", eta=1.0, clip="none")
    torch.testing.assert_close(
        sample(gaussian_denoiser, None, shape, schedule(17, ddim), OneStream(3)), ancestral, rtol=1e-4, atol=1e-5
    )


def test_ddim_without_noise_carries_a_gaussian_onto_the_target_at_first_order():
    """The exact flow maps y_T to MEAN + STD y_T; halving the steps' length must halve the error."""
    start = torch.randn(1000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    plans = [schedule(n, SamplerConfig(algorithm="ddim", clip="none"), "cosine") for n in (50, 100, 200)]
    gamma_last = plans[0].gammas[-1]
    spread = math.sqrt(gamma_last * STD**2 + 1 - gamma_last)
    exact = MEAN + STD * (start - math.sqrt(gamma_last) * MEAN) / spread
    errors = [
        float((sample(gaussian_denoiser, None, start.shape, plan, lambda shape: start) - exact).abs().mean())
        for plan in plans
    ]
    orders = -np.diff(np.log2(errors))
    assert errors[-1] < 0.01
    np.testing.assert_allclose(orders, 1.0, atol=0.15)


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


def test_an_image_is_the_same_in_any_batch_split():
    plan = schedule(6, PAPER)
    seeds = [11, 12, 13, 14, 15]
    whole = sample(gaussian_denoiser, None, (5, 3, 4, 4), plan, ImageNoise(seeds))
    parts = [
        sample(gaussian_denoiser, None, (len(part), 3, 4, 4), plan, ImageNoise(part)) for part in (seeds[:2], seeds[2:])
    ]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=0)


def test_progress_is_told_of_every_step():
    told = []
    sample(gaussian_denoiser, None, (1, 1, 1, 1), schedule(4, PAPER), OneStream(), lambda *done: told.append(done))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
