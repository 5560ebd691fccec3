"""Cascades (section 4.3): stages chained, the output of one being the condition of the next; images from noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import lcm

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sr3core.diffusion.equations import Noise
from sr3core.diffusion.guidance import as_denoiser
from sr3core.diffusion.projection import BackProjection
from sr3core.diffusion.sampling import Progress, sample
from sr3core.diffusion.schedules import InferenceSchedule, check_gammas, training_gammas
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig
from sr3core.images.resize import upsample_bicubic
from sr3core.networks.inference import InferenceNetwork
from sr3core.networks.unet import IMAGE_CHANNELS, UNet
from sr3core.randomness import ImageNoise, derive_seed
from sr3core.regression import regress


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a cascade, ready to use: a super-resolution stage, or the base model before the first."""

    name: str
    model: ModelConfig
    network: UNet | InferenceNetwork
    schedule: InferenceSchedule | None
    """None for the regression baseline, which has no chain."""

    def __post_init__(self) -> None:
        if self.schedule is not None:
            check_levels(self.model, self.schedule)

    @property
    def size_multiple(self) -> int:
        """What the sides of x_up are padded to multiples of: whole pixels of x at the network's coarsest level."""
        return lcm(self.network.size_multiple, self.model.magnification)

    @property
    def device(self) -> torch.device:
        """Where the network is, and wants its images."""
        return next(self.network.parameters()).device

    @property
    def num_steps(self) -> int:
        """Steps that an image takes, as progress counts them."""
        return self.schedule.num_steps if self.schedule else 1


def check_levels(model: ModelConfig, schedule: InferenceSchedule) -> None:
    """Refuse a schedule that goes below the noise levels that the model was trained at.

    Raises:
        ConfigError: names both levels.
    """
    check_gammas(np.array(schedule.gammas), float(training_gammas(model.noise_schedule)[-1]))


def check_chain(models: Sequence[tuple[str, ModelConfig]]) -> None:
    """Refuse stages whose sizes do not follow one another; a base model can only be the first.

    Args:
        models: each stage's name and model, in the cascade's order.

    Raises:
        ConfigError: names the two stages.
    """
    for (before, model), (after, next_model) in pairwise(models):
        if next_model.kind == "base":
            raise ConfigError(f"stage {after} is a base model, which takes no image from {before}")
        if model.high_size != next_model.low_size:
            raise ConfigError(
                f"stage {before} ends at {model.high_size} pixels, but {after} starts at {next_model.low_size};"
                " a cascade needs them equal"
            )


def upscale(stage: Stage, low: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Tensor:
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


def refine(stage: Stage, low: Tensor, x_up: Tensor, noise: Noise, progress: Progress | None = None) -> Tensor:
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


def run_cascade(stages: Sequence[Stage], low: Tensor, seeds: Sequence[int], progress: Progress | None = None) -> Tensor:
    """Upscale through all stages: (B, 3, h, w) -> (B, 3, M h, M w), M being the product of the magnifications.

    progress is told of the denoising steps done out of those of all stages together.
    """
    check_chain([(stage.name, stage.model) for stage in stages])
    budgets = [stage.num_steps for stage in stages]
    image = low
    for index, stage in enumerate(stages):
        image = upscale(stage, image, seeds, _part_of(progress, sum(budgets[:index]), sum(budgets)))
    return image


def generate(
    stages: Sequence[Stage],
    seeds: Sequence[int],
    classes: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Draw images from noise: the base model, then every super-resolution stage (section 4.3).

    Args:
        stages: the base model, and the stages that follow it in the order of their sizes; maybe none.
        seeds: one an image, which alone decides its noise in all stages.
        classes: class of each image, for the base model; None for one without classes, or for images of no class.
        progress: told of the denoising steps done out of those of all stages together.

    Returns:
        (B, 3, H, W) in [-1, 1] of the last stage's size, on its device.

    Raises:
        ConfigError: the first stage is no base model, the sizes do not follow one another, or the base model does not
            take these classes.
    """
    check_chain([(stage.name, stage.model) for stage in stages])
    base, *rest = stages
    steps = sum(stage.num_steps for stage in stages)
    image = draw(base, seeds, classes, _part_of(progress, 0, steps))
    if not rest:
        return image
    return run_cascade(rest, image, seeds, _part_of(progress, base.num_steps, steps))


def _part_of(progress: Progress | None, done_before: int, total: int) -> Progress | None:
    """What a stage reports its own steps to, where `progress` counts those of all stages."""
    if progress is None:
        return None

    def report(step: int, _: int) -> None:
        progress(done_before + step, total)

    return report


def draw(
    base: Stage,
    seeds: Sequence[int],
    classes: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Draw a base model's images, (B, 3, H, W) in [-1, 1]; arguments and errors as generate's."""
    size = base.model.high_size
    if base.model.kind != "base" or base.schedule is None:
        raise ConfigError(f"stage {base.name} is no base model: images from noise begin with one")
    labels = None if classes is None else torch.tensor(classes, dtype=torch.int64, device=base.device)
    denoise = as_denoiser(base.model, base.network, labels, base.schedule.sampler.guidance)
    noise = ImageNoise((derive_seed(seed, base.name) for seed in seeds), base.device)
    image = sample(denoise, None, (len(seeds), IMAGE_CHANNELS, size, size), base.schedule, noise, progress)
    return image.clamp(-1, 1)


def pad(image: Tensor, height: int, width: int) -> Tensor:
    """Repeat the last row and column of (B, C, H, W) until it is (B, C, height, width)."""
    return functional.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]), mode="replicate")
