"""Equations of the paper that only explain the method. The program does not call them; the tests do.

They connect the equations that the program uses (equations.py) with the underlying probabilistic model.
"""

import math

import numpy as np
import torch
from torch import Tensor

from sr3core.diffusion.equations import Denoiser, Noise, per_image, q_sample, reverse_mean, times


def forward_chain(y_0: Tensor, alphas: Tensor, noise: Noise) -> list[Tensor]:
    """Draw y_{1:T} given y_0, one Markov step at a time: Equation (1).

    Args:
        y_0: target images, (B, C, H, W) in [-1, 1].
        alphas: alpha_1..alpha_T, (T,) in (0, 1).
        noise: draws standard normal noise.

    Returns:
        [y_1, ..., y_T], each shaped like y_0.
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


def alphas_of(gammas: np.ndarray) -> np.ndarray:
    """alpha_t = gamma_t / gamma_{t-1}: gammas (N + 1,) -> alphas (N,), where alphas[t - 1] is alpha_t."""
    return gammas[1:] / gammas[:-1]


def variational_bound(denoise: Denoiser, x_up: Tensor | None, y_0: Tensor, gammas: Tensor, noise: Noise) -> Tensor:
    """One draw of the lower bound on log p(y_0 | x): Equation (12), in nats per image, (B,).

    The reverse chain has Algorithm 2's variance 1 - alpha_t, kept in float64; in float32 its error is 1.3% at t = 1.

    Args:
        denoise: estimates epsilon; called T times.
        x_up: the condition, shaped like y_0, or None.
        y_0: target images, (B, C, H, W) in [-1, 1].
        gammas: gamma_0 = 1 .. gamma_T, (T + 1,) float64.
        noise: draws standard normal noise.
    """
    alphas = gammas[1:] / gammas[:-1]
    chain = [y_0, *forward_chain(y_0, alphas, noise)]
    bound = _log_normal(chain[-1], torch.zeros_like(y_0), torch.ones_like(gammas[0]))
    for t in range(len(alphas), 0, -1):
        before, now, alpha = gammas[t - 1].expand(len(y_0)), gammas[t].expand(len(y_0)), alphas[t - 1]
        mean = reverse_mean(chain[t], before, now, denoise(x_up, chain[t], now))
        bound = bound + _log_normal(chain[t - 1], mean, 1 - alpha)
        bound = bound - _log_normal(chain[t], alpha.sqrt() * chain[t - 1], 1 - alpha)
    return bound


def _log_normal(value: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(value; mean, variance I), summed over an image: (B,); variance is ()."""
    terms = -0.5 * ((value - mean).square() / variance + torch.log(2 * math.pi * variance))
    return terms.flatten(1).sum(1)  # (B, C, H, W) -> (B, C H W) -> (B,)


def simple_bound(denoise: Denoiser, x_up: Tensor | None, y_0: Tensor, gammas: Tensor, noise: Noise) -> Tensor:
    """The simplified negative bound: Equation (13), mean over t = 1..T of ||epsilon - f||_2^2, (B,); T evaluations."""
    total = y_0.new_zeros(len(y_0))
    for gamma in gammas[1:]:
        level, epsilon = gamma.expand(len(y_0)), noise(y_0.shape)
        error = epsilon - denoise(x_up, q_sample(y_0, level, epsilon), level)
        total = total + error.square().flatten(1).sum(1)  # (B, C, H, W) -> (B, C H W) -> (B,)
    return total / (len(gammas) - 1)


def score(y_t: Tensor, y_0: Tensor, gamma: Tensor) -> Tensor:
    """Gradient of log q(y_t | y_0) with respect to y_t: Equation (14); gamma (B,) in (0, 1).

    Deviation: the equation as printed divides by sqrt(1 - gamma); the gradient of N(sqrt(gamma) y_0, (1 - gamma) I)
    divides by 1 - gamma, so that the score is -epsilon / sqrt(1 - gamma), not -epsilon.
    """
    gamma = per_image(gamma, y_t)
    return times(-1 / (1 - gamma), y_t - times(gamma.sqrt(), y_0))
