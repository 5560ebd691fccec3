"""Residual diffusion: the chain draws what upsampling leaves, y_0 = (HR - x_up) / (2 s).

s is each channel's standard deviation of HR - x_up, so y_0 has a standard deviation of 0.5, about that of images in
[-1, 1], for which noise schedules are made. SRDiff (Li et al., 2021) does so after bicubic upsampling, CorrDiff
(Mardani et al., 2023) after a regression, which leaves less: x_up and s are then those of the regression.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig
from sr3core.transfer import send


class Residual:
    """Converts images to residuals and back, for one batch of conditions.

    Deviation: the paper's y_0 is the image itself.

    Args:
        x_up: the upsampled low-resolution images, by bicubic or by regression, (B, C, H, W) in [-1, 1].
        scale: s, one positive number a channel.
    """

    def __init__(self, x_up: Tensor, scale: Sequence[float]) -> None:
        self._x_up = x_up
        unit = 2 * torch.tensor(scale, dtype=x_up.dtype).view(-1, 1, 1)  # (C,) -> (C, 1, 1)
        self._unit = send(unit, x_up.device)

    def of(self, image: Tensor) -> Tensor:
        """The residual of images: both (B, C, H, W)."""
        return (image - self._x_up) / self._unit

    def image(self, residual: Tensor) -> Tensor:
        """The images with these residuals: both (B, C, H, W)."""
        return self._x_up + self._unit * residual


def residual_of(model: ModelConfig, x_up: Tensor) -> Residual | None:
    """The conversion for a model's chain under these conditions; None if the chain draws images.

    Of a condition with extra channels, the first ones are those of the image.

    Raises:
        ConfigError: the model draws residuals, and their scale has not been measured.
    """
    objective = model.objective
    if objective.residual == "none":
        return None
    channels = model.unet.image_channels
    if len(objective.residual_scale) != channels:
        raise ConfigError(
            f"objective.residual_scale: {len(objective.residual_scale)} numbers for {channels} channels; `sr3"
            " train` measures them"
        )
    return Residual(x_up[:, :channels], objective.residual_scale)
