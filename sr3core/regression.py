"""The regression baseline of section 4: the same U-Net, one step, mean squared error."""

from collections.abc import Callable

import torch
from torch import Tensor

from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig


def check_mean(model: ModelConfig, mean: Callable[..., Tensor] | None) -> None:
    """Check that a stage has a regression to start from exactly if its chain draws what one leaves.

    Raises:
        ConfigError: it is missing, or not wanted.
    """
    wanted = model.objective.residual == "regression"
    if wanted != (mean is not None):
        raise ConfigError(
            f"objective.residual: {model.objective.residual!r}, but the stage's regression"
            f" {'is missing' if wanted else 'is not wanted'}"
        )


def condition(model: ModelConfig, x_up: Tensor, mean: Callable[..., Tensor] | None) -> Tensor:
    """What a stage's chain is conditioned on, shaped like x_up: x_up, or what a regression makes of it.

    Deviation: the paper conditions on x_up alone.

    Args:
        model: the stage's model. What the regression makes is clipped to [-1, 1] if its values are bounded.
        x_up: bicubic upsampling of x, (B, 3, H, W); of C channels with K extra ones (B, C + K, H, W).
        mean: the frozen network of a regression baseline; None without one.
    """
    if mean is None:
        return x_up
    channels = model.unet.image_channels
    with torch.no_grad():
        made = regress(mean, x_up, channels).float()
    made = made.clamp(-1, 1) if model.bounded else made
    return torch.cat([made, x_up[:, channels:]], dim=1) if x_up.shape[1] > channels else made


def with_static(x_up: Tensor, static: Tensor | None) -> Tensor:
    """Append static maps, (B, K, H, W), to a condition, (B, C, H, W) -> (B, C + K, H, W); None appends none."""
    return x_up if static is None else torch.cat([x_up, static], dim=1)


def regress(network: Callable[..., Tensor], x_up: Tensor, channels: int) -> Tensor:
    """Estimate y_0 from x in one step: (B, C + K, H, W) -> (B, C, H, W) with C = channels, 3 for images.

    "The same architecture as SR3": y_t is zero and gamma is 1, so the parameters and checkpoints have the same form.
    Deviation: the network predicts the difference from x_up, which the paper does not specify. With zero-initialised
    output weights, training then starts from bicubic upsampling rather than from grey.
    """
    start = x_up[:, :channels]
    return start + network(x_up, torch.zeros_like(start), torch.ones(len(x_up), device=x_up.device))
