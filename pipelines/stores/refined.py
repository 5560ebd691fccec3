"""Stores to write: the coordinates of an input refined, and one array for each variable, filled part by part."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from pipelines.stores.store import Store, Variable
from sr3core.errors import DataError

DONE = "is_done"
"""Variable that says which samples are complete."""


def refined(coordinate: np.ndarray | None, scale: Fraction, size: int) -> np.ndarray | None:
    """The coordinate of a finer grid over the same cells, (size,); linear beyond the first and last centres."""
    if coordinate is None or len(coordinate) < 2:
        return None
    places = (np.arange(size) + 0.5) / float(scale) - 0.5
    first = np.clip(np.floor(places).astype(int), 0, len(coordinate) - 2)
    return coordinate[first] + (places - first) * (coordinate[first + 1] - coordinate[first])


@dataclass(frozen=True, slots=True)
class Refinement:
    """What is written: an input on a finer grid."""

    source: Store
    """The input."""
    grid: Variable
    """A variable of the input, for its grid."""
    scale: Fraction
    """Ratio of the grids."""
    size: tuple[int, int]
    """(height, width) of the output."""
    units: dict[str, str]
    """Of each variable that is written, by its name."""
    members: int
    """Size of the ensemble."""
    attributes: dict[str, Any]
    """How it is made; a store that was made otherwise is not continued."""


class RefinedStore:
    """A zarr store of an ensemble: (member, time, y, x) for each variable, and its mean and spread, (time, y, x).

    Args:
        location: the folder; an unfinished one is continued.
        what: its contents.
    """

    def __init__(self, location: str, what: Refinement) -> None:
        self.location, self._names, self._members = location, tuple(what.units), what.members
        if not os.path.exists(location):
            _create(location, what)
        self._group = _opened(location, what.attributes)

    @property
    def missing(self) -> list[int]:
        """Numbers of the samples that are not complete."""
        return np.flatnonzero(np.asarray(self._group[DONE]) == 0).tolist()

    def write(self, number: int, fields: np.ndarray) -> None:
        """Write a sample, (M, C, H, W), and mark it complete."""
        for channel, name in enumerate(self._names):
            self._group[name][:, number] = fields[:, channel]
            if self._members > 1:
                exact = fields[:, channel].astype(np.float64)
                self._group[f"{name}_mean"][number] = exact.mean(axis=0)
                self._group[f"{name}_spread"][number] = exact.std(axis=0, ddof=1)
        self._group[DONE][number] = 1


def _opened(location: str, attributes: dict[str, Any]) -> Any:
    import zarr

    group: Any = zarr.open_group(location, mode="r+")
    if dict(group.attrs).get("sr3") != attributes:
        raise DataError(f"{location} was made with other settings, or is no output of sr3; choose another --out")
    return group


def _create(location: str, what: Refinement) -> None:
    """Make the folder under another name first: what is there is whole."""
    import shutil

    import xarray as xr
    import zarr

    size, members, num = what.size, what.members, what.source.num_samples
    temporary = f"{location}.begun"
    shutil.rmtree(temporary, ignore_errors=True)
    names, coordinates = _axes(what)
    member = ("member", np.arange(members), {"standard_name": "realization"})
    xr.Dataset(coords={**coordinates, "member": member}).to_zarr(temporary, consolidated=False, zarr_format=3)
    group = zarr.open_group(temporary, mode="r+")

    def add(name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dims: Sequence[str], unit: str) -> None:
        array = group.create_array(name, shape=shape, chunks=chunks, dtype="float32", dimension_names=dims)
        array.attrs["units"] = unit

    for name, unit in what.units.items():
        add(name, (members, num, *size), (members, 1, *size), ("member", *names), unit)
        for statistic in ("mean", "spread") if members > 1 else ():
            add(f"{name}_{statistic}", (num, *size), (1, *size), names, unit)
    group.create_array(DONE, shape=(num,), chunks=(1,), dtype="uint8", dimension_names=names[:1], fill_value=0)
    group.attrs["sr3"] = what.attributes
    os.rename(temporary, location)


def _axes(what: Refinement) -> tuple[tuple[str, str, str], dict[str, Any]]:
    """Names of sample, row and column dimensions, and their coordinates."""
    source, grid = what.source, what.grid
    names = source.dimensions(grid.name)
    axis = source.sample_axis()
    coordinates: dict[str, Any] = {} if axis is None else {names[0]: axis}
    for name, old, length in zip(names[1:], (grid.rows, grid.columns), what.size, strict=True):
        fine = refined(old, what.scale, length)
        if fine is not None:
            coordinates[name] = (name, fine, source.attributes(name))
    return names, coordinates
