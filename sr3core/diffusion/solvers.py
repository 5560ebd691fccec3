"""Walks of the reverse chain down the noise levels of a schedule: Algorithm 2, DDIM, DPM-Solver++ and EDM's sampler.

A solver is a generator that turns y_T into y_{T-1}, .., y_0, one a step. What it knows of the network is an Estimator,
so that thresholds and projections of y_0_hat are the same for all (sampling.py). Noise levels are floats on the host:
no step waits for the device.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sr3core.diffusion.equations import per_image, q_posterior, reverse_step
from sr3core.diffusion.learned_variance import learned_reverse_variance
from sr3core.hyperparameters import SamplerAlgorithm, SamplerConfig

MOST_CHURN = math.sqrt(2) - 1
"""Karras et al. (2022), Algorithm 2: no step raises sigma by a larger share."""


@dataclass(frozen=True, eq=False, slots=True)
class Estimate:
    """What the network says of y_t at a noise level."""

    y_0_hat: Tensor
    """The image, (B, C, H, W): Equation (10), then clipped and projected as the sampler is set."""
    epsilon_hat: Tensor
    """The noise that makes y_t from y_0_hat, (B, C, H, W)."""
    fraction: Tensor | None = None
    """Where the reverse step's variance lies, like y_0_hat, if the network has learned that: learned_variance.py."""


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """One step of a chain, from gamma_t to gamma_{t-1}."""

    gamma: float
    """gamma_t, in (0, 1)."""
    gamma_previous: float
    """gamma_{t-1}, in (gamma_t, 1]; 1 in the last step alone."""
    z: Tensor
    """Standard normal noise, (B, C, H, W); 0 in the last step and where the sampler adds none."""


Estimator = Callable[[Tensor, float], Estimate]
"""(y_t, gamma_t) -> Estimate: one evaluation of the network."""

Solver = Callable[[Tensor, Iterable[Step], Estimator, SamplerConfig], Iterator[Tensor]]
"""(y_T, steps, estimate, config) -> y_{T-1}, .., y_0."""


def level_of(gamma: float, image: Tensor) -> Tensor:
    """A noise level for each image of a batch, (B,) float64, filled on the device."""
    return torch.full((len(image),), gamma, dtype=torch.float64, device=image.device)


def ancestral(y_t: Tensor, steps: Iterable[Step], estimate: Estimator, config: SamplerConfig) -> Iterator[Tensor]:
    """Algorithm 2: line 4 with the variance that the network has learned, or else that config chooses.

    The mean is Equation (4)'s at y_0_hat, which is Equation (11) where y_0_hat is the network's own.
    """
    for step in steps:
        now = estimate(y_t, step.gamma)
        before, level = level_of(step.gamma_previous, y_t), level_of(step.gamma, y_t)
        mean, _ = q_posterior(now.y_0_hat, y_t, before, level)
        if now.fraction is None:
            variance = reverse_variance(y_t, before, level, config.variance)
        else:
            variance = learned_reverse_variance(y_t, before, level, now.fraction)
        y_t = reverse_step(mean, variance, step.z)
        yield y_t


def reverse_variance(y_t: Tensor, gamma_previous: Tensor, gamma: Tensor, mix: float) -> Tensor:
    """sigma_t^2 of Equation (9), (B, 1, 1, 1): 1 - alpha_t for mix 1, Equation (4)'s for 0, geometric between them."""
    previous, now = per_image(gamma_previous, y_t), per_image(gamma, y_t)
    largest = 1 - now / previous
    posterior_share = (1 - previous) / (1 - now)  # the posterior's variance over 1 - alpha_t; 0 at t = 1
    return (largest * posterior_share ** (1 - mix)).to(y_t.dtype)


def ddim(y_t: Tensor, steps: Iterable[Step], estimate: Estimator, config: SamplerConfig) -> Iterator[Tensor]:
    """Song, Meng and Ermon (2021): first order; eta scales the noise."""
    for step in steps:
        y_t = ddim_step(step, estimate(y_t, step.gamma), config.eta)
        yield y_t


