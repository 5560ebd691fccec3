"""Consistency of an output with its low-resolution input (Table 1)."""

import numpy as np
from torch import Tensor

from sr3core.errors import DataError
from sr3core.images.pixels import as_images, to_float
from sr3core.images.resize import downsample_bicubic

UNIT = 1e-5
"""Unit of the values in Table 1."""


def consistency(outputs: np.ndarray | Tensor, inputs: np.ndarray | Tensor) -> np.ndarray:
    """Compute Table 1's "Consistency": MSE between the downsampled output and the input, in units of 1e-5.

    The output is downsampled like the input, by antialiased bicubic, and clipped, but not rounded again. Squared
    differences of pixel values in [0, 1] are averaged over pixels and channels.

    The paper does not state the range. [0, 1] is the one that fits its numbers. SR3's 2.68 then is an error of 1.3 grey
    levels of 255. PULSE's 161.1 lies just under 200 (2e-3 on [0, 1]), the value of this error at which that method
    stops optimising; on [-1, 1] it would stop at 800. On [0, 255] SR3's error would be far below what rounding to 8
    bits allows. A ground-truth image scores about 0.13 (1/12 grey level squared) because its input was rounded; this is
    the lower limit.

    Args:
        outputs: uint8 RGB, (B, H, W, 3).
        inputs: uint8 RGB low-resolution images, (B, h, w, 3), no larger than the outputs.

    Returns:
        float64 (B,), the MSE divided by 1e-5; lower is better.

    Raises:
        DataError: outputs or inputs are not uint8 RGB, differ in number, or outputs are smaller than inputs.
    """
    large, small = as_images(outputs, "outputs"), as_images(inputs, "inputs")
    height, width = small.shape[1:3]
    if len(large) != len(small) or large.shape[1] < height or large.shape[2] < width:
        raise DataError(f"outputs {tuple(large.shape)} do not match inputs {tuple(small.shape)}")
    shrunk = downsample_bicubic(to_float(large).double(), (height, width)).clamp(-1, 1)
    error = (shrunk - to_float(small)) / 2  # [-1, 1] -> a difference of values in [0, 1]
    return error.square().mean(dim=(1, 2, 3)).cpu().numpy() / UNIT
