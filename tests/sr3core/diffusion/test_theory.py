"""The equations that only explain, against closed forms, autograd and Monte Carlo."""

import math

import numpy as np
import pytest
import torch

from sr3core.diffusion.equations import predict_epsilon
from sr3core.diffusion.schedules import cumulative_gammas, training_gammas
from sr3core.diffusion.theory import (
    alphas_of,
    forward_chain,
    q_marginal,
    q_step,
    score,
    simple_bound,
    variational_bound,
)
from sr3core.hyperparameters import NoiseScheduleConfig

GAMMAS = torch.tensor(cumulative_gammas(1 - np.linspace(1e-3, 0.5, 8)))


def noise(shape):
    return torch.randn(shape, dtype=torch.float64)


def test_alphas_are_the_ratios_of_gammas():
    alphas = np.array([0.9, 0.8, 0.5])
    np.testing.assert_allclose(alphas_of(cumulative_gammas(alphas)), alphas)


def test_equations_1_and_2_lead_to_equation_3():
    torch.manual_seed(0)
    y_0 = torch.full((40_000, 1, 1, 1), 0.7, dtype=torch.float64)
    chain = forward_chain(y_0, GAMMAS[1:] / GAMMAS[:-1], noise)
    assert len(chain) == 8
    for t, y_t in enumerate(chain, 1):
        mean, variance = q_marginal(y_0[:1], GAMMAS[t : t + 1])
        assert float(y_t.mean()) == pytest.approx(float(mean), abs=0.02)
        assert float(y_t.var()) == pytest.approx(float(variance), rel=0.03)


def test_equation_2_keeps_unit_variance():
    y = torch.randn(100_000, 1, 1, 1, generator=torch.Generator().manual_seed(1))
    z = torch.randn(100_000, 1, 1, 1, generator=torch.Generator().manual_seed(2))
    assert float(q_step(y, torch.full((100_000,), 0.6), z).var()) == pytest.approx(1, abs=0.02)


def exact_denoiser(variance):
    """E[epsilon | y_t] for y_0 ~ N(0, variance I)."""

    def denoise(x_up, y_t, gamma):
        gamma = gamma.to(y_t.dtype).view(-1, 1, 1, 1)
        return (1 - gamma).sqrt() * y_t / (gamma * variance + 1 - gamma)

    return denoise


def test_equation_12_bounds_the_exact_likelihood_and_tightens_with_steps():
    """For y_0 ~ N(0, 1/4) its log-likelihood is known; finer schedules must close in on it from below."""
    torch.manual_seed(0)
    y_0 = 0.5 * torch.randn(2000, 1, 2, 2, dtype=torch.float64)
    exact = float(torch.distributions.Normal(0.0, 0.5).log_prob(y_0).flatten(1).sum(1).mean())
    bounds = []
    for num_steps in (5, 20, 80):
        gammas = torch.tensor(np.exp(-np.linspace(0, 9, num_steps + 1)))
        bounds.append(float(variational_bound(exact_denoiser(0.25), None, y_0, gammas, noise).mean()))
    assert bounds[0] < bounds[1] < bounds[2] < exact + 0.05
    assert exact - bounds[2] < 0.35 * (exact - bounds[0])


def test_equation_12_is_exact_at_the_first_noise_level_whatever_the_images_type():
    """1 - alpha_1 is 1e-6; in float32 it would be off by 1.3%, and so would be the bound of a poor denoiser."""
    gammas = torch.tensor(training_gammas(NoiseScheduleConfig())[:3])
    y_0 = torch.full((2, 3, 4, 4), 0.5)
    draws = {t: torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(t)) for t in range(2)}

    def bound(dtype):
        drawn = iter(draws.values())
        return variational_bound(
            lambda x, y_t, gamma: torch.full_like(y_t, 100.0),
            None,
            y_0.to(dtype),
            gammas,
            lambda shape: next(drawn).to(dtype),
        )

    torch.testing.assert_close(bound(torch.float32).double(), bound(torch.float64), rtol=1e-3, atol=0)


@pytest.mark.parametrize("equation", [variational_bound, simple_bound])
def test_the_bounds_work_on_the_images_device(equation):
    y_0 = torch.zeros(2, 3, 4, 4, device="meta")
    value = equation(lambda x, y_t, gamma: y_t, None, y_0, GAMMAS.to("meta"), lambda shape: y_0.new_zeros(shape))
    assert value.is_meta
    assert value.shape == (2,)


def test_equation_13_of_a_denoiser_that_says_zero_is_the_number_of_values():
    torch.manual_seed(0)
    y_0 = torch.zeros(4000, 3, 2, 2, dtype=torch.float64)
    value = simple_bound(lambda x, y_t, gamma: torch.zeros_like(y_t), None, y_0, GAMMAS, noise)
    assert value.shape == (4000,)
    assert float(value.mean()) == pytest.approx(12, rel=0.02)  # E ||epsilon||^2 = C H W


def test_equation_14_is_the_gradient_of_the_log_density():
    y_0, gamma = noise((2, 3, 4, 5)), torch.full((2,), 0.3, dtype=torch.float64)
    y_t = noise((2, 3, 4, 5)).requires_grad_()
    mean, variance = q_marginal(y_0, gamma)
    log_density = torch.distributions.Normal(mean, variance.sqrt()).log_prob(y_t).sum()
    (gradient,) = torch.autograd.grad(log_density, y_t)
    torch.testing.assert_close(score(y_t.detach(), y_0, gamma), gradient)
    epsilon = predict_epsilon(y_t.detach(), gamma, y_0)
    torch.testing.assert_close(gradient, -epsilon / math.sqrt(0.7))
