"""Differences between methods on the same images, resampled together, so that an image's difficulty cancels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.metric_intervals import Numbers, Resampled, mean_with_interval, with_interval
from pipelines.settings.evaluate import MeasureConfig


@dataclass(frozen=True, slots=True)
class Compared:
    """One method's measurements."""

    values: Mapping[str, np.ndarray]
    """Metric -> one value per image."""
    distances: Mapping[str, float]
    """Distance -> its value over all images."""
    resampled: Resampled
    """Distance -> its value on each resample of the images, the same for every method; empty if none were requested."""


def difference(ours: Sequence[Compared], theirs: Sequence[Compared], config: MeasureConfig) -> Numbers:
    """Ours minus theirs by metric, with paired intervals; each side is the mean over its trainings."""
    found: Numbers = {}
    for metric in ours[0].values:
        gap = _mean([one.values[metric] for one in ours]) - _mean([one.values[metric] for one in theirs])
        found[metric] = mean_with_interval(gap, config)
    count = len(next(iter(ours[0].values.values())))
    for metric in ours[0].distances:
        estimate = float(np.mean([o.distances[metric] for o in ours]) - np.mean([o.distances[metric] for o in theirs]))
        gaps = None
        if metric in ours[0].resampled:
            gaps = _mean([one.resampled[metric] for one in ours]) - _mean([one.resampled[metric] for one in theirs])
        found[metric] = with_interval(estimate, gaps, count, config)
    return found


def average(trainings: Sequence[Compared], config: MeasureConfig) -> Numbers:
    """The mean over trainings by metric, with intervals over images."""
    nothing = Compared(
        {name: np.zeros_like(values) for name, values in trainings[0].values.items()},
        dict.fromkeys(trainings[0].distances, 0.0),
        {name: np.zeros_like(values) for name, values in trainings[0].resampled.items()},
    )
    return difference(trainings, [nothing], config)


def _mean(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(arrays, axis=0)
