"""Resizing for the paper's data: exact area resampling, antialiased bicubic resampling, Gaussian blur.

Each is a linear map along one axis, applied to rows and then to columns; the weights are computed in float64. The
training data and the network's input x_up use the same kernels, so that training and inference see one operation.

The maps are matrix products, whose order of summation differs between processors. Area resampling therefore computes in
whole numbers, whose sums do not depend on the order. The others compute in float64, whose errors are far too small to
change the rounding. The results are the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import gcd
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sr3core.hyperparameters import Upsampling
from sr3core.sizes import Size, sides_of

if TYPE_CHECKING:  # processes that only prepare data avoid torch's 200 MB
    from torch import Tensor

BICUBIC_A = -0.5
"""Keys' parameter as in TensorFlow and Pillow; torch's plain bicubic uses -0.75 and differs by up to 25/255."""

Float = type[np.float32] | type[np.float64]

_BAND_ROWS = 16  # wide weight matrices are mostly zeros; bands of this many rows are mostly nonzero


class _Band(NamedTuple):
    """Rows [first, last) of a weight matrix, restricted to the columns [low, low + weights.shape[1])."""

    first: int
    last: int
    low: int
    weights: np.ndarray


def area_weights(in_size: int, out_size: int) -> np.ndarray:
    """Weights of exact area resampling, (out_size, in_size) float64, rows sum to 1.

    Output pixel i is the mean of the input over [i, i + 1) * in_size / out_size, where partly covered pixels count in
    proportion to the covered part: (0, 1, 2, 3, 4) -> 3 gives 0.4, 2, 3.6.
    """
    return _dense(_area_bands(in_size, out_size), in_size) / (in_size // gcd(in_size, out_size))


@lru_cache(maxsize=64)
def _area_bands(in_size: int, out_size: int) -> tuple[_Band, ...]:
    """The weights as whole numbers; rows sum to in_size / gcd(in_size, out_size)."""
    whole = gcd(in_size, out_size)
    numerator, denominator = in_size // whole, out_size // whole
    bands: list[_Band] = []
    for first, last in _row_ranges(out_size):
        edges = np.arange(first, last + 1) * numerator
        pixel = np.arange(int(edges[0]) // denominator, -(-int(edges[-1]) // denominator))
        overlap = np.minimum(edges[1:, None], (pixel + 1) * denominator)
        overlap = overlap - np.maximum(edges[:-1, None], pixel * denominator)
        bands.append(_Band(first, last, int(pixel[0]), np.clip(overlap, 0, None).astype(np.float64)))
    return tuple(bands)


@lru_cache(maxsize=16)
def bicubic_weights(in_size: int, out_size: int) -> np.ndarray:
    """Weights of antialiased bicubic resampling, (out_size, in_size) float64, rows sum to 1.

    When shrinking, the kernel is stretched by in_size / out_size; at the borders it is truncated and renormalised.
    """
    return _dense(_bands(in_size, out_size), in_size)


@lru_cache(maxsize=16)
def bilinear_weights(in_size: int, out_size: int) -> np.ndarray:
    """Weights of antialiased bilinear resampling, likewise."""
    return _dense(_bands(in_size, out_size, "bilinear"), in_size)


@lru_cache(maxsize=64)
def _bands(in_size: int, out_size: int, kernel: Upsampling = "bicubic") -> tuple[_Band, ...]:
    scale = in_size / out_size
    stretch = max(scale, 1.0)
    bands: list[_Band] = []
    for first, last in _row_ranges(out_size):
        centre = (np.arange(first, last) + 0.5) * scale
        low = max(int(centre[0] - 2 * stretch), 0)
        high = min(int(np.ceil(centre[-1] + 2 * stretch)) + 1, in_size)
        weights = _KERNELS[kernel](np.abs(np.arange(low, high) + 0.5 - centre[:, None]) / stretch)
        bands.append(_Band(first, last, low, weights / weights.sum(axis=1, keepdims=True)))
    return tuple(bands)


def _keys_cubic(distance: np.ndarray) -> np.ndarray:
    a = BICUBIC_A
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - distance, 0)


_KERNELS: dict[Upsampling, Callable[[np.ndarray], np.ndarray]] = {"bicubic": _keys_cubic, "bilinear": _triangle}


@lru_cache(maxsize=8)
def gaussian_weights(size: int, sigma: float) -> np.ndarray:
    """Weights of Gaussian blur with standard deviation sigma pixels, (size, size) float64, reflected at the borders."""
    radius = int(np.ceil(4 * sigma))
    offset = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offset / sigma) ** 2)
    kernel /= kernel.sum()
    weights = np.zeros((size, size))
    position = np.arange(size)
    for shift, weight in zip(offset, kernel, strict=True):
        np.add.at(weights, (position, _reflect(position + shift, size)), weight)
    return weights


def _reflect(index: np.ndarray, size: int) -> np.ndarray:
    """Reflect indices into [0, size) at the outer pixel edges: -1 -> 0, size -> size - 1."""
    folded = index % (2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)


def _row_ranges(out_size: int) -> list[tuple[int, int]]:
    return [(first, min(first + _BAND_ROWS, out_size)) for first in range(0, out_size, _BAND_ROWS)]


def _dense(bands: tuple[_Band, ...], in_size: int) -> np.ndarray:
    weights = np.zeros((bands[-1].last, in_size))
    for first, last, low, band in bands:
        weights[first:last, low : low + band.shape[1]] = band
    return weights


def _dense_rows(bands: tuple[_Band, ...], first: int, last: int) -> tuple[int, np.ndarray]:
    """Rows [first, last) of a weight matrix: the first column that they use, and their weights from that column on."""
    used = bands[first // _BAND_ROWS : -(-last // _BAND_ROWS)]
    low = min(band.low for band in used)
    high = max(band.low + band.weights.shape[1] for band in used)
    weights = np.zeros((used[-1].last - used[0].first, high - low))
    for band in used:
        columns = slice(band.low - low, band.low - low + band.weights.shape[1])
        weights[band.first - used[0].first : band.last - used[0].first, columns] = band.weights
    return low, weights[first - used[0].first : last - used[0].first]


def resize_area(image: np.ndarray, size: Size) -> np.ndarray:
    """Area-resize uint8 (H, W, C) to (*size, C), with exact sums and a single rounding (halves to even).

    Raises:
        ValueError: a side would grow; area resampling only shrinks.
    """
    (height, width), (rows, columns) = image.shape[:2], sides_of(size)
    if rows > height or columns > width:
        raise ValueError(f"area resampling cannot enlarge {height}x{width} to {rows}x{columns}")
    if (height, width) == (rows, columns):
        return image.copy()
    row_sum, column_sum = height // gcd(height, rows), width // gcd(width, columns)
    tall = _along_rows(_area_bands(height, rows), image, _exact_type(255 * row_sum))
    sums = _along_columns(_area_bands(width, columns), tall, _exact_type(255 * row_sum * column_sum))
    return _to_uint8(sums.astype(np.float64) / (row_sum * column_sum))


def resize_bicubic(image: np.ndarray, size: Size) -> np.ndarray:
    """Antialiased-bicubic resize of uint8 (H, W, C) to (*size, C), rounded and clipped once."""
    (height, width), (rows, columns) = image.shape[:2], sides_of(size)
    tall = _along_rows(_bands(height, rows), image, np.float64)
    return _to_uint8(_along_columns(_bands(width, columns), tall, np.float64))


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of uint8 (H, W, C), sigma in pixels, rounded and clipped once; sigma 0 returns a copy."""
    if sigma <= 0:
        return image.copy()
    height, width = image.shape[:2]
    rows = (_Band(0, height, 0, gaussian_weights(height, sigma)),)
    columns = (_Band(0, width, 0, gaussian_weights(width, sigma)),)
    return _to_uint8(_along_columns(columns, _along_rows(rows, image, np.float64), np.float64))


