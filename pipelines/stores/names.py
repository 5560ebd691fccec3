"""Names of stores, and what is said of damaged ones."""

from sr3core.errors import DataError

NETCDF = (".nc", ".nc4", ".cdf", ".netcdf")
ZARR = (".zarr",)
NUMPY = (".npy", ".npz")
RASTER = (".tif", ".tiff")


def suffix_of(location: str) -> str:
    """The extension of a place, in small letters."""
    name = location.rstrip("/").rpartition("/")[2]
    return f".{name.rpartition('.')[2].lower()}" if "." in name else ""


def damaged(location: str, error: Exception) -> DataError:
    """The error for a store that its program cannot read."""
    said = str(error).strip().splitlines()
    return DataError(f"{location} cannot be read: {said[0] if said else type(error).__name__}")