def ddim_step(step: Step, now: Estimate, eta: float = 0.0) -> Tensor:
    """y_t -> y_{t-1}: Equation (12) of Song, Meng and Ermon (2021)."""
    previous, gamma = step.gamma_previous, step.gamma
    variance = eta**2 * (1 - previous) / (1 - gamma) * (1 - gamma / previous)
    direction = math.sqrt(max(1 - previous - variance, 0.0))
    return math.sqrt(previous) * now.y_0_hat + direction * now.epsilon_hat + math.sqrt(variance) * step.z


def dpmpp_2m(y_t: Tensor, steps: Iterable[Step], estimate: Estimator, config: SamplerConfig) -> Iterator[Tensor]:
    """DPM-Solver++(2M) of Lu et al. (2022), Algorithm 2: second order in lambda = log sqrt(gamma / (1 - gamma)).

    y_0_hat is extrapolated from this step's and the step's before, to the middle of the step. The first step has none
    before it. The last goes to gamma_0 = 1, where lambda is infinite and the formula's limit is y_0_hat itself.
    """
    older, older_width = None, 0.0
    for step in steps:
        y_0_hat = estimate(y_t, step.gamma).y_0_hat
        if step.gamma_previous == 1:
            y_t = y_0_hat
        else:
            width = _log_snr(step.gamma_previous) / 2 - _log_snr(step.gamma) / 2
            share = width / (2 * older_width) if older is not None else 0.0
            target = y_0_hat if older is None else (1 + share) * y_0_hat - share * older
            keep = math.sqrt((1 - step.gamma_previous) / (1 - step.gamma))
            y_t = keep * y_t - math.sqrt(step.gamma_previous) * math.expm1(-width) * target
            older, older_width = y_0_hat, width
        yield y_t


def _log_snr(gamma: float) -> float:
    return math.log(gamma) - math.log1p(-gamma)


def heun(y_t: Tensor, steps: Iterable[Step], estimate: Estimator, config: SamplerConfig) -> Iterator[Tensor]:
    """Karras et al. (2022), Algorithm 2: second order; two evaluations a step, one in the last.

    It walks y_t / sqrt(gamma) along sigma = sqrt((1 - gamma) / gamma), where the slope is epsilon_hat. Before a step,
    churn raises sigma by its share of MOST_CHURN with fresh noise, though never above sigma_N, beyond which nothing
    was trained: so the first step has none. Nor has the last, whose noise nothing would remove. S_noise is 1; S_tmin
    and S_tmax leave all other steps in.
    """
    gamma_last = None
    for step in steps:
        gamma_last = gamma_last or step.gamma
        stretch = (1 + config.churn * MOST_CHURN) ** 2 if step.gamma_previous < 1 else 1.0
        gamma = max(step.gamma / (step.gamma + stretch * (1 - step.gamma)), gamma_last) if stretch > 1 else step.gamma
        added = math.sqrt(max(1 / gamma - 1 / step.gamma, 0.0))  # sigma^2 = 1 / gamma - 1
        image = y_t / math.sqrt(step.gamma) + added * step.z
        here = estimate(math.sqrt(gamma) * image, gamma)
        if step.gamma_previous == 1:
            y_t = here.y_0_hat  # what the slope leads to at sigma = 0, without its rounding
        else:
            scale = math.sqrt(step.gamma_previous)
            fall = _sigma(step.gamma_previous) - _sigma(gamma)
            there = estimate(scale * (image + fall * here.epsilon_hat), step.gamma_previous)
            y_t = scale * (image + fall / 2 * (here.epsilon_hat + there.epsilon_hat))
        yield y_t


def _sigma(gamma: float) -> float:
    return math.sqrt((1 - gamma) / gamma)


SOLVERS: dict[SamplerAlgorithm, Solver] = {"ancestral": ancestral, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "heun": heun}
