"""Statistics of a channel that are gathered in parts and merged exactly (Chan, Golub and LeVeque, 1983)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean, sum of squared deviations and extremes of some values."""

    count: int = 0
    mean: float = 0.0
    """Mean of the values; 0 of none."""
    squares: float = 0.0
    """Sum of squared differences from the mean."""
    minimum: float = math.inf
    """Smallest value; infinite of none."""
    maximum: float = -math.inf
    """Largest value; minus infinity of none."""

    @classmethod
    def of(cls, values: np.ndarray) -> "Moments":
        """The moments of values of any shape, in float64."""
        exact = np.ravel(values).astype(np.float64)
        if not exact.size:
            return cls()
        mean = float(exact.mean())
        return cls(exact.size, mean, float(np.square(exact - mean).sum()), float(exact.min()), float(exact.max()))

    def merged(self, other: "Moments") -> "Moments":
        """The moments of the values of both."""
        if not self.count or not other.count:
            return self if self.count else other
        count, difference = self.count + other.count, other.mean - self.mean
        return Moments(
            count,
            self.mean + difference * other.count / count,
            self.squares + other.squares + difference**2 * self.count * other.count / count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    @property
    def std(self) -> float:
        """Standard deviation; 0 of none."""
        return math.sqrt(self.squares / self.count) if self.count else 0.0


def merge(parts: Iterable[Moments]) -> Moments:
    """The moments of the values of all parts, merged in their order: one order gives one result."""
    whole = Moments()
    for part in parts:
        whole = whole.merged(part)
    return whole
