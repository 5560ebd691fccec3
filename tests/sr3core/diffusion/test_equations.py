"""Equations (1)-(6) and (8)-(14) against closed forms, autograd and Monte Carlo."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sr3core.diffusion.equations import (
    denoising_loss,
    epsilon_from_output,
    forward_chain,
    predict_epsilon,
    predict_y_0,
    prior,
    q_marginal,
    q_posterior,
    q_sample,
    q_step,
    reverse_mean,
    reverse_step,
    score,
    simple_bound,
    training_target,
    variational_bound,
    y_0_from_output,
)
from sr3core.diffusion.schedules import cumulative_gammas
from sr3core.randomness import ImageNoise

GAMMAS = torch.tensor(cumulative_gammas(1 - np.linspace(1e-3, 0.5, 8)))
levels = st.floats(1e-4, 1 - 1e-6)


def noise(shape):
    return torch.randn(shape, dtype=torch.float64)


def image(batch=2, seed=0):
    return torch.randn(batch, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def level(value, batch=2):
    return torch.full((batch,), value, dtype=torch.float64)


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


@given(now=levels, ratio=st.floats(0.01, 0.99))
def test_equation_4_is_the_product_of_the_two_gaussians(now, ratio):
    previous = now + (1 - now) * ratio
    y_0, y_t = image(seed=1), image(seed=2)
    mean, variance = q_posterior(y_0, y_t, level(previous), level(now))
    # Bayes: precision of N(y_{t-1}; sqrt(gamma') y_0, 1 - gamma') plus that of N(y_t; sqrt(alpha) y_{t-1}, 1 - alpha).
    alpha = now / previous
    precision = 1 / (1 - previous) + alpha / (1 - alpha)
    expected = (math.sqrt(previous) * y_0 / (1 - previous) + math.sqrt(alpha) * y_t / (1 - alpha)) / precision
    assert float(variance[0]) == pytest.approx(1 / precision, rel=1e-6)
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=1e-8)


@given(gamma=levels)
def test_equation_10_undoes_equation_5(gamma):
    y_0, epsilon = image(seed=1), image(seed=2)
    y_t = q_sample(y_0, level(gamma), epsilon)
    torch.testing.assert_close(predict_y_0(y_t, level(gamma), epsilon), y_0, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(predict_epsilon(y_t, level(gamma), y_0), epsilon, rtol=1e-5, atol=1e-7)


@given(now=levels, ratio=st.floats(0.01, 0.99))
def test_equation_11_is_equation_4_at_equation_10(now, ratio):
    previous = now + (1 - now) * ratio
    y_t, epsilon_hat = image(seed=1), image(seed=2)
    mean, _ = q_posterior(predict_y_0(y_t, level(now), epsilon_hat), y_t, level(previous), level(now))
    torch.testing.assert_close(reverse_mean(y_t, level(previous), level(now), epsilon_hat), mean, rtol=1e-6, atol=1e-7)


def test_coefficients_survive_float32_at_the_first_noise_level():
    """1 - gamma = 1e-6 has 6% error in float32; here it must have none."""
    y_0, epsilon = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    y_t = q_sample(y_0, torch.tensor([1 - 1e-6], dtype=torch.float64), epsilon)
    torch.testing.assert_close(y_t, torch.full_like(y_t, 1e-3), rtol=1e-6, atol=0)


def test_equation_6_is_the_mean_p_norm_of_an_image():
    prediction, target = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), -2.0)
    torch.testing.assert_close(denoising_loss(prediction, target, 1), torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(denoising_loss(prediction, target, 2), torch.tensor([4.0, 4.0]))


def test_equation_8_and_9_draw_the_gaussians_that_they_name():
    torch.manual_seed(0)
    y_t = prior((50_000, 1, 1, 1), noise)
    assert float(y_t.mean()) == pytest.approx(0, abs=0.02)
    assert float(y_t.var()) == pytest.approx(1, abs=0.02)
    drawn = reverse_step(torch.full_like(y_t, 3.0), torch.tensor(0.25), noise(y_t.shape))
    assert float(drawn.mean()) == pytest.approx(3, abs=0.02)
    assert float(drawn.var()) == pytest.approx(0.25, abs=0.01)


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


def test_equation_13_of_a_denoiser_that_says_zero_is_the_number_of_values():
    torch.manual_seed(0)
    y_0 = torch.zeros(4000, 3, 2, 2, dtype=torch.float64)
    value = simple_bound(lambda x, y_t, gamma: torch.zeros_like(y_t), None, y_0, GAMMAS, noise)
    assert value.shape == (4000,)
    assert float(value.mean()) == pytest.approx(12, rel=0.02)  # E ||epsilon||^2 = C H W


def test_equation_14_is_the_gradient_of_the_log_density():
    y_0, gamma = image(seed=1), level(0.3)
    y_t = image(seed=2).requires_grad_()
    mean, variance = q_marginal(y_0, gamma)
    log_density = torch.distributions.Normal(mean, variance.sqrt()).log_prob(y_t).sum()
    (gradient,) = torch.autograd.grad(log_density, y_t)
    torch.testing.assert_close(score(y_t.detach(), y_0, gamma), gradient)
    epsilon = predict_epsilon(y_t.detach(), gamma, y_0)
    torch.testing.assert_close(gradient, -epsilon / math.sqrt(0.7))


@pytest.mark.parametrize("target", ["epsilon", "y_0", "v"])
@given(gamma=st.floats(1e-3, 1 - 1e-4))
def test_every_training_target_tells_y_0_and_epsilon(target, gamma):
    y_0, epsilon = image(seed=1), image(seed=2)
    y_t = q_sample(y_0, level(gamma), epsilon)
    output = training_target(target, y_0, level(gamma), epsilon)
    torch.testing.assert_close(y_0_from_output(target, output, y_t, level(gamma)), y_0, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(epsilon_from_output(target, output, y_t, level(gamma)), epsilon, rtol=1e-5, atol=1e-6)


def test_one_level_for_a_whole_batch_is_refused():
    with pytest.raises(ValueError, match=r"expected one level an image, \(2,\), got \(1,\)"):
        q_sample(image(), torch.tensor([0.5]), image())


def test_an_image_keeps_its_noise_in_any_batch():
    together = ImageNoise([5, 6, 7])((3, 3, 4, 4))
    alone = ImageNoise([6])((1, 3, 4, 4))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=0)
