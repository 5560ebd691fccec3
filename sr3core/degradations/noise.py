"""Noise of sensors: Gaussian, and Poisson by the normal law of its variance (Foi et al., 2008), grey or in colour."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sr3core.diffusion.noise import window_noise


def add_noise(
    images: Tensor, seeds: Sequence[int], draw: int, gaussian: Tensor, poisson: Tensor, grey: Tensor
) -> Tensor:
    """Add to each image noise of variance gaussian^2 + poisson^2 x, where x is the image's value.

    Poisson noise of N counts in white has poisson = 1 / sqrt(N); above a few counts it is normal.

    Args:
        images: (B, 3, H, W) in [0, 1].
        seeds: one per image, which with `draw` determines its noise.
        draw: number of the draw.
        gaussian, poisson: (B,) standard deviations, that of Poisson noise in white.
        grey: (B,) bool, whether the noise is the same in all channels, and depends on their mean.

    Returns:
        (B, 3, H, W), not clipped.
    """
    corners = [(0, 0)] * len(seeds)
    normal = window_noise(seeds, draw, corners, images.shape[1:], images.device)
    is_grey = grey[:, None, None, None]
    normal = torch.where(is_grey, normal[:, :1], normal)
    signal = torch.where(is_grey, images.mean(1, keepdim=True), images).clamp(min=0)
    variance = gaussian.square()[:, None, None, None] + poisson.square()[:, None, None, None] * signal
    return images + variance.sqrt() * normal
