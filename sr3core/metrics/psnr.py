"""Peak signal-to-noise ratio (Tables 1 and 2)."""

import numpy as np
from torch import Tensor

from sr3core.metrics.inputs import comparable


def psnr(
    images: np.ndarray | Tensor,
    references: np.ndarray | Tensor,
    *,
    y_channel: bool = False,
    crop_border: int = 0,
) -> np.ndarray:
    """Compute 10 log10(255^2 / MSE) of each image, as in Tables 1 and 2 (which report the mean over images).

    Args:
        images: uint8 RGB outputs, (B, H, W, 3).
        references: uint8 RGB ground truth, shaped like images.
        y_channel: use BT.601 studio luma, the classical convention, instead of RGB as in the paper.
        crop_border: pixels to crop from each side first; 0 in the paper.

    Returns:
        float64 (B,), in dB; inf for an image equal to its reference, so a mean that includes it is inf.

    Raises:
        ConfigError: crop_border is negative.
        DataError: the images are not of the same shape, or not uint8 (B, H, W, 3).
    """
    first, second = comparable(images, references, y_channel=y_channel, crop_border=crop_border)
    error = (first - second).square().mean(dim=(1, 2, 3)).cpu().numpy()
    with np.errstate(divide="ignore"):  # equal images: inf is the correct result
        return 10 * np.log10(255**2 / error)
