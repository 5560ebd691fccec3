"""Around an optimiser's update: the learning rate, which gradients are spikes, the average of the weights."""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sr3core.hyperparameters import OptimizerConfig

_NORM_MEMORY = 0.98
"""Decay per step of the average of gradient norms, which thus covers about 50 steps."""


def average_decay(decay: float, step: int) -> float:
    """The average's decay at the update after `step` finished steps: min(decay, (1 + n) / (10 + n)) for n = step.

    Without such a warm-up the first weights would keep 0.9999^5000 = 61% of the average's weight after 5,000 steps. The
    initial weights carry no information and leave no trace: the average starts from the weights after the first step.
    """
    return min(decay, (1 + step) / (10 + step)) if step else 0.0


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """average <- decay average + (1 - decay) weights, for all weights at once; decay 0 copies them."""
    update_all = cast("Callable[..., None]", get_ema_multi_avg_fn(decay))  # lerp_, in one kernel for all tensors
    update_all(list(average.parameters()), list(network.parameters()), 0)


def is_spike(norm: Tensor, typical: Tensor, factor: float | None) -> Tensor:
    """Whether a gradient norm exceeds `factor` times the typical one, () bool. Without a factor nothing is a spike.

    While the typical norm is still NaN the answer is False, because every comparison with NaN is false.
    """
    return norm > typical * (math.inf if factor is None else factor)


def next_typical_norm(typical: Tensor, norm: Tensor, factor: float | None) -> Tensor:
    """Update the geometric average of recent gradient norms with one more; NaN means that there are none yet.

    A spike counts as the largest norm that is none, so that one spike changes little, and norms that have risen for
    good are typical after a while. A norm that is not finite does not count.
    """
    counted = norm.clamp(min=1e-30)
    counted = torch.where(is_spike(norm, typical, factor), typical * (1.0 if factor is None else factor), counted)
    blended = torch.where(typical.isnan(), norm, typical**_NORM_MEMORY * counted ** (1 - _NORM_MEMORY))
    return torch.where(torch.isfinite(norm), blended, typical)


def learning_rate_at(config: OptimizerConfig, step: int) -> float:
    """Learning rate of the next step after `step` finished steps: linear warm-up, then fixed (section 4)."""
    return config.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1))
