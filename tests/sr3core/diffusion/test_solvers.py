"""The solvers: their order against the exact flow, their limits in distribution, and independent implementations."""

import itertools
import math

import numpy as np
import pytest
import torch

from sr3core.diffusion.sampling import sample
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.diffusion.solvers import MOST_CHURN
from sr3core.hyperparameters import SamplerConfig
from sr3core.randomness import keyed_generator
from tests.sr3core.targets import GAUSSIAN, TWO_PEAKS, OneStream, plan

FLOWS = {
    "ddim": SamplerConfig(algorithm="ddim", clip="none"),
    "dpmpp_2m": SamplerConfig(algorithm="dpmpp_2m", clip="none"),
    "heun": SamplerConfig(algorithm="heun", clip="none"),
}
RANDOM = {
    "ancestral": SamplerConfig(clip="none"),
    "posterior": SamplerConfig(variance=0.0, clip="none"),
    "ddim": SamplerConfig(algorithm="ddim", eta=1.0, clip="none"),
    "heun": SamplerConfig(algorithm="heun", churn=0.5, clip="none"),
}


@pytest.mark.parametrize("target", [GAUSSIAN, TWO_PEAKS])
@pytest.mark.parametrize(
    ("name", "family", "order", "error"),
    [("ddim", "karras", 1, 0.03), ("dpmpp_2m", "sigmoid", 2, 3e-3), ("heun", "karras", 2, 1e-3)],
)
def test_a_solver_reaches_the_exact_flow_at_its_own_order(target, name, family, order, error):
    """Twice the steps leave a half of the error, or a quarter. The last step to gamma_0 = 1 starts at 1 - 1e-8."""
    steps = (40, 80, 160, 320)
    start = torch.randn(500, 1, 1, 1, generator=keyed_generator(0, name), dtype=torch.float64)
    errors = []
    for num_steps in steps:
        schedule = plan(family, num_steps, FLOWS[name])
        found = sample(target.denoise, None, start.shape, schedule, lambda shape: start).numpy().ravel()
        exact = target.flow(start.numpy().ravel(), schedule.gammas[-1])
        errors.append(np.sqrt(np.mean((found - exact) ** 2)))
    slope = -np.polyfit(np.log2(steps), np.log2(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.2)
    assert errors[1] < error


@pytest.mark.parametrize("target", [GAUSSIAN, TWO_PEAKS])
@pytest.mark.parametrize("name", RANDOM)
def test_a_random_sampler_reaches_the_target_in_distribution(target, name):
    """Mean, variance and the share below 0, each within 4.5 of its standard errors and a little for 400 steps."""
    count = 40_000
    schedule = plan("karras" if name == "heun" else "sigmoid", 400, RANDOM[name], gamma_first=1 - 1e-6)
    found = sample(target.denoise, None, (count, 1, 1, 1), schedule, OneStream(1)).double().numpy().ravel()
    fourth = np.mean((found - found.mean()) ** 4)
    share = float(target.distribution(np.zeros(1), 1.0)[0])
    bias = 0.003
    assert found.mean() == pytest.approx(target.mean, abs=4.5 * math.sqrt(target.variance / count) + bias)
    assert found.var() == pytest.approx(
        target.variance, abs=4.5 * math.sqrt((fourth - target.variance**2) / count) + bias
    )
    assert np.mean(found < 0) == pytest.approx(share, abs=4.5 * math.sqrt(share * (1 - share) / count) + bias)


def test_with_eta_1_ddim_is_the_ancestral_sampler_of_posterior_variance():
    shape = (4, 3, 5, 5)
    images = [
        sample(TWO_PEAKS.denoise, None, shape, plan("linear", 17, RANDOM[name]), OneStream(3, torch.float64))
        for name in ("ddim", "posterior")
    ]
    torch.testing.assert_close(images[0], images[1], rtol=1e-9, atol=1e-9)


def test_one_step_of_any_solver_is_the_estimate_of_y_0():
    start = torch.randn(5, 1, 1, 1, generator=keyed_generator(0, "start"), dtype=torch.float64)
    gamma = torch.full((5,), 1e-3, dtype=torch.float64)
    y_0_hat = (start - math.sqrt(1 - 1e-3) * TWO_PEAKS.denoise(None, start, gamma)) / math.sqrt(1e-3)
    for sampler in [*FLOWS.values(), *RANDOM.values()]:
        found = sample(TWO_PEAKS.denoise, None, start.shape, plan("linear", 1, sampler), lambda shape: start)
        torch.testing.assert_close(found, y_0_hat, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7])
@pytest.mark.parametrize("sampler", [*FLOWS.values(), *RANDOM.values(), SamplerConfig(algorithm="heun", churn=1.0)])
def test_the_network_is_asked_as_often_as_promised_and_never_outside_the_schedule(sampler, num_steps):
    asked = []

    def denoise(x_up, y_t, gamma):
        assert gamma.shape == (2,)
        asked.append(float(gamma[0]))
        return torch.zeros_like(y_t)

    schedule = plan("karras", num_steps, sampler)
    sample(denoise, None, (2, 3, 4, 4), schedule, OneStream())
    assert len(asked) == schedule.num_evaluations
    assert min(asked) == asked[0] == schedule.gammas[-1]
    assert max(asked) == schedule.gammas[1] < 1


