"""JPEG compression and decompression of batches on the device, as libjpeg does them: baseline, 4:2:0.

On a GPU nothing goes to the host; each image has its own quality. What differs from libjpeg is rounding alone.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 8

_LUMA_TABLE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32),
)
"""Annex K of the standard (ITU T.81), row by row."""

_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def compress(images: Tensor, qualities: Tensor) -> Tensor:
    """Compress images as JPEG, each at its quality, and decompress them.

    Args:
        images: (B, 3, H, W) in [0, 1]; rounded to 8 bits and clipped first.
        qualities: (B,), libjpeg's 1 to 100.

    Returns:
        (B, 3, H, W) in [0, 1], multiples of 1/255.
    """
    height, width = images.shape[-2:]
    levels = (255 * images.clamp(0, 1)).round()
    levels = functional.pad(levels, (0, -width % (2 * BLOCK), 0, -height % (2 * BLOCK)), mode="replicate")
    ycc = (_mix(levels, _TO_YCC) + _offset(levels)).round()
    luma = _through_blocks(ycc[:, :1], _table(_LUMA_TABLE, qualities))
    halved = (functional.avg_pool2d(ycc[:, 1:], 2)).round()
    chroma = _doubled(_through_blocks(halved, _table(_CHROMA_TABLE, qualities)))
    decoded = torch.cat([luma, chroma], 1) - _offset(levels)
    rgb = _mix(decoded, _TO_RGB).round().clamp(0, 255)
    return rgb[..., :height, :width] / 255


def _mix(images: Tensor, matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """(3, 3) times the channels of (B, 3, H, W)."""
    return torch.einsum("ij,bjhw->bihw", _constant(matrix, images.device, images.dtype), images)


def _offset(images: Tensor) -> Tensor:
    """Chroma is centred on 128; (1, 3, 1, 1)."""
    return _constant((0.0, 128.0, 128.0), images.device, images.dtype)[:, None, None]


def _table(table: tuple[int, ...], qualities: Tensor) -> Tensor:
    """Quantisation tables at qualities, by libjpeg's rule: (B,) -> (B, 8, 8)."""
    quality = qualities.double()
    percent = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    base = _constant(table, qualities.device, torch.float64).view(BLOCK, BLOCK)
    return ((base * percent[:, None, None] + 50) / 100).floor().clamp(1, 255)


def _through_blocks(planes: Tensor, tables: Tensor) -> Tensor:
    """Transform, quantise and restore each block of 8 x 8: (B, C, H, W) levels -> the same, rounded and clipped."""
    batch, channels, height, width = planes.shape
    dct = _dct(planes.device)
    blocks = planes.double().view(batch, channels, height // BLOCK, BLOCK, width // BLOCK, BLOCK) - 128
    blocks = blocks.transpose(3, 4)  # (B, C, H / 8, W / 8, 8, 8)
    tables = tables[:, None, None, None]
    coefficients = (dct @ blocks @ dct.T / tables).round() * tables
    restored = (dct.T @ coefficients @ dct + 128).round().clamp(0, 255)
    return restored.transpose(3, 4).reshape(planes.shape).to(planes.dtype)


@lru_cache(maxsize=32)
def _constant(values: tuple[object, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Copied to a device once: each copy of a few numbers would wait for the device's work."""
    return torch.tensor(values, dtype=dtype, device=device)


@lru_cache(maxsize=4)
def _dct(device: torch.device) -> Tensor:
    """The orthonormal cosine transform, (8, 8) float64."""
    index = torch.arange(BLOCK, dtype=torch.float64)
    matrix = torch.cos((2 * index + 1) * index[:, None] * math.pi / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix.to(device)


def _doubled(planes: Tensor) -> Tensor:
    """Double both sides as libjpeg's "fancy" upsampling does: each value three quarters of the nearer neighbour."""
    for axis in (2, 3):
        size = planes.shape[axis]
        before = torch.cat([planes.narrow(axis, 0, 1), planes.narrow(axis, 0, size - 1)], axis)
        after = torch.cat([planes.narrow(axis, 1, size - 1), planes.narrow(axis, size - 1, 1)], axis)
        pairs = torch.stack([0.75 * planes + 0.25 * before, 0.75 * planes + 0.25 * after], axis + 1)
        planes = pairs.flatten(axis, axis + 1)
    return planes.round()
