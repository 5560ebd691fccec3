"""A folder of GeoTIFF to write: a file for each member of each input on a finer grid, and their mean and spread."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.storage.uris import write_atomic
from pipelines.storage.versioned_json import read_object
from pipelines.stores.raster_store import RasterStore, opened
from sr3core import strict_json
from sr3core.errors import DataError
from sr3core.samples.spec import Channel

_MARKER = "sr3.json"
"""File that says how a folder is made."""


class RefinedRasters:
    """NAME.tif of a single member; of several NAME-00.tif, NAME-01.tif, ..., NAME_mean.tif and NAME_spread.tif.

    Coordinate system and transform are the input's, with smaller cells; bands are named after their channels. Channels
    that lie between bounds of 8 or 16 bits, as in the input, are written so; all others as 32-bit floats.

    Args:
        folder: an unfinished one is continued.
        source: the input.
        channels: what is written.
        members: size of the ensembles.
        attributes: how it is made.

    Raises:
        DataError: the folder was made with other settings, or holds other files.
    """

    def __init__(
        self, folder: str, source: RasterStore, channels: Sequence[Channel], members: int, attributes: dict[str, Any]
    ) -> None:
        self._folder, self._source, self._channels, self._members = Path(folder), source, channels, members
        marker = self._folder / _MARKER
        if self._folder.is_dir() and any(self._folder.iterdir()) and read_object(marker) != attributes:
            raise DataError(f"{folder} was made with other settings, or is no output of sr3; choose another --out")
        write_atomic(str(marker), strict_json.dumps(attributes).encode())

    @property
    def missing(self) -> list[int]:
        """Numbers of the samples that are not complete."""
        return [number for number in range(self._source.num_samples) if not self._files(number)[-1].is_file()]

    def write(self, number: int, fields: np.ndarray) -> None:
        """Write a sample, (M, C, H, W); the last of its files marks it complete."""
        planes = list(fields)
        if self._members > 1:
            exact = fields.astype(np.float64)
            planes += [exact.mean(axis=0), exact.std(axis=0, ddof=1)]
        for path, bands in zip(self._files(number), planes, strict=True):
            self._write(number, path, bands)

    def _files(self, number: int) -> list[Path]:
        name = self._source.names[number].replace("#", "-")
        if self._members == 1:
            return [self._folder / f"{name}.tif"]
        ends = [*(f"-{member:02d}" for member in range(self._members)), "_mean", "_spread"]
        return [self._folder / f"{name}{end}.tif" for end in ends]

    def _write(self, number: int, path: Path, bands: np.ndarray) -> None:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning

        dtype = self._dtype() if not path.stem.endswith(("_mean", "_spread")) else np.dtype("float32")
        values = np.round(bands).astype(dtype) if dtype.kind == "u" else bands.astype(dtype)
        place = self._place(number, bands.shape[-2:])
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.writing")
        count, height, width = bands.shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(
                temporary, "w", "GTiff", width, height, count, dtype=dtype.name, compress="deflate", **place
            ) as file:
                file.write(values)
                file.descriptions = tuple(channel.name for channel in self._channels)
        os.replace(temporary, path)

    def _place(self, number: int, size: tuple[int, int]) -> dict[str, Any]:
        """Coordinate system and transform of the output."""
        with opened(self._source.path_of(number)) as file:
            scale = file.transform.scale(file.width / size[1], file.height / size[0])
            return {"crs": file.crs, "transform": file.transform * scale} if file.crs else {}

    def _dtype(self) -> np.dtype[Any]:
        dtypes = {variable.dtype for variable in self._source.variables.values()}
        dtype = next(iter(dtypes)) if len(dtypes) == 1 else np.dtype("float32")
        if dtype.kind == "u" and all(self._fits(channel, dtype) for channel in self._channels):
            return dtype
        return np.dtype("float32")

    def _fits(self, channel: Channel, dtype: np.dtype[Any]) -> bool:
        lowest, highest = channel.lowest, channel.highest
        return lowest is not None and highest is not None and lowest >= 0 and highest <= np.iinfo(dtype).max
