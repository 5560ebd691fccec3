"""Physical units to the network's values and back: the one place that applies means and standard deviations.

A value x becomes 0.5 (f(x) - mean) / std, where f is the channel's transform. Half a standard deviation is about that
of images in [-1, 1], for which noise schedules are made.
"""

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from sr3core.samples.spec import Channel, SampleSpec

SPREAD = 0.5
"""Standard deviation of a channel as the network sees it."""
NUM_LEVELS = 1001
"""Levels of a quantile transform."""


def to_model(values: np.ndarray, channels: Sequence[Channel], valid: np.ndarray | None = None) -> np.ndarray:
    """Convert physical values, (C, H, W) of any number type, to what the network sees, (C, H, W) float32.

    Args:
        values: one plane a channel.
        channels: the channels, in that order.
        valid: where values are known, (1 or C, H, W) bool; elsewhere the result is 0. None for everywhere.
    """
    planes = [_standardised(plane, channel) for plane, channel in zip(values, channels, strict=True)]
    made = np.stack(planes).astype(np.float32)
    return made if valid is None else np.where(valid, made, np.float32(0))


def low_to_model(low: np.ndarray, spec: SampleSpec) -> np.ndarray:
    """Convert a low-resolution input, (C_in, h, w), to the network's, (C, h, w): the channels of what is made first.

    A channel that is made without a low-resolution one of its name is 0 there: the network begins at its mean.
    """
    found = dict(zip((channel.name for channel in spec.low), to_model(low, spec.low), strict=True))
    nothing = np.zeros(low.shape[1:], np.float32)
    order = [channel.name for channel in (*spec.high, *spec.further)]
    return np.stack([found.get(name, nothing) for name in order])


def to_physical(values: np.ndarray, channels: Sequence[Channel]) -> np.ndarray:
    """Convert the network's values, (..., C, H, W), to physical ones, float32, within each channel's bounds."""
    planes = [_physical(values[..., i, :, :], channel) for i, channel in enumerate(channels)]
    return np.stack(planes, axis=-3).astype(np.float32)


def transformed(values: np.ndarray, channel: Channel) -> np.ndarray:
    """f(x), float64: what is standardised."""
    exact = values.astype(np.float64)
    if channel.transform == "log1p":
        return np.log1p(exact)
    if channel.transform == "quantile":
        return _interpolated(exact, *_scores(channel.levels))
    return exact


def _standardised(values: np.ndarray, channel: Channel) -> np.ndarray:
    if channel.transform == "range":
        lowest, highest = _range(channel)
        return 2 * (values.astype(np.float64) - lowest) / (highest - lowest) - 1
    return SPREAD * (transformed(values, channel) - channel.mean) / channel.std


def _physical(values: np.ndarray, channel: Channel) -> np.ndarray:
    exact = values.astype(np.float64)
    if channel.transform == "range":
        lowest, highest = _range(channel)
        made = lowest + (exact + 1) / 2 * (highest - lowest)
    else:
        made = exact * channel.std / SPREAD + channel.mean
        if channel.transform == "log1p":
            made = np.expm1(made)
        elif channel.transform == "quantile":
            levels, scores = _scores(channel.levels)
            made = _interpolated(made, scores, levels)
    if channel.lowest is None and channel.highest is None:
        return made
    return np.clip(made, channel.lowest, channel.highest)


def _range(channel: Channel) -> tuple[float, float]:
    assert channel.lowest is not None, "Channel requires bounds of a range"
    assert channel.highest is not None, "Channel requires bounds of a range"
    return channel.lowest, channel.highest


def quantile_levels(values: np.ndarray) -> tuple[float, ...]:
    """The levels of a quantile transform for such values, (N,)."""
    probabilities = (np.arange(NUM_LEVELS) + 0.5) / NUM_LEVELS
    return tuple(float(level) for level in np.quantile(values.astype(np.float64), probabilities))


@lru_cache(maxsize=64)
def _scores(levels: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Distinct levels, (K,) increasing, and their normal scores; levels that are equal have their mean score."""
    probabilities = (np.arange(len(levels)) + 0.5) / len(levels)
    scores = np.array([NormalDist().inv_cdf(probability) for probability in probabilities.tolist()])
    distinct, where = np.unique(np.array(levels), return_inverse=True)
    return distinct, np.bincount(where, scores) / np.bincount(where)


def _interpolated(values: np.ndarray, known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Interpolate linearly, and go on linearly beyond the ends."""
    made = np.interp(values, known, wanted)
    if len(known) < 2:
        return made
    for end, inner, beyond in ((0, 1, values < known[0]), (-1, -2, values > known[-1])):
        slope = (wanted[end] - wanted[inner]) / (known[end] - known[inner])
        made = np.where(beyond, wanted[end] + slope * (values - known[end]), made)
    return made
