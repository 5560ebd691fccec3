"""Sampling: the reverse chain of Equation (7), Algorithm 2, and DDIM, on any inference schedule."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sr3core.diffusion import (
    Denoiser,
    Noise,
    per_image,
    predict_epsilon,
    predict_y_0,
    prior,
    q_posterior,
    reverse_mean,
    reverse_step,
    times,
)
from sr3core.hyperparameters import SamplerConfig
from sr3core.schedules import InferenceSchedule

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@torch.inference_mode()
def sample(
    denoise: Denoiser,
    x_up: Tensor | None,
    shape: Sequence[int],
    schedule: InferenceSchedule,
    noise: Noise,
    progress: Progress | None = None,
) -> Tensor:
    """Draw y_0 from p(y_0 | x) by the reverse chain: Equation (7); Algorithm 2 with SamplerConfig(clip=False).

    Args:
        denoise: estimates epsilon from (x_up, y_t, gamma).
        x_up: condition at the output's size, (B, C, H, W) in [-1, 1]; None for a base model.
        shape: (B, C, H, W) of the output.
        schedule: noise levels and how to walk them; one evaluation of denoise a step.
        noise: draws standard normal noise; randomness.ImageNoise makes images independent of their batch.
        progress: told of every finished step.

    Returns:
        y_0, (B, C, H, W), about [-1, 1]; exactly inside it where the sampler clips.
    """
    step = _STEPS[schedule.sampler.algorithm]
    y_t = prior(shape, noise)  # y_T
    gammas = torch.tensor(schedule.gammas, dtype=torch.float64, device=y_t.device)
    for t in range(schedule.num_steps, 0, -1):
        before, now = gammas[t - 1].expand(shape[0]), gammas[t].expand(shape[0])
        epsilon_hat = denoise(x_up, y_t, now)
        z = noise(shape) if t > 1 and _is_random(schedule.sampler) else torch.zeros_like(y_t)
        y_t = step(y_t, before, now, epsilon_hat, z, schedule.sampler)
        if progress:
            progress(schedule.num_steps - t + 1, schedule.num_steps)
    return y_t


def ancestral_step(
    y_t: Tensor, gamma_previous: Tensor, gamma: Tensor, epsilon_hat: Tensor, z: Tensor, config: SamplerConfig
) -> Tensor:
    """y_t -> y_{t-1}: line 4 of Algorithm 2, with the variance and the clipping that config chooses.

    Without clipping the mean is Equation (11); with it, Equation (4)'s mean at the clipped y_0_hat, which is the same
    expression where nothing is clipped.
    """
    if config.clip:
        y_0_hat = predict_y_0(y_t, gamma, epsilon_hat).clamp(-1, 1)
        mean, _ = q_posterior(y_0_hat, y_t, gamma_previous, gamma)
    else:
        mean = reverse_mean(y_t, gamma_previous, gamma, epsilon_hat)
    return reverse_step(mean, reverse_variance(y_t, gamma_previous, gamma, config.variance), z)


def reverse_variance(y_t: Tensor, gamma_previous: Tensor, gamma: Tensor, mix: float) -> Tensor:
    """sigma_t^2 of Equation (9), (B, 1, 1, 1): 1 - alpha_t for mix 1, Equation (4)'s for 0, geometric between them."""
    previous, now = per_image(gamma_previous, y_t), per_image(gamma, y_t)
    largest = 1 - now / previous
    posterior_share = (1 - previous) / (1 - now)  # the posterior's variance over 1 - alpha_t; 0 at t = 1
    return (largest * posterior_share ** (1 - mix)).to(y_t.dtype)


def ddim_step(
    y_t: Tensor, gamma_previous: Tensor, gamma: Tensor, epsilon_hat: Tensor, z: Tensor, config: SamplerConfig
) -> Tensor:
    """y_t -> y_{t-1}: Equation (12) of Song, Meng and Ermon (2021), eta scaling the noise."""
    previous, now = per_image(gamma_previous, y_t), per_image(gamma, y_t)
    y_0_hat = predict_y_0(y_t, gamma, epsilon_hat)
    if config.clip:
        y_0_hat = y_0_hat.clamp(-1, 1)
        epsilon_hat = predict_epsilon(y_t, gamma, y_0_hat)
    variance = config.eta**2 * (1 - previous) / (1 - now) * (1 - now / previous)
    direction = (1 - previous - variance).clamp(min=0).sqrt()
    return times(previous.sqrt(), y_0_hat) + times(direction, epsilon_hat) + times(variance.sqrt(), z)


def _is_random(config: SamplerConfig) -> bool:
    return config.algorithm == "ancestral" or config.eta > 0


_STEPS = {"ancestral": ancestral_step, "ddim": ddim_step}