def test_churn_adds_the_noise_of_edms_algorithm():
    """Against Algorithm 2 of Karras et al. written in its own coordinates, S_tmin and S_tmax leaving out the ends."""
    churn, num_steps = 0.6, 6
    schedule = plan("karras", num_steps, SamplerConfig(algorithm="heun", churn=churn, clip="none"), gamma_first=0.99)
    noise = OneStream(2, torch.float64)
    ours = sample(TWO_PEAKS.denoise, None, (50, 1, 1, 1), schedule, noise)
    sigmas = [math.sqrt((1 - gamma) / gamma) for gamma in reversed(schedule.gammas)]

    def slope(u, sigma):
        gamma = torch.full((50,), 1 / (1 + sigma**2), dtype=torch.float64)
        epsilon = TWO_PEAKS.denoise(None, u * gamma.sqrt().view(-1, 1, 1, 1), gamma)
        denoised = u - sigma * epsilon  # D(u; sigma)
        return (u - denoised) / sigma

    u = noise.drawn[0] * math.sqrt(1 + sigmas[0] ** 2)
    for i, (sigma, after) in enumerate(itertools.pairwise(sigmas)):
        is_inner = 0 < i < num_steps - 1
        raised = min(sigma * (1 + churn * MOST_CHURN), sigmas[0]) if is_inner else sigma
        z = noise.drawn[i + 1] if is_inner else 0.0
        u_hat = u + math.sqrt(raised**2 - sigma**2) * z
        d = slope(u_hat, raised)
        u = u_hat + (after - raised) * d
        if after > 0:
            u = u_hat + (after - raised) * (d + slope(u, after)) / 2
    torch.testing.assert_close(ours, u, rtol=1e-9, atol=1e-9)


@pytest.fixture
def levels():
    """Betas of a schedule of 30 steps that diffusers is given too."""
    betas = np.linspace(1e-3, 0.3, 30)
    return np.concatenate([[1.0], np.cumprod(1 - betas)]), betas


def test_dpmpp_2m_agrees_with_an_independent_implementation(levels):
    """diffusers' multistep solver of order 2 over the same levels; it too ends at no noise."""
    diffusers = pytest.importorskip("diffusers")
    gammas, betas = levels
    kept = [0, *range(2, 31, 4)]
    other = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=30,
        trained_betas=betas,
        solver_order=2,
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
    )
    other.set_timesteps(timesteps=[t - 1 for t in reversed(kept[1:])])
    start = torch.randn(20, 1, 2, 2, generator=keyed_generator(0, "start"))
    y_t = start
    for t in other.timesteps:
        gamma = torch.full((20,), gammas[int(t) + 1])
        y_t = other.step(TWO_PEAKS.denoise(None, y_t, gamma), t, y_t).prev_sample
    schedule = InferenceSchedule(gammas=tuple(float(gammas[t]) for t in kept), sampler=FLOWS["dpmpp_2m"])
    ours = sample(TWO_PEAKS.denoise, None, start.shape, schedule, lambda shape: start)
    torch.testing.assert_close(ours, y_t, rtol=1e-4, atol=1e-5)


def test_heun_agrees_with_an_independent_implementation(levels):
    """diffusers' Heun solver, in its own coordinates y / sqrt(gamma), over the same levels."""
    diffusers = pytest.importorskip("diffusers")
    gammas, betas = levels
    kept = [0, *range(2, 31, 4)]
    other = diffusers.HeunDiscreteScheduler(num_train_timesteps=30, trained_betas=betas)
    other.set_timesteps(timesteps=[t - 1 for t in reversed(kept[1:])])
    start = torch.randn(20, 1, 2, 2, generator=keyed_generator(0, "start"))
    image = start / math.sqrt(gammas[30])
    for t in other.timesteps:
        gamma = torch.full((20,), gammas[int(t) + 1])
        epsilon = TWO_PEAKS.denoise(None, other.scale_model_input(image, t), gamma)
        image = other.step(epsilon, t, image).prev_sample
    schedule = InferenceSchedule(gammas=tuple(float(gammas[t]) for t in kept), sampler=FLOWS["heun"])
    ours = sample(TWO_PEAKS.denoise, None, start.shape, schedule, lambda shape: start)
    torch.testing.assert_close(ours, image, rtol=1e-4, atol=1e-5)


def test_a_learned_variance_takes_the_place_of_the_samplers():
    """v = 1 is Algorithm 2's variance and v = -1 the posterior's; the other samplers drop it."""

    def with_v(v):
        def denoise(x_up, y_t, gamma):
            epsilon_hat = TWO_PEAKS.denoise(x_up, y_t, gamma)
            return torch.cat([epsilon_hat, torch.full_like(epsilon_hat, v)], 1)

        return denoise

    def run(denoise, sampler):
        schedule = plan("linear", 12, sampler, gamma_first=0.99)
        return sample(denoise, None, (4, 3, 5, 5), schedule, OneStream(3, torch.float64))

    for v, mix in ((1.0, 1.0), (-1.0, 0.0), (0.0, 0.5)):
        fixed = run(TWO_PEAKS.denoise, SamplerConfig(variance=mix, clip="none"))
        learned = run(with_v(v), SamplerConfig(variance=1 - mix, clip="none"))
        torch.testing.assert_close(learned, fixed, rtol=1e-9, atol=1e-9)
    for sampler in FLOWS.values():
        torch.testing.assert_close(run(with_v(0.3), sampler), run(TWO_PEAKS.denoise, sampler), rtol=0, atol=0)
