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


def condition(x_up: Tensor, mean: Callable[..., Tensor] | None) -> Tensor:
    """What a stage's chain is conditioned on, (B, 3, H, W) in [-1, 1]: x_up, or what a regression makes of it.

    Deviation: the paper conditions on x_up alone.

    Args:
        x_up: bicubic upsampling of x, (B, 3, H, W).
        mean: the frozen network of a regression baseline; None without one.
    """
    if mean is None:
        return x_up
    with torch.no_grad():
        return regress(mean, x_up).float().clamp(-1, 1)


def regress(network: Callable[..., Tensor], x_up: Tensor) -> Tensor:
    """Estimate y_0 from x in one step: (B, 3, H, W) -> (B, 3, H, W).

    "The same architecture as SR3": y_t is zero and gamma is 1, so the parameters and checkpoints have the same form.
    Deviation: the network predicts the difference from x_up, which the paper does not specify. With zero-initialised
    output weights, training then starts from bicubic upsampling rather than from grey.
    """
    return x_up + network(x_up, torch.zeros_like(x_up), torch.ones(len(x_up), device=x_up.device))
