"""Structural similarity (Tables 1 and 2), as defined by Wang et al. (2004)."""

import math

import numpy as np
import torch
from torch import Tensor

from sr3core.errors import DataError
from sr3core.metrics.inputs import comparable

WINDOW_SIZE = 11
WINDOW_SIGMA = 1.5
C_1 = (0.01 * 255) ** 2
C_2 = (0.03 * 255) ** 2


def ssim(
    images: np.ndarray | Tensor,
    references: np.ndarray | Tensor,
    *,
    y_channel: bool = False,
    crop_border: int = 0,
) -> np.ndarray:
    """Compute the structural similarity of each image, as in Tables 1 and 2 (which report the mean over images).

    The window is an 11x11 Gaussian of sigma 1.5, at all positions where it fits completely. Variances are population
    variances; K1 = 0.01, K2 = 0.03, L = 255; the arithmetic is float64. The result is the mean over positions and
    channels.

    Args:
        images: uint8 RGB outputs, (B, H, W, 3).
        references: uint8 RGB ground truth, shaped like images.
        y_channel: use BT.601 studio luma, the classical convention, instead of RGB as in the paper.
        crop_border: pixels to crop from each side first; 0 in the paper.

    Returns:
        float64 (B,), in [-1, 1]; 1 for an image equal to its reference.

    Raises:
        ConfigError: crop_border is negative.
        DataError: the images are not of the same shape, not uint8 (B, H, W, 3), or have a side under 11 pixels.
    """
    first, second = comparable(images, references, y_channel=y_channel, crop_border=crop_border)
    height, width = first.shape[1:3]
    if min(height, width) < WINDOW_SIZE:
        raise DataError(f"SSIM needs at least {WINDOW_SIZE} pixels per side, got {height}x{width} inside the border")
    values = [_ssim_map(u, v).mean() for u, v in zip(first, second, strict=True)]
    return torch.stack(values).cpu().numpy()


def _ssim_map(u: Tensor, v: Tensor) -> Tensor:
    """SSIM of two images (H, W, C) at each window position and channel: (H - 10, W - 10, C)."""
    mean_u, mean_v = _window_mean(u), _window_mean(v)
    variance_u = _window_mean(u * u) - mean_u**2
    variance_v = _window_mean(v * v) - mean_v**2
    covariance = _window_mean(u * v) - mean_u * mean_v
    luminance = (2 * mean_u * mean_v + C_1) / (mean_u**2 + mean_v**2 + C_1)
    structure = (2 * covariance + C_2) / (variance_u + variance_v + C_2)
    return luminance * structure


def _window_mean(image: Tensor) -> Tensor:
    """Gaussian-weighted means over complete windows: (H, W, C) -> (H - 10, W - 10, C)."""
    offsets = range(-(WINDOW_SIZE // 2), WINDOW_SIZE // 2 + 1)
    weights = image.new_tensor([math.exp(-0.5 * (offset / WINDOW_SIGMA) ** 2) for offset in offsets])
    weights /= weights.sum()
    for dim in (0, 1):
        image = image.unfold(dim, WINDOW_SIZE, 1) @ weights  # dim 0: (H - 10, W, C, 11) @ (11,) -> (H - 10, W, C)
    return image
