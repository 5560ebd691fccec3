"""The Gaussian diffusion process of sections 2.1-2.3 and appendix B: Equations (1)-(6) and (8)-(14), one function each.

Images are float tensors (B, C, H, W); a noise level gamma or an alpha is (B,), one an image. Equation (7) is the
whole reverse chain: sampling.py.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sr3core.hyperparameters import Target

Denoiser = Callable[[Tensor | None, Tensor, Tensor], Tensor]
"""f(x_up, y_t, gamma) -> the epsilon estimate, (B, C, H, W); x_up is None for a base model. With a learned variance
(B, 2 C, H, W), which learned_variance.split_variance cuts."""

Noise = Callable[[Sequence[int]], Tensor]
"""Draws standard normal noise of a shape."""


def per_image(level: Tensor, image: Tensor) -> Tensor:
    """Shape a level (B,) as (B, 1, 1, 1) float64, so that arithmetic on it is exact before times() casts it.

    In float32, 1 - gamma has lost 6% of its value at the first noise levels, where it is 1e-6.

    Raises:
        ValueError: level is not of shape (B,).
    """
    if level.shape != image.shape[:1]:
        raise ValueError(f"expected one level an image, ({image.shape[0]},), got {tuple(level.shape)}")
    return level.double().view(-1, *[1] * (image.ndim - 1))


def times(coefficient: Tensor, image: Tensor) -> Tensor:
    """Multiply image by a float64 coefficient an image, in the image's own type."""
    return coefficient.to(image.dtype) * image


def forward_chain(y_0: Tensor, alphas: Tensor, noise: Noise) -> list[Tensor]:
    """Draw y_{1:T} given y_0, one Markov step after another: Equation (1).

    Args:
        y_0: target images, (B, C, H, W) in [-1, 1].
        alphas: alpha_1..alpha_T, (T,) in (0, 1).
        noise: draws standard normal noise.

    Returns:
        [y_1, ..., y_T], each like y_0.
    """
    chain = [y_0]
    for alpha in alphas:
        chain.append(q_step(chain[-1], alpha.expand(len(y_0)), noise(y_0.shape)))
    return chain[1:]


def q_step(y_previous: Tensor, alpha: Tensor, epsilon: Tensor) -> Tensor:
    """Draw y_t given y_{t-1}: Equation (2), N(sqrt(alpha_t) y_{t-1}, (1 - alpha_t) I); alpha (B,) in (0, 1)."""
    alpha = per_image(alpha, y_previous)
    return times(alpha.sqrt(), y_previous) + times((1 - alpha).sqrt(), epsilon)


def q_marginal(y_0: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C, H, W) and variance (B, 1, 1, 1) of y_t given y_0: Equation (3); gamma (B,) in (0, 1]."""
    gamma = per_image(gamma, y_0)
    return times(gamma.sqrt(), y_0), (1 - gamma).to(y_0.dtype)


def q_posterior(y_0: Tensor, y_t: Tensor, gamma_previous: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C, H, W) and variance (B, 1, 1, 1) of y_{t-1} given y_0 and y_t: Equation (4).

    Args:
        y_0: target images, (B, C, H, W).
        y_t: noisy images, like y_0.
        gamma_previous: gamma_{t-1}, (B,) in (0, 1].
        gamma: gamma_t, (B,) in (0, gamma_previous).
    """
    previous, now = per_image(gamma_previous, y_0), per_image(gamma, y_0)
    alpha = now / previous
    from_y_0 = previous.sqrt() * (1 - alpha) / (1 - now)
    from_y_t = alpha.sqrt() * (1 - previous) / (1 - now)
    variance = (1 - previous) * (1 - alpha) / (1 - now)
    return times(from_y_0, y_0) + times(from_y_t, y_t), variance.to(y_0.dtype)


def q_sample(y_0: Tensor, gamma: Tensor, epsilon: Tensor) -> Tensor:
    """Noise y_0 to noise level gamma: Equation (5).

    Args:
        y_0: target images, (B, C, H, W) in [-1, 1].
        gamma: noise level, (B,) in (0, 1].
        epsilon: standard normal noise, like y_0.

    Raises:
        ValueError: gamma is not of shape (B,).
    """
    gamma = per_image(gamma, y_0)
    return times(gamma.sqrt(), y_0) + times((1 - gamma).sqrt(), epsilon)


def denoising_loss(prediction: Tensor, target: Tensor, norm: int) -> Tensor:
    """||f_theta - epsilon||_p^p an image: Equation (6) inside the expectations.

    Args:
        prediction: the network's output, (B, C, H, W).
        target: what it should be (epsilon in the paper), like prediction.
        norm: p, 1 or 2.

    Returns:
        (B,) float32: the mean over an image's values, which is the paper's sum divided by C H W.
    """
    error = prediction.float() - target.float()
    return (error.abs() if norm == 1 else error.square()).flatten(1).mean(1)


def prior(shape: Sequence[int], noise: Noise) -> Tensor:
    """Draw y_T from N(0, I): Equation (8)."""
    return noise(shape)


def reverse_step(mean: Tensor, variance: Tensor, z: Tensor) -> Tensor:
    """Draw y_{t-1} given y_t and x: Equation (9), N(mean, variance I); z is standard normal, or 0 at t = 1."""
    return mean + variance.sqrt() * z


