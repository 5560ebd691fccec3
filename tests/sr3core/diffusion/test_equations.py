"""The equations that the program runs against closed forms and Monte Carlo."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sr3core.diffusion.equations import (
    denoising_loss,
    epsilon_from_output,
    predict_epsilon,
    predict_y_0,
    q_posterior,
    q_sample,
    reverse_mean,
    reverse_step,
    training_target,
    y_0_from_output,
)
from sr3core.diffusion.noise import ImageNoise

levels = st.floats(1e-4, 1 - 1e-6)


def image(batch=2, seed=0):
    return torch.randn(batch, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def level(value, batch=2):
    return torch.full((batch,), value, dtype=torch.float64)


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


def test_equation_9_draws_the_gaussian_that_it_names():
    torch.manual_seed(0)
    z = torch.randn(50_000, 1, 1, 1, dtype=torch.float64)
    drawn = reverse_step(torch.full_like(z, 3.0), torch.tensor(0.25), z)
    assert float(drawn.mean()) == pytest.approx(3, abs=0.02)
    assert float(drawn.var()) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("target", ["epsilon", "y_0", "v"])
@given(gamma=st.floats(1e-3, 1 - 1e-4))
def test_every_training_target_tells_y_0_and_epsilon(target, gamma):
    y_0, epsilon = image(seed=1), image(seed=2)
    y_t = q_sample(y_0, level(gamma), epsilon)
    output = training_target(target, y_0, level(gamma), epsilon)
    torch.testing.assert_close(y_0_from_output(target, output, y_t, level(gamma)), y_0, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(epsilon_from_output(target, output, y_t, level(gamma)), epsilon, rtol=1e-5, atol=1e-6)


def test_one_level_for_a_whole_batch_is_refused():
    with pytest.raises(ValueError, match=r"expected one level per image, \(2,\), got \(1,\)"):
        q_sample(image(), torch.tensor([0.5]), image())


def test_an_image_keeps_its_noise_in_any_batch():
    together = ImageNoise([5, 6, 7])((3, 3, 4, 4))
    alone = ImageNoise([6])((1, 3, 4, 4))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=0)
