"""Improved DDPM's learned variance and its bound, against torch.distributions and closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sr3core.diffusion.equations import q_posterior, q_sample
from sr3core.diffusion.learned_variance import (
    bound_term,
    decoder_log_likelihood,
    gaussian_divergence,
    learned_reverse_variance,
    split_variance,
)
from sr3core.diffusion.schedules import training_gammas
from sr3core.hyperparameters import NoiseScheduleConfig

levels = st.floats(1e-4, 1 - 1e-6)


def level(value, batch=2):
    return torch.full((batch,), value, dtype=torch.float64)


def image(seed, batch=2):
    return torch.randn(batch, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_an_output_is_cut_into_prediction_and_fraction():
    output = torch.cat(
        [torch.full((1, 3, 2, 2), 7.0), torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)], 1
    )
    prediction, fraction = split_variance(output, 3)
    torch.testing.assert_close(prediction, torch.full((1, 3, 2, 2), 7.0))
    torch.testing.assert_close(fraction[0, :, 0, 0], torch.tensor([0.0, 0.5, 1.0]))
    assert split_variance(prediction, 3) == (prediction, None)
    with pytest.raises(ValueError, match="expected 3 or 6 channels, got 4"):
        split_variance(output[:, :4], 3)


@given(now=levels, ratio=st.floats(0.01, 0.99), fraction=st.floats(0, 1))
def test_the_variance_lies_geometrically_between_its_bounds(now, ratio, fraction):
    previous = now + (1 - now) * ratio
    y_t = image(0)
    found = learned_reverse_variance(y_t, level(previous), level(now), torch.full_like(y_t, fraction))
    _, smallest = q_posterior(y_t, y_t, level(previous), level(now))
    expected = smallest ** (1 - fraction) * (1 - now / previous) ** fraction
    torch.testing.assert_close(found, expected.expand_as(y_t), rtol=1e-6, atol=0)


@pytest.mark.parametrize("family", ["linear", "cosine"])
def test_the_first_steps_variance_is_that_of_a_second_step_like_it(family):
    gammas = torch.tensor(training_gammas(NoiseScheduleConfig(family=family, num_steps=100)))
    y_t = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    first = learned_reverse_variance(y_t, gammas[:1], gammas[1:2], torch.zeros_like(y_t))
    _, second = q_posterior(y_t, y_t, gammas[1:2], gammas[1:2] ** 2)
    torch.testing.assert_close(first, second, rtol=1e-9, atol=0)
    _, theirs = q_posterior(y_t, y_t, gammas[1:2], gammas[2:3])
    assert 0.5 < float(first / theirs) <= 1
    assert math.isfinite(float(learned_reverse_variance(y_t.float(), gammas[:1], gammas[1:2], y_t.float())))


def test_the_divergence_is_that_of_torchs_normal_distributions():
    mean, other_mean = image(1), image(2)
    variance, other_variance = image(3).exp(), image(4).exp()
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, variance.sqrt()), torch.distributions.Normal(other_mean, other_variance.sqrt())
    )
    torch.testing.assert_close(gaussian_divergence(mean, variance, other_mean, other_variance), expected)


@pytest.mark.parametrize("deviation", [0.002, 0.03, 0.7])
@pytest.mark.parametrize("mean", [-1.05, -0.4, 0.0, 0.998])
def test_the_masses_of_the_256_grey_levels_add_up_to_one(mean, deviation):
    levels = (torch.arange(256) / 127.5 - 1).view(1, 1, 16, 16)
    masses = decoder_log_likelihood(levels, torch.tensor(mean), torch.tensor(deviation**2)).exp()
    assert float(masses.sum()) == pytest.approx(1, abs=1e-4)  # float32 at a width of half a bin
    normal = torch.distributions.Normal(torch.tensor(mean).double(), deviation)
    middle = normal.cdf(levels.double() + 1 / 255) - normal.cdf(levels.double() - 1 / 255)
    torch.testing.assert_close(masses.double()[..., 1:-1], middle[..., 1:-1], rtol=1e-3, atol=1e-7)


def test_a_term_of_the_bound_is_its_divergence_in_bits_and_at_t_1_the_likelihood():
    gammas = torch.tensor(training_gammas(NoiseScheduleConfig(num_steps=10, beta_first=1e-3)))
    y_0, epsilon = (image(1).clamp(-1, 1) * 127.5).round() / 127.5, image(2)
    previous, gamma = gammas[[0, 4]], gammas[[1, 5]]
    y_t = q_sample(y_0, gamma, epsilon)
    fraction = torch.full_like(y_0, 0.3)
    found = bound_term(y_0, y_t, previous, gamma, epsilon + 0.1, fraction)
    variance = learned_reverse_variance(y_t, previous, gamma, fraction)
    alpha = (gamma / previous).view(2, 1, 1, 1)
    mean = (y_t - (1 - alpha) / (1 - gamma.view(2, 1, 1, 1)).sqrt() * (epsilon + 0.1)) / alpha.sqrt()
    model = torch.distributions.Normal(mean, variance.sqrt())
    true_mean, true_variance = q_posterior(y_0, y_t, previous, gamma)
    posterior = torch.distributions.Normal(true_mean[1:], true_variance[1:].sqrt())
    last = torch.distributions.Normal(mean[1:], variance[1:].sqrt())
    divergence = torch.distributions.kl_divergence(posterior, last)
    mass = model.cdf(y_0 + 1 / 255) - model.cdf(y_0 - 1 / 255)
    mass = torch.where(y_0 <= -1, model.cdf(y_0 + 1 / 255), torch.where(y_0 >= 1, 1 - model.cdf(y_0 - 1 / 255), mass))
    expected = torch.stack([-mass[0].log2().mean(), divergence.mean() / math.log(2)])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_the_learned_variance_of_gaussian_data_is_the_true_one():
    """y_0 ~ N(0, 1/4) and its exact denoiser: minimising the bound must find the variance of q(y_{t-1} | y_t)."""
    generator = torch.Generator().manual_seed(0)
    y_0, epsilon = (torch.randn(20_000, 1, 1, 1, dtype=torch.float64, generator=generator) for _ in range(2))
    y_0 = 0.5 * y_0
    previous, now = 0.6, 0.4
    before, gamma = level(previous, 20_000), level(now, 20_000)
    y_t = q_sample(y_0, gamma, epsilon)
    epsilon_hat = math.sqrt(1 - now) * y_t / (now * 0.25 + 1 - now)  # E[epsilon | y_t]
    raw = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([raw], max_iter=30, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = bound_term(y_0, y_t, before, gamma, epsilon_hat, raw.expand_as(y_0)).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = learned_reverse_variance(y_t[:1], before[:1], gamma[:1], raw.detach().expand(1, 1, 1, 1))
    # (y_{t-1}, y_t) is Gaussian with known covariance, whatever Equation (4) says.
    alpha, variance_before = now / previous, previous * 0.25 + 1 - previous
    true_variance = variance_before - alpha * variance_before**2 / (alpha * variance_before + 1 - alpha)
    assert float(found) == pytest.approx(true_variance, rel=0.02)


@pytest.mark.parametrize("family", ["linear", "cosine"])
def test_the_variance_gets_a_gradient_everywhere_and_the_terms_stay_finite(family):
    """In float32, from the first to the last step of the paper's schedule and of Improved DDPM's."""
    gammas = torch.tensor(training_gammas(NoiseScheduleConfig(family=family)))
    t = torch.tensor([1, 2, 3, 1000, 2000])
    y_0 = (torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255).round() / 127.5 - 1
    epsilon = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    fraction = torch.full_like(y_0, 0.5).requires_grad_()
    terms = bound_term(y_0, q_sample(y_0, gammas[t], epsilon), gammas[t - 1], gammas[t], 0.9 * epsilon, fraction)
    terms.sum().backward()
    assert bool(terms.isfinite().all())
    assert bool(fraction.grad.isfinite().all())
    assert bool((fraction.grad[1:].flatten(1).abs().sum(1) > 0).all())
