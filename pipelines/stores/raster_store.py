"""Rasters through rasterio: TIFF of any depth, GeoTIFF and what else GDAL reads; a file, or a folder of them."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.stores.names import RASTER, damaged, suffix_of
from pipelines.stores.store import Store, Variable
from sr3core.errors import DataError

_KEPT = (np.dtype("uint8"), np.dtype("uint16"), np.dtype("float16"), np.dtype("float32"))


class RasterStore(Store):
    """Every file is a sample, every band a variable: by its description, or band1, band2, ...

    A TIFF of several pages is a stack, of which every page is a sample.

    Raises:
        DataError: there are no rasters, or they are damaged, or of different bands.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._paths = dict(_pages(location))
        if not self._paths:
            raise DataError(f"{location} holds no .tif or .tiff")
        self.names = tuple(self._paths)
        with opened(self.path_of(0)) as file:
            bands, size = band_names(file), (file.height, file.width)
            dtype = np.dtype(file.dtypes[0])
            masked = file.nodata is not None
        kept = np.dtype("float32") if masked or dtype not in _KEPT else dtype
        self._bands = bands
        self.variables = {name: Variable(name, "", size, False, kept) for name in bands}

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """See Store.read; all samples from start to stop must be of one size."""
        return np.stack([self._read(name, number) for number in range(start, stop)])

    def _read(self, name: str, number: int) -> np.ndarray:
        with opened(self.path_of(number)) as file:
            if band_names(file) != self._bands:
                raise DataError(
                    f"{self.path_of(number)} has the bands {', '.join(band_names(file))}, the first file"
                    f" {', '.join(self._bands)}"
                )
            band, dtype = self._bands.index(name) + 1, self.variables[name].dtype
            values = file.read(band)
            if file.nodata is not None:
                values = np.where(file.read_masks(band) > 0, values.astype(np.float32), np.float32(np.nan))
            return values.astype(dtype)

    def path_of(self, number: int) -> str:
        """Place of a sample, which rasterio opens."""
        return self._paths[self.names[number]]


def _pages(location: str) -> Iterator[tuple[str, str]]:
    """Name and place of every sample."""
    folder = Path(location)
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if suffix_of(p.name) in RASTER)
    for path in files:
        name = path.name if folder.is_file() else path.relative_to(folder).as_posix()
        with opened(str(path)) as file:
            pages = file.subdatasets
        if not pages:
            yield os.path.splitext(name)[0], str(path)
        for number, page in enumerate(pages):
            yield f"{os.path.splitext(name)[0]}#{number:05d}", page


@contextmanager
def opened(path: str) -> Iterator[Any]:
    """A raster that is open for reading.

    Raises:
        DataError: it does not exist, or is damaged.
    """
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        try:
            with rasterio.open(path) as file:
                yield file
        except (RasterioError, OSError) as error:
            raise damaged(path, error) from error


def band_names(file: Any) -> tuple[str, ...]:
    """The bands of a raster, by their descriptions where all have one."""
    described = tuple(text or "" for text in file.descriptions)
    if all(described) and len(set(described)) == len(described):
        return described
    return tuple(f"band{number}" for number in range(1, file.count + 1))
