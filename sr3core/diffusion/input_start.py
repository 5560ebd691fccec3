"""Chains that start from the input instead of from noise: "Come-Closer-Diffuse-Faster" of Chung et al. (2022).

The upsampled input has the image's coarse content already, so the steps that would make it can be left out.
"""

from dataclasses import replace

from torch import Tensor

from sr3core.diffusion.equations import q_sample
from sr3core.diffusion.residual import Residual
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.diffusion.solvers import level_of
from sr3core.errors import ConfigError


def noised_input(x_up: Tensor | None, gamma: float, epsilon: Tensor, residual: Residual | None = None) -> Tensor:
    """Where a chain begins that starts from the input, at noise level gamma: Chung et al. (2022), (B, C, H, W).

    Equation (5) from x_up instead of y_0: their difference is left times sqrt(gamma), which the noise must drown. As a
    residual, x_up is 0.

    Args:
        x_up: condition at the output's size, (B, C, H, W) in [-1, 1].
        gamma: gamma_N, in (0, 1).
        epsilon: standard normal noise, like x_up.
        residual: if the chain draws residuals.

    Raises:
        ConfigError: x_up is None.
    """
    if x_up is None:
        raise ConfigError('start: "input" needs a low-resolution image; use "noise" for a base model')
    start = x_up[:, : epsilon.shape[1]]  # without the extra channels of fields
    near = start if residual is None else residual.of(start)
    return q_sample(near, level_of(gamma, epsilon), epsilon)


def started_from_input(schedule: InferenceSchedule, gamma_start: float) -> InferenceSchedule:
    """The part of a schedule below a noise level, for a chain that starts there from the input (Chung et al., 2022).

    Args:
        schedule: levels whose cleaner ones are kept; gamma_start becomes the last.
        gamma_start: in [gamma_N, 1). Fewer steps are left the larger it is.

    Raises:
        ConfigError: gamma_start is not in that range.
    """
    if not schedule.gammas[-1] <= gamma_start < 1:
        raise ConfigError(
            f"schedule: a start from the input at gamma {gamma_start:g} is not in [{schedule.gammas[-1]:.3g}, 1), where"
            f" {schedule.name} has its levels: 0.1 adds much noise, 0.5 little"
        )
    return replace(
        schedule,
        gammas=(*(gamma for gamma in schedule.gammas if gamma > gamma_start), gamma_start),
        sampler=replace(schedule.sampler, start="input"),
        name=f"{schedule.name}@{gamma_start:g}",
    )
