"""Tiny models of each kind, for tests that look at what is computed and not at how well."""

from sr3core.hyperparameters import ModelConfig, ObjectiveConfig, UNetConfig
from sr3core.networks.architectures import unet_tiny

SR3 = ModelConfig(low_size=8, high_size=16, unet=unet_tiny(16, 8))
RESIDUAL = ModelConfig(
    low_size=8,
    high_size=16,
    unet=unet_tiny(16, 8),
    objective=ObjectiveConfig(residual="upsampled", residual_scale=(0.1, 0.1, 0.1), target="v"),
)
REGRESSION = ModelConfig(kind="regression", low_size=8, high_size=16, unet=unet_tiny(16, 8))
BASE = ModelConfig(
    kind="base",
    high_size=8,
    unet=UNetConfig(
        image_size=8,
        base_channels=8,
        channel_multipliers=(1, 2),
        conditional=False,
        num_classes=3,
        learned_variance=True,
    ),
    objective=ObjectiveConfig(gamma_uniform_in="steps", bound_weight=0.001, class_dropout=0.1),
)
