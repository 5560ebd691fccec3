"""Coarser fields by area means, and values for cells that are not known."""

import numpy as np


def coarsened(values: np.ndarray, factor: int) -> np.ndarray:
    """Means over factor x factor cells, (..., H, W) -> (..., H / factor, W / factor), float32; NaN is not known.

    Strided slices are added in a fixed order in float64, so every machine makes the same bytes. A mean of fewer than
    half of its cells is not known.
    """
    known = ~np.isnan(values) if values.dtype.kind == "f" else np.ones(values.shape, bool)
    exact = np.where(known, values, 0).astype(np.float64)
    total, count = (_sums(array, factor) for array in (exact, known.astype(np.float64)))
    with np.errstate(divide="ignore", invalid="ignore"):
        means = total / count
    return np.where(2 * count >= factor**2, means, np.nan).astype(np.float32)


def _sums(values: np.ndarray, factor: int) -> np.ndarray:
    made = np.zeros((*values.shape[:-2], values.shape[-2] // factor, values.shape[-1] // factor))
    for row in range(factor):
        for column in range(factor):
            made += values[..., row::factor, column::factor]
    return made


def filled(values: np.ndarray) -> np.ndarray:
    """Fill NaN in a plane, (H, W), from the nearest known cells, ring by ring; a plane without any stays as it is."""
    made = values
    while np.isnan(made).any() and not np.isnan(made).all():
        around = np.pad(made, 1, constant_values=np.nan)
        shifts = [around[1 + r : 1 + r + made.shape[0], 1 + c : 1 + c + made.shape[1]] for r, c in _NEIGHBOURS]
        known = [~np.isnan(shift) for shift in shifts]
        total = sum(np.where(k, shift, 0).astype(np.float64) for k, shift in zip(known, shifts, strict=True))
        count = sum(k.astype(np.int64) for k in known)
        means = total / np.maximum(count, 1)
        made = np.where(np.isnan(made) & (count > 0), means, made).astype(values.dtype)
    return made


_NEIGHBOURS = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1) if row or column]
