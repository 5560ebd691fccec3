"""Stores of fields as unrelated programs would write them, for tests that prepare and train on them."""

from pathlib import Path

import numpy as np
import xarray as xr

from pipelines.prepare.fields.filling import coarsened
from pipelines.settings.prepare import PrepareConfig

NUM_TIMES, SIZE, SCALE = 60, 32, 4


def smooth(rng, num, size) -> np.ndarray:
    """Fields that differ from cell to cell and have large structures, (num, size, size)."""
    waves = np.fft.rfft2(rng.normal(0, 1, (num, size, size)))
    k = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    made = np.fft.irfft2(waves / (0.05 + k) ** 2, s=(size, size))
    return (made / made.std()).astype(np.float32)


def stores(folder: Path, num_times=NUM_TIMES) -> tuple[xr.Dataset, xr.Dataset]:
    """A high-resolution store of five variables and an orography, and a low-resolution one, as unrelated programs
    would write them: latitudes of the second run the other way."""
    rng = np.random.default_rng(7)
    times = xr.date_range("2010-01-01", periods=num_times, freq="D")
    lat, lon = np.linspace(60, 44.5, SIZE), np.linspace(0, 15.5, SIZE)
    names = {"t2m": "K", "u10": "m s-1", "v10": "m s-1", "tp": "mm", "q2m": "kg kg-1"}
    fields = {name: 3 * smooth(rng, num_times, SIZE) + number for number, name in enumerate(names)}
    fields["tp"] = np.exp(fields["tp"]).astype(np.float32)
    dims = ("time", "latitude", "longitude")
    high = xr.Dataset({n: (dims, v, {"units": names[n]}) for n, v in fields.items()})
    high["orography"] = (dims[1:], 100 * smooth(rng, 1, SIZE)[0], {"units": "m"})
    high = high.assign_coords(time=times, latitude=lat, longitude=lon)
    means = {n: (dims, coarsened(fields[n], SCALE), {"units": names[n]}) for n in ("t2m", "u10", "v10", "tp")}
    means["z500"] = (dims, 50 * smooth(rng, num_times, SIZE // SCALE), {"units": "m2 s-2"})
    low = xr.Dataset(means).assign_coords(
        time=times, latitude=lat.reshape(-1, SCALE).mean(1), longitude=lon.reshape(-1, SCALE).mean(1)
    )
    return high, low.isel(latitude=slice(None, None, -1))


def config(places: Path, out: Path, **changes) -> PrepareConfig:
    settings = {
        "source": str(places / "hr.zarr"),
        "low": str(places / "lr.zarr"),
        "stages": ("8-32",),
        "high_variables": ("t2m,u10,v10,tp,q2m",),
        "low_variables": ("t2m,u10,v10,tp,z500",),
        "static_variables": ("orography",),
        "transform": ("tp=log1p",),
        "bounds": ("tp=0:",),
        "split_by": "time",
        "blocks": "5d",
        "gap": "1d",
        "validation_fraction": 0.2,
        "test_fraction": 0.1,
    }
    return PrepareConfig(out=str(out / "data"), **(settings | changes))


def written(folder: Path, num_times: int = NUM_TIMES) -> Path:
    """The folder with hr.zarr and lr.zarr in it."""
    for name, data in zip(("hr", "lr"), stores(folder, num_times), strict=True):
        data.to_zarr(folder / f"{name}.zarr")
    return folder
