"""Solvers of the reverse chain on a schedule's noise levels: Algorithm 2, DDIM, DPM-Solver++ and EDM's sampler.

A solver is a generator that turns y_T into y_{T-1}, .., y_0, one per step. It calls the network only through an
Estimator, so that thresholding and projection of y_0_hat are the same for all solvers (sampling.py). Noise levels are
floats on the host, so no step waits for the device.
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
"""Karras et al. (2022), Algorithm 2: largest relative increase of sigma in a step."""


@dataclass(frozen=True, eq=False, slots=True)
class Estimate:
    """The network's estimates for y_t at a noise level."""

    y_0_hat: Tensor
    """The estimate of y_0, (B, C, H, W): Equation (10), then clipped and projected as the sampler is configured."""
    epsilon_hat: Tensor
    """The noise that turns y_0_hat into y_t, (B, C, H, W)."""
    fraction: Tensor | None = None
    """Fraction of a learned variance, shaped like y_0_hat (learned_variance.py); None if the variance is fixed."""


@dataclass(frozen=True, eq=False, slots=True)
class Step:
    """One step of a chain, from gamma_t to gamma_{t-1}."""

    gamma: float
    """gamma_t, in (0, 1)."""
    gamma_previous: float
    """gamma_{t-1}, in (gamma_t, 1]; 1 only in the last step."""
    z: Tensor
    """Standard normal noise, (B, C, H, W); 0 in the last step and if the sampler is deterministic."""


Estimator = Callable[[Tensor, float], Estimate]
"""(y_t, gamma_t) -> Estimate: one evaluation of the network."""

Solver = Callable[[Tensor, Iterable[Step], Estimator, SamplerConfig], Iterator[Tensor]]
"""(y_T, steps, estimate, config) -> y_{T-1}, .., y_0."""


def level_of(gamma: float | Tensor, image: Tensor) -> Tensor:
    """The noise level of each image of a batch, (B,) float64, created on the device; a tensor () keeps its gradient."""
    if isinstance(gamma, Tensor):
        return gamma.double().expand(len(image))
    return torch.full((len(image),), gamma, dtype=torch.float64, device=image.device)


def ancestral(y_t: Tensor, steps: Iterable[Step], estimate: Estimator, config: SamplerConfig) -> Iterator[Tensor]:
    """Algorithm 2. Line 4 uses the learned variance if there is one, else the variance that config selects.

    The mean is Equation (4)'s at y_0_hat. It equals Equation (11) if y_0_hat is neither clipped nor projected.
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
    """sigma_t^2 of Equation (9), (B, 1, 1, 1): 1 - alpha_t for mix 1, Equation (4)'s for 0, geometric in between."""
    previous, now = per_image(gamma_previous, y_t), per_image(gamma, y_t)
    largest = 1 - now / previous
    posterior_share = (1 - previous) / (1 - now)  # posterior's variance divided by 1 - alpha_t; 0 at t = 1
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

    y_0_hat is extrapolated to the middle of the step from the estimates of this step and the one before. The first step
    has no step before it and uses its own y_0_hat. The last step goes to gamma_0 = 1, where lambda is infinite and the
    formula's limit is y_0_hat itself.
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
    """Karras et al. (2022), Algorithm 2: second order; two evaluations per step, one in the last.

    The solver integrates y_t / sqrt(gamma) over sigma = sqrt((1 - gamma) / gamma); the slope is epsilon_hat. Before a
    step, churn adds fresh noise that raises sigma by the factor 1 + churn MOST_CHURN, but never above sigma_N, the
    highest level that was trained; so the first step gets none. The last step gets none either, as no later step would
    remove it. S_noise is 1; S_tmin and S_tmax include all other steps.
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
            y_t = here.y_0_hat  # the Euler step to sigma = 0, without its rounding
        else:
            scale = math.sqrt(step.gamma_previous)
            fall = _sigma(step.gamma_previous) - _sigma(gamma)
            there = estimate(scale * (image + fall * here.epsilon_hat), step.gamma_previous)
            y_t = scale * (image + fall / 2 * (here.epsilon_hat + there.epsilon_hat))
        yield y_t


def _sigma(gamma: float) -> float:
    return math.sqrt((1 - gamma) / gamma)


SOLVERS: dict[SamplerAlgorithm, Solver] = {"ancestral": ancestral, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "heun": heun}
