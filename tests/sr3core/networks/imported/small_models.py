"""The imported networks at a small width, with seeded weights that no layer leaves at zero."""

from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from sr3core.hyperparameters import ModelConfig, NoiseScheduleConfig, ObjectiveConfig, UNetConfig
from sr3core.sizes import sides_of
from tests.sr3core.networks.imported import plain_guided_diffusion, plain_iterative_refinement

ITERATIVE_REFINEMENT = ModelConfig(
    low_size=8,
    high_size=32,
    unet=UNetConfig(
        image_size=32,
        base_channels=16,
        channel_multipliers=(1, 2, 4),
        num_res_blocks=2,
        attention_sizes=(16,),
        dropout=0.2,
        architecture="refinement",
        norm_groups=8,
    ),
    objective=ObjectiveConfig(gamma_uniform_in="sqrt_gamma"),
)
GUIDED_DIFFUSION = ModelConfig(
    low_size=8,
    high_size=32,
    unet=UNetConfig(
        image_size=32,
        base_channels=32,
        channel_multipliers=(1, 1, 2),
        num_res_blocks=2,
        attention_sizes=(16, 8),
        num_heads=4,
        learned_variance=True,
        architecture="guided_diffusion",
        norm_groups=8,
    ),
    noise_schedule=NoiseScheduleConfig(num_steps=1000, beta_first=1e-4, beta_last=2e-2),
    objective=ObjectiveConfig(norm=2, gamma_uniform_in="steps", bound_weight=0.001),
)


def weights_of(model: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    """Random weights by the file's names, without its prefix."""
    unet = model.unet
    plain = plain_guided_diffusion if unet.architecture == "guided_diffusion" else plain_iterative_refinement
    side, _ = sides_of(unet.image_size)
    shapes = plain.shapes_of(
        unet.base_channels, unet.channel_multipliers, unet.num_res_blocks, unet.attention_sizes, side
    )
    generator = torch.Generator().manual_seed(seed)
    return {name: _random(shape, generator) for name, shape in shapes.items()}


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Of a size that keeps the maps' variance near 1, so that no part of the network is lost in rounding."""
    values = torch.randn(shape, generator=generator)
    return 0.5 * values if len(shape) == 1 else values / prod(shape[1:]) ** 0.5


def with_dropout(model: ModelConfig, dropout: float) -> ModelConfig:
    """The model with another rate of dropout."""
    return replace(model, unet=replace(model.unet, dropout=dropout))
