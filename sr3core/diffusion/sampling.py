"""Sampling: the reverse chain of Equation (7) on any inference schedule, with any of the solvers (solvers.py)."""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sr3core.diffusion.equations import Denoiser, Noise, predict_epsilon, predict_y_0
from sr3core.diffusion.input_start import noised_input
from sr3core.diffusion.learned_variance import split_variance
from sr3core.diffusion.residual import Residual
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.diffusion.solvers import SOLVERS, Estimate, Step, level_of
from sr3core.errors import ConfigError
from sr3core.hyperparameters import SamplerConfig

Progress = Callable[[int, int], None]
"""Called with (steps done, total number of steps)."""

Projection = Callable[[Tensor], Tensor]
"""Moves y_0_hat, (B, C, H, W), towards the images that are consistent with the low-resolution image: projection.py."""


LevelEstimator = Callable[[Tensor, float | Tensor], Estimate]
"""An Estimator that takes a level also as a tensor (), whose gradient it keeps."""


@torch.inference_mode()
def sample(
    denoise: Denoiser,
    x_up: Tensor | None,
    shape: Sequence[int],
    schedule: InferenceSchedule,
    noise: Noise,
    progress: Progress | None = None,
    projection: Projection | None = None,
    residual: Residual | None = None,
) -> Tensor:
    """Draw y_T from N(0, I), Equation (8), or near the input, then y_0 given x with the reverse chain, Equation (7).

    With SamplerConfig(clip="none") this is Algorithm 2.

    Args:
        denoise: estimates epsilon from (x_up, y_t, gamma), with guidance if the sampler uses it. With a learned
            variance, C more channels with the values v follow.
        x_up: condition at the output's size, (B, C, H, W) in [-1, 1]; None for a base model.
        shape: (B, C, H, W) of the output.
        schedule: noise levels and sampler; it requires num_evaluations calls of denoise.
        noise: draws standard normal noise; randomness.ImageNoise makes images independent of their batch. It is
            called for y_T and, if the sampler is stochastic, once in every step but the last.
        progress: called after every step.
        projection: one iteration of the consistency projection; required if the sampler projects.
        residual: if the network was trained for residuals: the chain draws one, and its image is returned.

    Returns:
        y_0, (B, C, H, W), in about [-1, 1], and within it if the sampler clips.

    Raises:
        ConfigError: the sampler projects, but projection is None; or it starts from the input, but x_up is None.
    """
    config = schedule.sampler
    if config.project and projection is None:
        raise ConfigError(f"project: {config.project} iterations need a low-resolution image; use 0 for a base model")
    estimate = estimator(denoise, x_up, config, projection, residual)
    y_t = noise(shape)  # y_T
    if config.start == "input":
        y_t = noised_input(x_up, schedule.gammas[-1], y_t, residual)
    chain = SOLVERS[config.algorithm](y_t, _steps(schedule, y_t, noise), estimate, config)
    y_0 = y_t
    for done, y_t in enumerate(chain, start=1):
        y_0 = y_t
        if progress:
            progress(done, schedule.num_steps)
    return y_0 if residual is None else residual.image(y_0)


def _steps(schedule: InferenceSchedule, y_t: Tensor, noise: Noise) -> Iterator[Step]:
    """The steps from t = N to 1 with their noise, drawn as each step is taken, hence in one order for all solvers."""
    for t in range(schedule.num_steps, 0, -1):
        z = noise(y_t.shape) if t > 1 and schedule.sampler.is_random else torch.zeros_like(y_t)
        yield Step(schedule.gammas[t], schedule.gammas[t - 1], z)


def estimator(
    denoise: Denoiser,
    x_up: Tensor | None,
    config: SamplerConfig,
    projection: Projection | None = None,
    residual: Residual | None = None,
) -> LevelEstimator:
    """Wrap a denoiser as an Estimator for solvers: clip and project y_0_hat, and recompute epsilon_hat from it.

    Residuals are unbounded and have no downsampled version: their image is clipped and projected.
    """

    def estimate(y_t: Tensor, gamma: float | Tensor) -> Estimate:
        level = level_of(gamma, y_t)
        epsilon_hat, fraction = split_variance(denoise(x_up, y_t, level), y_t.shape[1])
        y_0_hat = predict_y_0(y_t, level, epsilon_hat)
        if config.clip == "none" and not config.project:
            return Estimate(y_0_hat, epsilon_hat, fraction)
        image = clip(y_0_hat if residual is None else residual.image(y_0_hat), config)
        for _ in range(config.project if projection else 0):
            image = projection(image)  # type: ignore[misc]
            image = image if config.clip == "none" else image.clamp(-1, 1)
        y_0_hat = image if residual is None else residual.of(image)
        return Estimate(y_0_hat, predict_epsilon(y_t, level, y_0_hat), fraction)

    return estimate


def clip(y_0_hat: Tensor, config: SamplerConfig) -> Tensor:
    """Clip y_0_hat to [-1, 1] by the method of config.clip; "none" leaves it unchanged."""
    if config.clip == "none":
        return y_0_hat
    return y_0_hat.clamp(-1, 1) if config.clip == "static" else threshold_dynamically(y_0_hat, config.clip_quantile)


def threshold_dynamically(y_0_hat: Tensor, quantile: float) -> Tensor:
    """Imagen's dynamic thresholding (Saharia et al., 2022, section 2.3), for each image separately.

    Let s be the quantile of an image's absolute values, but at least 1. Clip to [-s, s] and divide by s.

    Args:
        y_0_hat: images, (B, C, H, W).
        quantile: in (0, 1]; between two values, s is the larger one.
    """
    values = y_0_hat.abs().flatten(1)  # (B, C, H, W) -> (B, C H W)
    rank = math.ceil(quantile * (values.shape[1] - 1)) + 1
    # (B,) -> (B, 1, 1, 1)
    s = values.kthvalue(rank, dim=1).values.clamp(min=1).view(-1, *[1] * (y_0_hat.ndim - 1))
    return (y_0_hat / s).clamp(-1, 1)
