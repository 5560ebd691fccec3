"""Validation of the metrics' inputs: uint8 images, pairs of images in RGB or luma, feature vectors."""

import numpy as np
from torch import Tensor

from sr3core.errors import ConfigError, DataError
from sr3core.images.pixels import as_images

LUMA_WEIGHTS = (65.481 / 255, 128.553 / 255, 24.966 / 255)
LUMA_OFFSET = 16.0
"""BT.601 studio swing, where black is 16 and white is 235; the coefficients are those of MATLAB's rgb2ycbcr."""


def comparable(
    images: np.ndarray | Tensor, references: np.ndarray | Tensor, *, y_channel: bool, crop_border: int
) -> tuple[Tensor, Tensor]:
    """Check and prepare two batches for a pixelwise comparison.

    Args:
        images, references: uint8 RGB, (B, H, W, 3), of equal shape.
        y_channel: compare BT.601 studio luma instead of RGB; unlike MATLAB's, it is not rounded to 8 bits.
        crop_border: pixels to crop from each side first.

    Returns:
        Both as float64 (B, H', W', C) in [0, 255]; C is 1 with y_channel, else 3.

    Raises:
        ConfigError: crop_border is negative.
        DataError: images are not uint8 RGB, shapes differ, or nothing is left inside the border.
    """
    pair = as_images(images, "images"), as_images(references, "references")
    if pair[0].shape != pair[1].shape:
        raise DataError(f"images and references differ in shape: {_shape(pair[0])} and {_shape(pair[1])}")
    if crop_border < 0:
        raise ConfigError(f"crop_border must not be negative, got {crop_border}")
    if min(pair[0].shape[1:3]) <= 2 * crop_border:
        raise DataError(f"crop_border={crop_border} leaves nothing of images of {_shape(pair[0])}")
    first, second = (_select(batch, y_channel, crop_border) for batch in pair)
    return first, second


def as_features(features_a: np.ndarray, features_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Check two sets of feature vectors, (n_a, D) and (n_b, D), and return them in float64.

    Raises:
        DataError: they are not two-dimensional and finite, differ in D, or a set has fewer than two vectors.
    """
    pair = np.asarray(features_a, dtype=np.float64), np.asarray(features_b, dtype=np.float64)
    for vectors in pair:
        check_features(vectors)
        if len(vectors) < 2:
            raise DataError(f"a distance between sets needs at least two images per set, got {len(vectors)}")
    if pair[0].shape[1] != pair[1].shape[1]:
        raise DataError(f"features of {pair[0].shape[1]} and {pair[1].shape[1]} dimensions cannot be compared")
    return pair


def check_features(vectors: np.ndarray) -> None:
    """Check that feature vectors are (n, D) and finite; n may be 0.

    Raises:
        DataError: they are not.
    """
    if vectors.ndim != 2:
        raise DataError(f"features must be (n, D), got {vectors.shape}")
    num_bad = int(np.sum(~np.isfinite(vectors).all(axis=1)))
    if num_bad:
        raise DataError(f"{num_bad} of {len(vectors)} feature vectors are not finite")


def _select(batch: Tensor, y_channel: bool, crop_border: int) -> Tensor:
    height, width = batch.shape[1:3]
    inner = batch[:, crop_border : height - crop_border, crop_border : width - crop_border].double()
    if not y_channel:
        return inner
    # (B, H', W', 3) @ (3, 1) -> (B, H', W', 1)
    return inner @ inner.new_tensor(LUMA_WEIGHTS)[:, None] + LUMA_OFFSET


def _shape(batch: Tensor) -> str:
    return "x".join(map(str, batch.shape))
