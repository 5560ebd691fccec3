"""Opening a store by its name: which program reads it."""

import importlib.util

from pipelines.storage.uris import is_remote
from pipelines.stores.names import NETCDF, NUMPY, ZARR, suffix_of
from pipelines.stores.store import Store
from sr3core.errors import ConfigError

_EXTRAS = {"xarray": "arrays", "zarr": "arrays", "netCDF4": "arrays", "rasterio": "rasters"}


def open_store(location: str) -> Store:
    """Open a store for reading: a zarr, NetCDF or numpy file by its extension, anything else as rasters.

    Raises:
        ConfigError: the extra that reads it is not installed, or it is in a bucket.
        DataError: it does not exist, or is damaged.
    """
    if is_remote(location):
        raise ConfigError(f"{location}: stores of arrays are read from disks; copy it, or mount the bucket")
    suffix = suffix_of(location)
    if suffix in NUMPY:
        from pipelines.stores.numpy_store import NumpyStore

        return NumpyStore(location)
    if suffix in (*NETCDF, *ZARR):
        require_packages("xarray", "zarr" if suffix in ZARR else "netCDF4")
        from pipelines.stores.xarray_store import XarrayStore

        return XarrayStore(location)
    require_packages("rasterio")
    from pipelines.stores.raster_store import RasterStore

    return RasterStore(location)


def require_packages(*names: str) -> None:
    """Check that packages of the extras are installed.

    Raises:
        ConfigError: one is not; names the extra.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            extra = _EXTRAS[name]
            raise ConfigError(f"the package {name} is missing: install the extra, `pip install 'sr3-on-ray[{extra}]'`")