def predict_y_0(y_t: Tensor, gamma: Tensor, epsilon_hat: Tensor) -> Tensor:
    """Estimate y_0 from the noise estimate: Equation (10); gamma (B,) in (0, 1]."""
    gamma = per_image(gamma, y_t)
    return times(gamma.rsqrt(), y_t - times((1 - gamma).sqrt(), epsilon_hat))


def predict_epsilon(y_t: Tensor, gamma: Tensor, y_0_hat: Tensor) -> Tensor:
    """The noise that turns y_0_hat into y_t: Equation (10) solved for it; gamma (B,) in (0, 1)."""
    gamma = per_image(gamma, y_t)
    return times((1 - gamma).rsqrt(), y_t - times(gamma.sqrt(), y_0_hat))


def reverse_mean(y_t: Tensor, gamma_previous: Tensor, gamma: Tensor, epsilon_hat: Tensor) -> Tensor:
    """Mean of y_{t-1} given y_t and the noise estimate: Equation (11); gamma_{t-1} and gamma_t are (B,)."""
    now = per_image(gamma, y_t)
    alpha = now / per_image(gamma_previous, y_t)
    return times(alpha.rsqrt(), y_t - times((1 - alpha) / (1 - now).sqrt(), epsilon_hat))


def variational_bound(denoise: Denoiser, x_up: Tensor | None, y_0: Tensor, gammas: Tensor, noise: Noise) -> Tensor:
    """One draw of the lower bound on log p(y_0 | x): Equation (12), in nats an image, (B,).

    The reverse chain has Algorithm 2's variance 1 - alpha_t. gammas is (T + 1,) with gammas[0] = 1; one call costs T
    evaluations of denoise.
    """
    alphas = gammas[1:] / gammas[:-1]
    chain = [y_0, *forward_chain(y_0, alphas, noise)]
    bound = _log_normal(chain[-1], torch.zeros_like(y_0), torch.ones((), dtype=y_0.dtype))
    for t in range(len(alphas), 0, -1):
        before, now, alpha = gammas[t - 1].expand(len(y_0)), gammas[t].expand(len(y_0)), alphas[t - 1].to(y_0.dtype)
        mean = reverse_mean(chain[t], before, now, denoise(x_up, chain[t], now))
        bound = bound + _log_normal(chain[t - 1], mean, 1 - alpha)
        bound = bound - _log_normal(chain[t], alpha.sqrt() * chain[t - 1], 1 - alpha)
    return bound


def _log_normal(value: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(value; mean, variance I), summed over an image: (B,)."""
    terms = -0.5 * ((value - mean).square() / variance + torch.log(2 * math.pi * variance))
    return terms.flatten(1).sum(1)


def simple_bound(denoise: Denoiser, x_up: Tensor | None, y_0: Tensor, gammas: Tensor, noise: Noise) -> Tensor:
    """The simplified negative bound: Equation (13), mean over t = 1..T of ||epsilon - f||_2^2, (B,); T evaluations."""
    total = torch.zeros(len(y_0), dtype=y_0.dtype)
    for gamma in gammas[1:]:
        level, epsilon = gamma.expand(len(y_0)), noise(y_0.shape)
        error = epsilon - denoise(x_up, q_sample(y_0, level, epsilon), level)
        total = total + error.square().flatten(1).sum(1)
    return total / (len(gammas) - 1)


def score(y_t: Tensor, y_0: Tensor, gamma: Tensor) -> Tensor:
    """Gradient of log q(y_t | y_0) with respect to y_t: Equation (14); gamma (B,) in (0, 1).

    Deviation: the equation as printed divides by sqrt(1 - gamma); the gradient of N(sqrt(gamma) y_0, (1 - gamma) I)
    divides by 1 - gamma, so that it equals -epsilon / sqrt(1 - gamma), not -epsilon.
    """
    gamma = per_image(gamma, y_t)
    return times(-1 / (1 - gamma), y_t - times(gamma.sqrt(), y_0))


def training_target(target: Target, y_0: Tensor, gamma: Tensor, epsilon: Tensor) -> Tensor:
    """What the network should output at noise level gamma (B,): epsilon, y_0 or v.

    v = sqrt(gamma) epsilon - sqrt(1 - gamma) y_0 is Salimans and Ho's (2022); section 2.2 of SR3 names y_0 as the
    alternative to epsilon.
    """
    if target == "epsilon":
        return epsilon
    if target == "y_0":
        return y_0
    gamma = per_image(gamma, y_0)
    return times(gamma.sqrt(), epsilon) - times((1 - gamma).sqrt(), y_0)


def y_0_from_output(target: Target, output: Tensor, y_t: Tensor, gamma: Tensor) -> Tensor:
    """Turn a network's output, whatever it was trained to predict, into y_0_hat; gamma (B,) in (0, 1]."""
    if target == "epsilon":
        return predict_y_0(y_t, gamma, output)
    if target == "y_0":
        return output
    gamma = per_image(gamma, y_t)
    return times(gamma.sqrt(), y_t) - times((1 - gamma).sqrt(), output)


def epsilon_from_output(target: Target, output: Tensor, y_t: Tensor, gamma: Tensor) -> Tensor:
    """Turn a network's output, whatever it was trained to predict, into the epsilon estimate; gamma (B,) in (0, 1)."""
    if target == "epsilon":
        return output
    if target == "y_0":
        return predict_epsilon(y_t, gamma, output)
    gamma = per_image(gamma, y_t)
    return times((1 - gamma).sqrt(), y_t) + times(gamma.sqrt(), output)