def _along_rows(bands: tuple[_Band, ...], image: np.ndarray, dtype: Float) -> np.ndarray:
    """(H', H) weights times (H, W, C) -> (H', W, C)."""
    height, width, channels = image.shape
    flat = image.reshape(height, width * channels)  # (H, W, C) -> (H, W C)
    out = np.empty((bands[-1].last, width * channels), dtype)
    for first, last, low, weights in bands:
        rows = flat[low : low + weights.shape[1]].astype(dtype)
        np.matmul(weights.astype(dtype), rows, out=out[first:last])
    return out.reshape(-1, width, channels)  # (H', W C) -> (H', W, C)


def _along_columns(bands: tuple[_Band, ...], image: np.ndarray, dtype: Float) -> np.ndarray:
    """(W', W) weights times (H, W, C) -> (H, W', C); the matrix of weights is block-diagonal in the channels."""
    height, width, channels = image.shape
    flat = image.reshape(height, width * channels).astype(dtype, copy=False)  # (H, W, C) -> (H, W C)
    out = np.empty((height, bands[-1].last * channels), dtype)
    for first, last, low, weights in bands:
        matrix = np.zeros((weights.shape[1], channels, last - first, channels), dtype)
        for channel in range(channels):
            matrix[:, channel, :, channel] = weights.T
        columns = flat[:, low * channels : (low + weights.shape[1]) * channels]
        # matrix: (W, C, W', C) -> (W C, W' C) for the band's W input and W' output columns
        out[:, first * channels : last * channels] = columns @ matrix.reshape(columns.shape[1], -1)
    return out.reshape(height, -1, channels)  # (H, W' C) -> (H, W', C)


