"""Classification error on upscaled images (Table 3): preparation of the images, and top-k errors."""

import numpy as np
from torch import Tensor

from sr3core.errors import DataError
from sr3core.images.pixels import as_images, largest_central_crop, to_float, to_uint8
from sr3core.images.resize import downsample_bicubic, upsample_bicubic
from sr3core.metrics.inputs import check_features

RESIZED_SIDE = 256
CROP_SIZE = 224
LOW_SIZE = 56
MODEL_SIZE = 64
CHAIN = "shorter side 256, central 224x224, bicubic 56x56, bicubic 64x64, 4x to 256x256, bicubic 224x224, classifier"
"""Table 3's processing chain, as interpreted here."""


def table_3_reference(photo: np.ndarray) -> np.ndarray:
    """Crop a photo to a classifier's usual input: shorter side to 256, central 224x224.

    Table 3 refers to "56x56 center crops from the validation set" and prints a baseline top-1 error of 0.252. A
    ResNet-50 reaches this on 224x224 centre crops; 56x56 pixels of the photo itself could not be recognised at that
    rate. So the crop is taken at 224 and then reduced 4 times.

    Args:
        photo: uint8 RGB, (H, W, 3).

    Returns:
        uint8 (224, 224, 3).
    """
    batch = as_images(largest_central_crop(photo)[None], "photo")
    # The central square contains the central 224 of 256, so nothing else needs resizing.
    square = to_uint8(downsample_bicubic(to_float(batch), RESIZED_SIDE))[0]
    margin = (RESIZED_SIDE - CROP_SIZE) // 2
    return square[margin:-margin, margin:-margin]


def table_3_input(references: np.ndarray | Tensor) -> np.ndarray:
    """Create the input of a 4x model for Table 3: 224 -> 56 -> 64, both bicubic and rounded to 8 bits.

    Args:
        references: uint8 RGB, (B, 224, 224, 3).

    Returns:
        uint8 (B, 64, 64, 3).

    Raises:
        DataError: references are not uint8 (B, 224, 224, 3).
    """
    batch = as_images(references, "references")
    if tuple(batch.shape[1:3]) != (CROP_SIZE, CROP_SIZE):
        raise DataError(f"references must be {CROP_SIZE}x{CROP_SIZE}, got {batch.shape[2]}x{batch.shape[1]}")
    low = to_uint8(downsample_bicubic(to_float(batch), LOW_SIZE))
    return to_uint8(upsample_bicubic(to_float(low), MODEL_SIZE))


def top_k_errors(logits: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each image's label is not among the k largest logits; the mean is Table 3's error.

    Args:
        logits: (n, classes), of any real type.
        labels: class indices, (n,).
        k: at least 1.

    Returns:
        bool (n,). Logits equal to the label's count as larger, so that a constant classifier scores nothing.

    Raises:
        DataError: logits are not two-dimensional and finite, labels are not (n,), or a label is out of range.
    """
    values, indices = np.asarray(logits), np.asarray(labels)
    check_features(values)
    if indices.shape != (len(values),):
        raise DataError(f"{len(values)} images need as many labels, got {indices.shape}")
    outside = indices[(indices < 0) | (indices >= values.shape[1])]
    if len(outside):
        raise DataError(f"label {outside[0]} is out of range for a classifier of {values.shape[1]} classes")
    own = values[np.arange(len(values)), indices]
    return (values >= own[:, None]).sum(axis=1) > k  # (n, classes) -> (n,)
