"""The learned variance of Improved DDPM (Nichol and Dhariwal, 2021), for section 4.3's class-conditional base model.

The network has twice the output channels. For every value, the second half gives the position of the reverse step's
variance between Equation (4)'s and 1 - alpha_t. It is trained with the variational bound, one term per step, in bits
per value.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from sr3core.diffusion.equations import per_image, q_posterior, reverse_mean

# The normal distribution function and its logarithm, which torch does not type.
ndtr = cast("Callable[[Tensor], Tensor]", torch.special.ndtr)  # pyright: ignore[reportUnknownMemberType]
log_ndtr = cast("Callable[[Tensor], Tensor]", torch.special.log_ndtr)  # pyright: ignore[reportUnknownMemberType]

HALF_BIN = 1 / 255
"""Half the distance between neighbouring grey levels, for images in [-1, 1]."""


def split_variance(output: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
    """Split a network's output into its prediction and the fraction for learned_reverse_variance.

    Args:
        output: (B, C, H, W), or (B, 2 C, H, W) with a learned variance: the prediction, then values v in about [-1, 1].
        channels: C.

    Returns:
        The prediction, (B, C, H, W), and the fraction (v + 1) / 2 of the same shape, None without a learned variance.

    Raises:
        ValueError: output has neither C nor 2 C channels.
    """
    if output.shape[1] == channels:
        return output, None
    if output.shape[1] != 2 * channels:
        raise ValueError(f"expected {channels} or {2 * channels} channels, got {output.shape[1]}")
    prediction, v = output.chunk(2, dim=1)  # (B, 2 C, H, W) -> twice (B, C, H, W)
    return prediction, (v + 1) / 2


def learned_reverse_variance(y_t: Tensor, gamma_previous: Tensor, gamma: Tensor, fraction: Tensor) -> Tensor:
    """sigma_t^2 of every value: Nichol and Dhariwal's Equation (15), between the posterior's variance and 1 - alpha_t.

    Deviation: at t = 1 the posterior's variance is 0, and they replace it with that of t = 2. Here it is what t = 2
    would have if its alpha were that of t = 1, because a step of an inference schedule does not know its neighbour.

    Args:
        y_t: noisy images, (B, C, H, W); only its shape and type matter.
        gamma_previous: gamma_{t-1}, (B,) in (0, 1].
        gamma: gamma_t, (B,) in (0, gamma_previous).
        fraction: 0 gives the posterior's variance, 1 gives 1 - alpha_t; shaped like y_t. The network may exceed [0, 1]
            slightly.

    Returns:
        (B, C, H, W).
    """
    previous, now = per_image(gamma_previous, y_t), per_image(gamma, y_t)
    largest = 1 - now / previous
    share = torch.where(previous < 1, (1 - previous) / (1 - now), 1 / (1 + now))
    log_largest, log_share = largest.log().to(y_t.dtype), share.log().to(y_t.dtype)
    return torch.exp(log_largest + (1 - fraction) * log_share)


def gaussian_divergence(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(other_mean, other_variance)) of every value, in nats."""
    ratio = variance / other_variance
    return 0.5 * (ratio - 1 - ratio.log() + (mean - other_mean).square() / other_variance)


def decoder_log_likelihood(y_0: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log p(y_0 | y_1) of every value: the Gaussian's mass on its grey level (Ho et al., 2020, Equation (13)), in nats.

    The outermost grey levels extend to infinity, so that the 256 masses sum to 1. Deviation: this uses the exact normal
    distribution function, which their code approximates.

    Args:
        y_0: images of 256 grey levels, (B, C, H, W) in [-1, 1].
        mean, variance: mean and variance of the reverse step at t = 1, shaped like y_0 or broadcast to it.
    """
    deviation = variance.sqrt()
    above = log_ndtr((y_0 + HALF_BIN - mean) / deviation)
    below = log_ndtr((mean - y_0 + HALF_BIN) / deviation)
    # The density is symmetric; left of the mean, the difference of two small numbers stays accurate.
    distance = -(y_0 - mean).abs()
    upper, lower = (ndtr((distance + side) / deviation) for side in (HALF_BIN, -HALF_BIN))
    inside = (upper - lower).clamp(min=1e-12).log()
    return torch.where(y_0 < -0.999, above, torch.where(y_0 > 0.999, below, inside))


def bound_term(
    y_0: Tensor, y_t: Tensor, gamma_previous: Tensor, gamma: Tensor, epsilon_hat: Tensor, fraction: Tensor
) -> Tensor:
    """One of the T terms of L_vlb that depend on the network: Nichol and Dhariwal's Equations (5) and (6).

    For t > 1 it is the KL divergence of Equation (4)'s posterior from the reverse step; at t = 1 it is the negative
    log-likelihood of the grey levels. T times its mean over t is the bound without L_T, which does not depend on the
    network.

    Args:
        y_0: target images, (B, C, H, W) of 256 grey levels in [-1, 1].
        y_t: y_0 at noise level gamma, shaped like y_0.
        gamma_previous: gamma_{t-1}, (B,) in (0, 1]; 1 only at t = 1.
        gamma: gamma_t, (B,), a level of the training schedule.
        epsilon_hat: the noise estimate, like y_0.
        fraction: fraction of the learned variance, shaped like y_0.

    Returns:
        (B,), in bits per value.
    """
    mean = reverse_mean(y_t, gamma_previous, gamma, epsilon_hat)
    variance = learned_reverse_variance(y_t, gamma_previous, gamma, fraction)
    true_mean, true_variance = q_posterior(y_0, y_t, gamma_previous, gamma)
    is_first = per_image(gamma_previous, y_0) == 1
    # At t = 1 the posterior's variance is 0; replacing it with 1 keeps the unused branch finite.
    divergence = gaussian_divergence(true_mean, torch.where(is_first, 1.0, true_variance), mean, variance)
    terms = torch.where(is_first, -decoder_log_likelihood(y_0, mean, variance), divergence)
    return terms.flatten(1).mean(1) / math.log(2)  # (B, C, H, W) -> (B, C H W) -> (B,)