def _exact_type(largest: int) -> Float:
    """The narrower float type that represents every whole number up to largest."""
    return np.float32 if largest < 2**24 else np.float64


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def downsample_bicubic(images: Tensor, size: Size) -> Tensor:
    """Antialiased bicubic downsampling: float (B, C, H, W) -> (B, C, *size), not clipped."""
    return _resample(images, size)


def upsample_bicubic(images: Tensor, size: Size) -> Tensor:
    """Bicubic upsampling, x -> x_up of Figure A.1: float (B, C, H, W) -> (B, C, *size), not clipped."""
    return _resample(images, size)


def upsample(images: Tensor, size: Size, kernel: Upsampling) -> Tensor:
    """upsample_bicubic, or its like by the kernel that a network was trained with."""
    return _resample(images, size, kernel)


def upsample_nearest(images: Tensor, size: Size) -> Tensor:
    """Enlarge without new values: float (B, C, H, W) -> (B, C, *size); a pixel takes the one that its centre is in."""
    import torch

    rows, columns = (
        torch.as_tensor((2 * np.arange(side) + 1) * old // (2 * side), device=images.device)
        for side, old in zip(sides_of(size), images.shape[-2:], strict=True)
    )
    return images[..., rows, :][..., columns]


def upsample_window(
    images: Tensor,
    size: tuple[int, int],
    corner: tuple[int, int],
    window: tuple[int, int],
    kernel: Upsampling = "bicubic",
) -> Tensor:
    """Compute only a window of upsample(images, size, kernel): float (B, C, H, W) -> (B, C, *window).

    Args:
        images: the whole images.
        size: (height, width) of the whole output.
        corner: (top, left) of the window in the output.
        window: (height, width) of the window; corner + window <= size.
        kernel: of the upsampling.
    """
    import torch

    from sr3core.transfer import send

    spans: list[tuple[slice, Tensor]] = []
    for axis in (0, 1):
        bands = _bands(images.shape[axis - 2], size[axis], kernel)
        low, weights = _dense_rows(bands, corner[axis], corner[axis] + window[axis])
        spans.append(
            (slice(low, low + weights.shape[1]), send(torch.as_tensor(weights, dtype=images.dtype), images.device))
        )
    (rows, row_weights), (columns, column_weights) = spans
    return row_weights @ images[..., rows, columns] @ column_weights.T


def _resample(images: Tensor, size: Size, kernel: Upsampling = "bicubic") -> Tensor:
    import torch

    from sr3core.transfer import send

    height, width = sides_of(size)
    weights = bicubic_weights if kernel == "bicubic" else bilinear_weights
    rows, columns = (
        send(torch.as_tensor(weights(*sizes), dtype=images.dtype), images.device)
        for sizes in ((images.shape[-2], height), (images.shape[-1], width))
    )
    return rows @ images @ columns.T  # (H', H) @ (B, C, H, W) @ (W, W') -> (B, C, H', W')
