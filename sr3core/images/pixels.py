"""Image layout and range: the only module that converts between uint8 (H, W, C) and float32 (C, H, W) in [-1, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sr3core.errors import DataError
from sr3core.sizes import Size, sides_of

if TYPE_CHECKING:  # processes that only prepare data avoid torch's 200 MB
    from torch import Tensor


def to_float(images: np.ndarray | Tensor) -> Tensor:
    """Convert uint8 (B, H, W, C) in [0, 255] to float32 (B, C, H, W) in [-1, 1]; 0 -> -1, 255 -> 1.

    Raises:
        ValueError: images are not uint8 with four dimensions.
    """
    import torch

    # A copy, because Ray's arrays are read-only, which torch tensors cannot be.
    batch = images if isinstance(images, torch.Tensor) else torch.tensor(images)
    if batch.dtype != torch.uint8 or batch.ndim != 4:
        raise ValueError(f"expected uint8 (B, H, W, C), got {batch.dtype} {tuple(batch.shape)}")
    # (B, H, W, C) -> (B, C, H, W)
    planes = batch.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    # A tensor: by a number, GPUs multiply by its reciprocal, whose last bit differs from the CPU's quotient.
    divisor = planes.new_full((), 127.5)
    return planes.div_(divisor).sub_(1)  # in place: allocating three arrays per batch takes seven times as long


def to_uint8(images: Tensor) -> np.ndarray:
    """Convert float (B, C, H, W) in [-1, 1] to uint8 (B, H, W, C): clip, then round to the nearest integer."""
    import torch

    scaled = images.detach().to(torch.float32).clamp(-1, 1).add(1).mul(127.5).round()
    # (B, C, H, W) -> (B, H, W, C)
    return scaled.to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def largest_central_crop(image: np.ndarray, shape: Size = 1) -> np.ndarray:
    """Crop (H, W, C) to its largest central part of a shape, a square by default (section 4, Datasets).

    If a margin is odd, the extra row or column is cut off at the bottom or right.

    Args:
        image: (H, W, C).
        shape: a size in the proportions wanted; sides that these do not divide are rounded down.
    """
    height, width = image.shape[:2]
    tall, wide = sides_of(shape)
    rows, columns = min(height, width * tall // wide), min(width, height * wide // tall)
    top, left = (height - rows) // 2, (width - columns) // 2
    return image[top : top + rows, left : left + columns]


def as_images(images: np.ndarray | Tensor, name: str) -> Tensor:
    """Check that images are uint8 (B, H, W, 3) with at least one image and one pixel, and return a tensor.

    Raises:
        DataError: they are not; the message contains `name`.
    """
    import torch

    if isinstance(images, np.ndarray) and not images.flags.writeable:
        images = images.copy()  # torch warns about read-only memory, which Ray's arrays have
    batch = torch.as_tensor(images)
    if batch.dtype != torch.uint8 or batch.ndim != 4 or batch.shape[-1] != 3 or batch.numel() == 0:
        raise DataError(f"{name} must be uint8 (B, H, W, 3), got {batch.dtype} {tuple(batch.shape)}")
    return batch
