"""Radial power spectra of fields: how much there is of each wavelength."""

import math
from typing import cast

import numpy as np
import torch
from torch import Tensor


def radial_spectrum(fields: Tensor) -> Tensor:
    """Power in rings of whole wave numbers, (..., H, W) -> (..., K) with K = min(H, W) // 2; wave number k + 1 first.

    The mean is taken off, and a Hann window is applied: fields are not periodic, and their edges would leak into all
    wave numbers (a k^-5 spectrum would look like k^-2.8).
    """
    height, width = fields.shape[-2:]
    rows, columns = (_hann(side, fields) for side in (height, width))
    window = rows[:, None] * columns
    centred = fields.double() - fields.double().mean((-2, -1), keepdim=True)
    waves = cast("Tensor", torch.fft.fft2(centred * window))  # pyright: ignore[reportUnknownMemberType]
    power = waves.abs().square() / window.square().sum()
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)) * min(height, width)
    ring = torch.as_tensor(np.round(radius).astype(np.int64), device=fields.device)  # (H, W)
    count = min(height, width) // 2
    rings = torch.stack([power[..., ring == number].mean(-1) for number in range(1, count + 1)], dim=-1)
    return rings / (height * width)


def _hann(side: int, like: Tensor) -> Tensor:
    places = (torch.arange(side, device=like.device, dtype=torch.float64) + 0.5) / side
    return torch.sin(math.pi * places).square()


def spectral_angle(made: Tensor, truth: Tensor) -> Tensor:
    """Spectral angle mapper (Kruse et al., 1993): angle between the channels of cells, in degrees.

    (B, C, H, W) -> (B, H, W).
    """
    dot = (made * truth).sum(1)
    norms = made.square().sum(1).sqrt() * truth.square().sum(1).sqrt()
    return torch.rad2deg(torch.arccos((dot / norms.clamp(min=1e-12)).clamp(-1, 1)))
