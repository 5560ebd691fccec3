"""The random chain that makes low-resolution images of targets: every draw is a function of the image's seed alone.

Images of a batch differ in all that they draw. Only the sizes in between are few, so that images of one size go through
each operation together; which images are together changes no result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from sr3core.degradations.blurring import convolve, gaussian_kernels
from sr3core.degradations.jpeg import compress
from sr3core.degradations.noise import add_noise
from sr3core.degradations.resizing import METHODS, Method, resize
from sr3core.degradations.settings import KERNEL_RADIUS, DegradationConfig
from sr3core.randomness import derive_seed
from sr3core.sizes import Size, sides_of, size_of
from sr3core.transfer import send

NUM_SIZES = 8
"""Sizes in between that an image may have, evenly spaced by their logarithms."""
_SECOND = 0.5
"""Strength of the second round's blur in terms of the first's."""
_GENERALISED = (0.5, 4.0)
"""Range of beta of the generalised Gaussians, as in Real-ESRGAN."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one image draws for one round."""

    sigmas: tuple[float, float]
    """Standard deviations of the blur; (0, 0) for none."""
    angle: float
    """Of the kernel's first axis, radians."""
    shape: float
    """beta of the generalised Gaussian."""
    size: tuple[int, int]
    """(height, width) that it is resized to, pixels."""
    method: Method
    """How it is resized."""
    gaussian: float
    """Standard deviation of Gaussian noise; 0 for none."""
    poisson: float
    """Standard deviation of Poisson noise in white; 0 for none."""
    grey: bool
    """Whether the noise is grey."""
    quality: int
    """Of JPEG; 0 for no compression."""


def draw_rounds(config: DegradationConfig, low_size: Size, high_size: Size, seed: int) -> tuple[Round, ...]:
    """What an image draws: a function of its seed. The last round ends at low_size."""
    return tuple(
        _draw(config, sides_of(low_size) if number == config.order - 1 else None, sides_of(high_size), number, seed)
        for number in range(config.order)
    )


def _draw(
    config: DegradationConfig, size: tuple[int, int] | None, high_size: tuple[int, int], number: int, seed: int
) -> Round:
    generator = np.random.Generator(np.random.Philox(derive_seed(seed, "degradation", number)))
    blurs, kind, one, two, angle, shape, where, method, noise, is_poisson, level, grey, jpeg, quality = (
        generator.random(14).tolist()
    )
    strongest = config.blur_sigma_max * (1.0 if number == 0 else _SECOND)
    sigmas = [_between(config.blur_sigma_min, max(strongest, config.blur_sigma_min), draw) for draw in (one, two)]
    is_plain = kind < 0.5  # isotropic and Gaussian
    deviation = config.noise_sigma_max * level if noise < config.noise_probability else 0.0
    qualities = config.jpeg_quality_max - config.jpeg_quality_min + 1
    return Round(
        sigmas=(0.0, 0.0) if blurs >= config.blur_probability else (sigmas[0], sigmas[0 if is_plain else 1]),
        angle=pi * angle,
        shape=1.0 if is_plain else _between(*_GENERALISED, shape),
        size=_size_between(config, high_size, where) if size is None else size,
        method=METHODS[int(method * len(METHODS))],
        gaussian=0.0 if is_poisson < 0.5 else deviation,
        poisson=deviation if is_poisson < 0.5 else 0.0,
        grey=grey < config.grey_noise,
        quality=config.jpeg_quality_min + int(quality * qualities) if jpeg < config.jpeg_probability else 0,
    )


def _between(low: float, high: float, draw: float) -> float:
    return low + (high - low) * draw


def _size_between(config: DegradationConfig, high_size: tuple[int, int], draw: float) -> tuple[int, int]:
    share = int(draw * NUM_SIZES) / (NUM_SIZES - 1)
    height, width = (
        round(side * config.resize_min * (config.resize_max / config.resize_min) ** share) for side in high_size
    )
    return height, width


def degrade(config: DegradationConfig, high: Tensor, low_size: Size, seeds: Sequence[int]) -> Tensor:
    """Make low-resolution images: (B, 3, H, W) in [-1, 1] -> (B, 3, h, w), whose values are those of 8 bits.

    Args:
        config: the chain; its order is not 0.
        high: the targets.
        low_size: h and w, pixels.
        seeds: one per image, on which alone its result depends.
    """
    draws = [draw_rounds(config, low_size, size_of(*high.shape[-2:]), seed) for seed in seeds]
    images = [image[None] for image in (high + 1) / 2]
    for number in range(config.order):
        images = _through_round([draw[number] for draw in draws], images, seeds, number)
    return torch.cat(images).clamp(0, 1).mul(255).round().div(127.5).sub(1)


def _through_round(
    rounds: Sequence[Round], images: Sequence[Tensor], seeds: Sequence[int], number: int
) -> list[Tensor]:
    """A round for all images, those that have one size and get one together."""
    results: dict[int, Tensor] = {}
    groups: dict[tuple[torch.Size, tuple[int, int], str], list[int]] = {}
    for index, (drawn, image) in enumerate(zip(rounds, images, strict=True)):
        groups.setdefault((image.shape[-2:], drawn.size, drawn.method), []).append(index)
    for (_, size, method), members in groups.items():
        some = [rounds[index] for index in members]
        batch = resize(_blurred(some, torch.cat([images[index] for index in members])), size, method)  # type: ignore[arg-type]
        batch = _noisy(some, batch, [seeds[index] for index in members], number)
        made = _compressed(some, batch)
        results |= {index: made[place : place + 1] for place, index in enumerate(members)}
    return [results[index] for index in range(len(images))]


def _blurred(rounds: Sequence[Round], images: Tensor) -> Tensor:
    sigmas = _numbers([each.sigmas for each in rounds], images)
    kernels = gaussian_kernels(
        sigmas.clamp(min=1e-3),  # so narrow that the kernel is one pixel
        _numbers([each.angle for each in rounds], images),
        _numbers([each.shape for each in rounds], images),
        KERNEL_RADIUS,
    )
    return convolve(images, kernels)


def _noisy(rounds: Sequence[Round], images: Tensor, seeds: Sequence[int], number: int) -> Tensor:
    return add_noise(
        images,
        [derive_seed(seed, "sensor") for seed in seeds],
        number,
        _numbers([each.gaussian for each in rounds], images),
        _numbers([each.poisson for each in rounds], images),
        _numbers([each.grey for each in rounds], images).bool(),
    )


def _compressed(rounds: Sequence[Round], images: Tensor) -> Tensor:
    qualities = [each.quality for each in rounds]
    made = compress(images, _numbers([max(quality, 1) for quality in qualities], images))
    return torch.where(_numbers(qualities, images)[:, None, None, None] > 0, made, images.clamp(0, 1))


def _numbers(values: Sequence[object], like: Tensor) -> Tensor:
    return send(torch.tensor(values, dtype=torch.float32), like.device)
