"""Resizing by area, bilinear or bicubic interpolation: matrix products, antialiased, of any sizes."""

from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sr3core.images.resize import area_weights, bicubic_weights
from sr3core.sizes import Size, sides_of
from sr3core.transfer import send

Method = Literal["area", "bilinear", "bicubic"]
METHODS: tuple[Method, ...] = ("area", "bilinear", "bicubic")


def resize(images: Tensor, size: Size, method: Method) -> Tensor:
    """Resize images: float (B, C, H, W) -> (B, C, h, w), not clipped. Area enlarges as bilinear does."""
    down, across = (
        send(torch.as_tensor(_weights(before, after, method), dtype=images.dtype), images.device)
        for before, after in zip(images.shape[-2:], sides_of(size), strict=True)
    )
    return down @ images @ across.T


@lru_cache(maxsize=128)
def _weights(in_size: int, out_size: int, method: Method) -> np.ndarray:
    """(out_size, in_size) float64; rows sum to 1."""
    if method == "bicubic":
        return bicubic_weights(in_size, out_size)
    if method == "area" and out_size <= in_size:
        return area_weights(in_size, out_size)
    return bilinear_weights(in_size, out_size)


def bilinear_weights(in_size: int, out_size: int) -> np.ndarray:
    """Weights of antialiased bilinear resampling, as Pillow's: a triangle, stretched when shrinking."""
    scale = in_size / out_size
    centres = (np.arange(out_size)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(in_size) + 0.5 - centres) / max(scale, 1.0)
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)
