"""A trained network as a denoiser: estimates of epsilon, conditioned on classes and guided if the model allows it."""

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from sr3core.diffusion.equations import Denoiser, epsilon_from_output
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig


def as_denoiser(
    model: ModelConfig,
    network: Callable[..., Tensor],
    classes: Tensor | None = None,
    guidance: float = 0.0,
    input_noise: float | None = None,
) -> Denoiser:
    """Wrap a network trained for any target as the f of Algorithm 2, which estimates epsilon.

    With guidance w the estimate is (1 + w) f(class) - w f(no class) (Ho and Salimans, 2022), computed in one call of
    the network on a doubled batch. A learned variance is passed on unchanged, from f(class): (B, 2 C, H, W) in total.

    Args:
        model: the network's configuration.
        network: the trained network, on the samples' device.
        classes: class of each image, (B,) int64, where num_classes is "no class"; None for a model without classes, or
            for samples without a class.
        guidance: w, at least 0.
        input_noise: standard deviation of the noise in the input, for a network that is told; None for others.

    Raises:
        ConfigError: the model has no classes, or not these, or was not trained on images without a class.
    """
    check_classes(model, None if classes is None else _values_on_host(classes), guidance)
    num_classes = model.unet.num_classes

    def estimate(x_up: Tensor | None, y_t: Tensor, gamma: Tensor, classes: Tensor | None) -> tuple[Tensor, ...]:
        told = () if input_noise is None else (torch.full_like(gamma, input_noise),)
        output = network(x_up, y_t, gamma, classes, *told)
        prediction, *v = torch.split(output, model.unet.image_channels, dim=1)
        # prediction and v: (B, C, H, W) each
        return epsilon_from_output(model.objective.target, prediction, y_t, gamma), *v

    def denoise(x_up: Tensor | None, y_t: Tensor, gamma: Tensor) -> Tensor:
        return torch.cat(estimate(x_up, y_t, gamma, classes), dim=1)

    def guide(x_up: Tensor | None, y_t: Tensor, gamma: Tensor) -> Tensor:
        assert classes is not None
        assert num_classes is not None
        both = torch.cat([classes, torch.full_like(classes, num_classes)])
        x_twice = None if x_up is None else torch.cat([x_up, x_up])
        epsilon_hat, *v = estimate(x_twice, torch.cat([y_t, y_t]), torch.cat([gamma, gamma]), both)
        with_class, without = epsilon_hat.chunk(2)  # (2 B, C, H, W) -> twice (B, C, H, W)
        guided = (1 + guidance) * with_class - guidance * without
        # of v only the half for the class: (2 B, C, H, W) -> (B, C, H, W)
        return torch.cat([guided, *(part.chunk(2)[0] for part in v)], dim=1)

    return guide if guidance else denoise


def _values_on_host(classes: Tensor) -> list[int]:
    return cast("list[int]", classes.tolist()) if classes.device.type == "cpu" else []  # pyright: ignore[reportUnknownMemberType]


def check_classes(model: ModelConfig, classes: Sequence[int] | None, guidance: float) -> None:
    """Check what as_denoiser is asked for.

    Reading values on a GPU would wait for all that it computes: whoever sends classes there checks them before.

    Raises:
        ConfigError: as as_denoiser does.
    """
    num_classes, knows_none = model.unet.num_classes, model.objective.class_dropout > 0
    if num_classes is None:
        if classes is not None or guidance:
            raise ConfigError("classes, guidance: the model was trained without classes")
        return
    if guidance < 0 or (guidance > 0 and classes is None):
        raise ConfigError(f"guidance: {guidance} must be at least 0, and 0 without classes")
    if not knows_none and (classes is None or guidance):
        raise ConfigError(
            "classes, guidance: the model was trained with objective.class_dropout 0, so it has learned nothing about"
            " images without a class; give classes and no guidance, or train with class_dropout 0.1"
        )
    for index in classes or ():
        if not 0 <= index < num_classes + knows_none:
            raise ConfigError(f"classes: {index} is not in 0..{num_classes - 1}, the classes of the model")
