"""Random crops of training pairs: where they are, and what of the enlarged input belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sr3core.images.resize import upsample_bicubic
from sr3core.randomness import derive_seed
from sr3core.sizes import Size, sides_of

if TYPE_CHECKING:  # processes that only decode avoid torch's 200 MB
    from torch import Tensor

Corner = tuple[int, int]
"""(top, left) of a crop in its image, pixels."""


def draw_corner(image_size: Size, crop_size: Size, unit: int, seed: int, step: int, position: int) -> Corner:
    """Draw a place for a crop, all of them equally likely; a function of (seed, step, position in the global batch).

    Args:
        image_size, crop_size: of the image and of the crop, pixels.
        unit: top and left are multiples of it; that of the stage's scale's numerator are whole pixels of the input.
        seed: the training's.
        step: the training step.
        position: of the sample in the global batch.
    """
    pairs = zip(sides_of(image_size), sides_of(crop_size), strict=True)
    rows, columns = ((side - cut) // unit + 1 for side, cut in pairs)
    row, column = divmod(derive_seed(seed, "crop", step, position) % (rows * columns), columns)
    return unit * row, unit * column


def enlarge(low: Tensor, high_size: Size, corners: Sequence[Corner], crop_size: Size) -> Tensor:
    """x_up of a batch: low, float (B, C, h, w), enlarged to high_size; of crops, its windows at their corners.

    Whole images are enlarged even for crops, at a hundredth of a step's cost or less: what a crop sees is what it would
    see in the whole image, to the last bit, beyond its edges too.

    Returns:
        (B, C, *high_size); with corners, one an image, (B, C, *crop_size).
    """
    x_up = upsample_bicubic(low, high_size)
    if not corners:
        return x_up
    import torch

    height, width = sides_of(crop_size)
    windows = (
        image[:, top : top + height, left : left + width] for image, (top, left) in zip(x_up, corners, strict=True)
    )
    return torch.stack(list(windows))
