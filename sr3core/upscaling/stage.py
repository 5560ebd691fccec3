"""A loaded stage, and one pass of it: what whole images, tiles and cascades have in common."""

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
from sr3core.diffusion.noise import add_input_noise
from sr3core.diffusion.projection import BackProjection
from sr3core.diffusion.residual import residual_of
from sr3core.diffusion.sampling import Progress, sample
from sr3core.diffusion.schedules import InferenceSchedule, check_gammas, training_gammas
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig
from sr3core.networks.inference import InferenceNetwork
from sr3core.networks.network import Network
from sr3core.randomness import derive_seed
from sr3core.regression import check_mean, condition, regress
from sr3core.sizes import describe


@dataclass(frozen=True, slots=True)
class Stage:
    """A loaded stage of a cascade: a super-resolution stage, or the base model that the cascade starts from."""

    name: str
    model: ModelConfig
    network: Network | InferenceNetwork
    schedule: InferenceSchedule | None
    """None for the regression baseline, which has no reverse chain."""
    mean: Network | InferenceNetwork | None = None
    """The regression that the chain starts from, if objective.residual is regression."""
    input_noise: float = 0.0
    """Standard deviation of the noise that is added to the input, and told to the network."""

    def __post_init__(self) -> None:
        check_mean(self.model, self.mean)
        if not 0 <= self.input_noise <= self.model.unet.input_noise:
            raise ConfigError(
                f"input_noise: {self.input_noise} is not in [0, {self.model.unet.input_noise}], what stage {self.name}"
                " was trained with"
            )
        if self.schedule is not None:
            check_levels(self.model, self.schedule)
            check_bounds(self.model, self.schedule)

    @property
    def size_multiple(self) -> int:
        """The sides of x_up are padded to multiples of this: whole pixels of x at the network's coarsest level."""
        return lcm(self.network.size_multiple, self.model.scale.numerator)

    @property
    def device(self) -> torch.device:
        """The device that the network is on; its inputs must be there too."""
        return next(self.network.parameters()).device

    @property
    def num_steps(self) -> int:
        """Denoising steps per image, as reported to progress; 1 for regression."""
        return self.schedule.num_steps if self.schedule else 1


def check_levels(model: ModelConfig, schedule: InferenceSchedule) -> None:
    """Check that a schedule does not go below the lowest gamma that the model was trained at.

    Raises:
        ConfigError: it does; the message names both levels.
    """
    check_gammas(np.array(schedule.gammas), float(training_gammas(model.noise_schedule)[-1]))


def check_bounds(model: ModelConfig, schedule: InferenceSchedule) -> None:
    """Check that a schedule does not clip fields, whose extremes are what they are wanted for, nor projects them.

    Raises:
        ConfigError: it does; the message says what to change.
    """
    sampler = schedule.sampler
    if model.bounded:
        return
    if sampler.clip != "none":
        raise ConfigError(f'schedule {schedule.name}: clip {sampler.clip!r} is for images; fields need "none"')
    if sampler.project:
        raise ConfigError(f"schedule {schedule.name}: project {sampler.project} is for images; fields need 0")


def check_chain(models: Sequence[tuple[str, ModelConfig]]) -> None:
    """Check that each stage starts at the size at which the one before ends, and that only the first is a base model.

    Args:
        models: (name, model) of each stage, in order.

    Raises:
        ConfigError: two stages do not fit together; the message names both.
    """
    for (before, model), (after, next_model) in pairwise(models):
        if next_model.kind == "base":
            raise ConfigError(f"stage {after} is a base model, which takes no image from {before}")
        if model.high_size != next_model.low_size:
            raise ConfigError(
                f"stage {before} ends at {describe(model.high_size)} pixels, but {after} starts at"
                f" {describe(next_model.low_size)};"
                " a cascade needs them equal"
            )
        if not (model.bounded and next_model.bounded):
            raise ConfigError(f"stages {before} and {after} make fields, of which there are no cascades; take one")


def refine(stage: Stage, low: Tensor, x_up: Tensor, noise: Noise, progress: Progress | None = None) -> Tensor:
    """Compute a stage's output from its condition, for whole images or for tiles of one image.

    Args:
        stage: the stage.
        low: the low-resolution images (or tiles) x, (B, 3, h, w) in [-1, 1], whose sides are multiples of the scale's
            denominator.
        x_up: low, upsampled and padded at the bottom and right to multiples of stage.size_multiple, (B, 3, H, W); for
            a model of fields followed by its static maps.
        noise: draws standard normal noise; not used by regression.
        progress: called after every denoising step.

    Returns:
        (B, 3, s h, s w) in [-1, 1] without the padding, where s is the stage's scale; fields are not clipped.
    """
    height, width = stage.model.enlarged(*low.shape[-2:])
    channels = stage.model.unet.image_channels
    if stage.schedule is None:
        with torch.inference_mode():
            high = regress(stage.network, x_up, channels)
        if progress:
            progress(1, 1)
    else:
        sampler = stage.schedule.sampler
        told = stage.input_noise if stage.model.unet.input_noise else None
        denoise = as_denoiser(stage.model, stage.network, guidance=sampler.guidance, input_noise=told)
        projection = BackProjection(low, (height, width)) if sampler.project else None
        x_up = condition(stage.model, x_up, stage.mean)
        residual, shape = residual_of(stage.model, x_up), (len(x_up), channels, *x_up.shape[-2:])
        high = sample(denoise, x_up, shape, stage.schedule, noise, progress, projection, residual)
    high = high[..., :height, :width]
    return high.clamp(-1, 1) if stage.model.bounded else high


def with_noise(stage: Stage, low: Tensor, seeds: Sequence[int]) -> Tensor:
    """A stage's inputs with the noise that it adds to them, as in training; (B, 3, h, w) -> the same shape."""
    if not stage.input_noise:
        return low
    keys = [derive_seed(seed, "input-noise", stage.name) for seed in seeds]
    levels = torch.full((len(keys),), stage.input_noise, device=low.device)
    return add_input_noise(low, levels, keys)


def fill(model: ModelConfig, low: Tensor) -> Tensor:
    """Pad low-resolution images to sides whose enlargement has whole pixels; of a whole scale, all have."""
    return pad(low, *model.filled(*low.shape[-2:]))


def output_size(models: Sequence[ModelConfig], height: int, width: int) -> tuple[int, int]:
    """(height, width) of what a cascade makes of an image."""
    for model in models:
        height, width = model.enlarged(height, width)
    return height, width


def pad(image: Tensor, height: int, width: int) -> Tensor:
    """Pad (B, C, H, W) to (B, C, height, width) by repeating the last row and column."""
    return functional.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]), mode="replicate")
