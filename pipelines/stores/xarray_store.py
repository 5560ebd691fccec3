"""zarr and NetCDF through xarray, which decodes scales, offsets, fill values and calendars."""

from typing import Any

import numpy as np

from pipelines.storage.local_files import describe_error
from pipelines.stores.names import ZARR, damaged, suffix_of
from pipelines.stores.store import Store, Times, Variable
from sr3core.errors import DataError

_KEPT = (np.dtype("uint8"), np.dtype("uint16"), np.dtype("float16"), np.dtype("float32"))


class XarrayStore(Store):
    """A zarr (versions 2 and 3) or NetCDF store. Rows and columns are a variable's last two dimensions.

    Raises:
        DataError: it does not exist, or is damaged.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._data = open_dataset(location)
        self.variables = {}
        self._axis: str | None = None
        for name, array in self._data.data_vars.items():
            self._add(str(name), array)
        if self._axis is None:
            self.names = ("0",) if self.variables else ()
            return
        axis = self._data[self._axis]
        self.times = times_of(axis)
        self.names = self.times.labels if self.times else tuple(f"{n:06d}" for n in range(axis.size))
        self.chunk = max((self._chunk(name) for name, v in self.variables.items() if not v.is_map), default=1)

    def _add(self, name: str, array: Any) -> None:
        """Note a variable, if it has rows and columns."""
        squeezed = _squeezed(array)
        if squeezed.ndim not in (2, 3) or min(squeezed.shape[-2:]) < 2 or squeezed.dtype.kind not in "uif":
            return
        if squeezed.ndim == 3:
            axis = str(squeezed.dims[0])
            if self._axis not in (None, axis):
                return  # of another series
            self._axis = axis
        rows, columns = (_coordinate(self._data, str(dim)) for dim in squeezed.dims[-2:])
        dtype = squeezed.dtype if squeezed.dtype in _KEPT else np.dtype("float32")
        size = (squeezed.shape[-2], squeezed.shape[-1])
        self.variables[name] = Variable(
            name, str(array.attrs.get("units", "")), size, squeezed.ndim == 2, dtype, rows, columns
        )

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """See Store.read."""
        array = _squeezed(self._data[name])
        part = array if array.ndim == 2 else array[start:stop]
        try:
            values = np.asarray(part.values, dtype=self.variables[name].dtype)
            return values[None] if array.ndim == 2 else values
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise damaged(f"{self.location}: {name} of {self._span(start, stop)}", error) from error

    def _span(self, start: int, stop: int) -> str:
        return self.names[start] if stop == start + 1 else f"{self.names[start]} to {self.names[stop - 1]}"

    def _chunk(self, name: str) -> int:
        chunks = self._data[name].encoding.get("preferred_chunks") or {}
        return int(chunks.get(self._axis, 1))

    def dimensions(self, name: str) -> tuple[str, str, str]:
        """See Store.dimensions."""
        dims = [str(dim) for dim in _squeezed(self._data[name]).dims]
        return (dims[0] if len(dims) == 3 else "sample", dims[-2], dims[-1])

    def sample_axis(self) -> Any:
        """See Store.sample_axis."""
        found = self._axis is not None and self._axis in self._data.coords
        return self._data[self._axis].variable if found else None

    def attributes(self, dimension: str) -> dict[str, Any]:
        """See Store.attributes."""
        return dict(self._data[dimension].attrs) if dimension in self._data.coords else {}

    def check_whole(self, names: tuple[str, ...]) -> None:
        """See Store.check_whole. A chunk that a zarr store lacks reads as its fill value, 0 included."""
        if suffix_of(self.location) not in ZARR:
            return
        import zarr

        group: Any = zarr.open_group(self.location, mode="r")
        for name in names:
            array = group[name]
            absent = array.nchunks - array.nchunks_initialized
            if absent:
                raise DataError(
                    f"{self.location}: {absent} of the {array.nchunks} chunks of {name} were never written, and would"
                    " read as its fill value; write them, or accept that with `--absent-chunks fill`"
                )


def open_dataset(location: str) -> Any:
    """Open a zarr or NetCDF store lazily, as an xarray.Dataset.

    Raises:
        DataError: it does not exist, or is damaged.
    """
    import os

    import xarray as xr

    if not os.path.exists(location):
        raise DataError(f"{location} does not exist")
    try:
        if suffix_of(location) in ZARR:
            return xr.open_zarr(location, chunks=None, consolidated=False)  # a disk is listed at no cost
        return xr.open_dataset(location, chunks=None)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        said = OSError(describe_error(error)) if isinstance(error, OSError) and error.errno else error
        raise damaged(location, said) from error


def _squeezed(array: Any) -> Any:
    """A variable without the dimensions of length 1 between its first and its rows."""
    single = [dim for dim in array.dims[1:-2] if array.sizes[dim] == 1]
    return array.isel(dict.fromkeys(single, 0)) if single else array


def _coordinate(data: Any, dim: str) -> np.ndarray | None:
    if dim not in data.coords or data[dim].ndim != 1 or data[dim].dtype.kind not in "uif":
        return None
    return np.asarray(data[dim].values, np.float64)


def times_of(axis: Any) -> Times | None:
    """The times along a dimension; None if its coordinate is no time."""
    values = np.asarray(axis.values)
    if values.dtype.kind == "M":
        seconds = values.astype("datetime64[s]")
        labels = tuple(np.datetime_as_string(seconds).tolist())
        return Times(seconds.astype(np.int64), labels, "standard")
    if values.dtype.kind != "O" or not values.size or not hasattr(values[0], "calendar"):
        return None
    import cftime

    calendar = values[0].calendar
    since = cftime.date2num(values, "seconds since 1970-01-01", calendar)
    return Times(np.asarray(since, np.int64), tuple(value.isoformat() for value in values), calendar)
