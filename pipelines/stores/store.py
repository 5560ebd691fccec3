"""What all stores of arrays have in common: named variables on grids, sample after sample."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from sr3core.config import did_you_mean
from sr3core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of a store."""

    name: str
    units: str
    """As the store states it; empty if it does not."""
    size: tuple[int, int]
    """(height, width) of its grid; of rasters, whose sizes may differ, that of the first."""
    is_map: bool
    """Whether it is the same in all samples."""
    dtype: np.dtype
    """Type of what is read: that of the store, or float32 where values may be missing."""
    rows: np.ndarray | None = None
    """Coordinate of each row, (H,), such as its latitude; None if there is none."""
    columns: np.ndarray | None = None
    """Coordinate of each column, (W,)."""


@dataclass(frozen=True, slots=True)
class Times:
    """The times of a series of samples."""

    seconds: np.ndarray
    """Seconds since 1970 in the calendar, (N,) int64."""
    labels: tuple[str, ...]
    """The times in ISO 8601."""
    calendar: str


class Store(ABC):
    """A store that is open for reading."""

    location: str
    """Where it is."""
    variables: dict[str, Variable]
    """By their names."""
    names: tuple[str, ...]
    """A name for each sample: its time, its file or its number."""
    times: Times | None = None
    """Times of the samples; None if they are no series."""
    chunk: int = 1
    """Samples that lie together, and are read at once at no more cost than one."""

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        return len(self.names)

    @abstractmethod
    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """A variable of the samples start..stop - 1, (N, H, W); missing values are NaN.

        Raises:
            DataError: it is damaged.
        """

    def read_map(self, name: str) -> np.ndarray:
        """A variable that is the same in all samples, (H, W)."""
        return self.read(name, 0, 1)[0]

    def dimensions(self, name: str) -> tuple[str, str, str]:
        """Names of the dimensions of samples, rows and columns of a variable."""
        return "sample", "y", "x"

    def sample_axis(self) -> Any:
        """The coordinate of the samples, as xarray takes it; None if there is none."""
        return ("sample", list(self.names))

    def attributes(self, dimension: str) -> dict[str, Any]:
        """What the store says of a dimension's coordinate, such as its units."""
        return {}

    def check_whole(self, names: tuple[str, ...]) -> None:  # noqa: B027  # most stores know no parts
        """Check that no part of these variables is absent.

        Raises:
            DataError: a part was never written.
        """

    def choose(self, names: tuple[str, ...], option: str) -> tuple[str, ...]:
        """These variables, or without any all that differ from sample to sample.

        Raises:
            ConfigError: one of them is not there, or there are none.
        """
        for name in names:
            if name not in self.variables:
                raise ConfigError(f"{option}: {self.location} has no variable {name!r}, {self._hint(name)}")
        chosen = names or tuple(name for name, variable in self.variables.items() if not variable.is_map)
        if not chosen:
            raise ConfigError(f"{option}: {self.location} holds no variable with samples along its first dimension")
        return chosen

    def _hint(self, name: str) -> str:
        return did_you_mean(name, self.variables)
