"""Cascades (section 4.3): stages chained, the output of one being the condition of the next."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import lcm

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sr3core.diffusion import Noise
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig
from sr3core.projection import BackProjection
from sr3core.randomness import ImageNoise, derive_seed
from sr3core.regression import regress
from sr3core.resize import upsample_bicubic
from sr3core.sampling import sample
from sr3core.schedules import InferenceSchedule, check_gammas, training_gammas
from sr3core.training import as_denoiser
from sr3core.unet import UNet


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a cascade, ready to use: a super-resolution stage, or the base model before the first."""

    name: str
    model: ModelConfig
    network: UNet
    schedule: InferenceSchedule | None
    """None for the regression baseline, which has no chain."""

    def __post_init__(self) -> None:
        """Refuse a schedule that goes below the noise levels that the model was trained at.

        Raises:
            ConfigError: names both levels.
        """
        if self.schedule is not None:
            check_gammas(np.array(self.schedule.gammas), float(training_gammas(self.model.noise_schedule)[-1]))

    @property
    def size_multiple(self) -> int:
        """What the sides of x_up are padded to multiples of: whole pixels of x at the network's coarsest level."""
        return lcm(self.network.size_multiple, self.model.magnification)

    @property
    def num_steps(self) -> int:
        """Steps that an image takes, as progress counts them."""
        return self.schedule.num_steps if self.schedule else 1


def check_chain(stages: Sequence[Stage]) -> None:
    """Refuse stages whose sizes do not follow one another; a base model can only be the first.

    Raises:
        ConfigError: names the two stages.
    """
    for before, after in pairwise(stages):
        if after.model.kind == "base":
            raise ConfigError(f"stage {after.name} is a base model, which takes no image from {before.name}")
        if before.model.high_size != after.model.low_size:
            raise ConfigError(
                f"stage {before.name} ends at {before.model.high_size} pixels, but {after.name} starts at"
                f" {after.model.low_size}; a cascade needs them equal"
            )


def upscale(
    stage: Stage, low: Tensor, seeds: Sequence[int], progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Upscale by one stage; images of any size, deterministic an image.

    Args:
        stage: the stage.
        low: (B, 3, h, w) in [-1, 1].
        seeds: one an image.
        progress: told of every denoising step.

    Returns:
        (B, 3, m h, m w) in [-1, 1], m being the stage's magnification.
    """
    height, width = (side * stage.model.magnification for side in low.shape[-2:])
    multiple = stage.size_multiple
    x_up = pad(upsample_bicubic(low, (height, width)), height + -height % multiple, width + -width % multiple)
    noise = ImageNoise((derive_seed(seed, stage.name) for seed in seeds), low.device)
    return refine(stage, low, x_up, noise, progress)


def refine(
    stage: Stage, low: Tensor, x_up: Tensor, noise: Noise, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Turn a stage's condition into its output: images, or tiles of one.

    Args:
        stage: the stage.
        low: (B, 3, h, w) in [-1, 1], which x_up shows.
        x_up: low upsampled and padded below and to the right, (B, 3, H, W), sides multiples of stage.size_multiple.
        noise: draws standard normal noise; regression draws none.
        progress: told of every denoising step.

    Returns:
        (B, 3, m h, m w) in [-1, 1], m being the stage's magnification: without the padding.
    """
    height, width = (side * stage.model.magnification for side in low.shape[-2:])
    if stage.schedule is None:
        with torch.inference_mode():
            high = regress(stage.network, x_up)
        if progress:
            progress(1, 1)
    else:
        sampler = stage.schedule.sampler
        denoise = as_denoiser(stage.model, stage.network, guidance=sampler.guidance)
        projection = BackProjection(low, (height, width)) if sampler.project else None
        high = sample(denoise, x_up, x_up.shape, stage.schedule, noise, progress, projection)
    return high[..., :height, :width].clamp(-1, 1)


def run_cascade(
    stages: Sequence[Stage], low: Tensor, seeds: Sequence[int], progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Upscale through all stages: (B, 3, h, w) -> (B, 3, M h, M w), M being the product of the magnifications.

    progress is told of the denoising steps done out of those of all stages together.
    """
    check_chain(stages)
    budgets = [stage.num_steps for stage in stages]
    image = low
    for index, stage in enumerate(stages):
        done = sum(budgets[:index])
        report = (lambda step, _, done=done: progress(done + step, sum(budgets))) if progress else None
        image = upscale(stage, image, seeds, report)
    return image


def pad(image: Tensor, height: int, width: int) -> Tensor:
    """Repeat the last row and column of (B, C, H, W) until it is (B, C, height, width)."""
    return functional.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]), mode="replicate")
