"""Reading stores: zarr, NetCDF, numpy's files and rasters, written here by the programs that users write them with."""

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr

from pipelines.stores.opening import open_store
from sr3core.errors import ConfigError, DataError


def dataset(num_times=6, calendar="standard") -> xr.Dataset:
    rng = np.random.default_rng(0)
    times = xr.date_range(
        "2001-01-01", periods=num_times, freq="D", calendar=calendar, use_cftime=calendar != "standard"
    )
    grid = {"lat": np.linspace(50, 45, 8), "lon": np.linspace(0, 11, 12)}
    made = xr.Dataset(
        {
            "t2m": (("time", "lat", "lon"), rng.normal(280, 5, (num_times, 8, 12)).astype(np.float32), {"units": "K"}),
            "orography": (("lat", "lon"), rng.normal(500, 100, (8, 12)), {"units": "m"}),
            "wind": (("time", "level", "lat", "lon"), rng.normal(0, 1, (num_times, 1, 8, 12)).astype(np.float32)),
        },
        {"time": times, **grid},
    )
    made["crs"] = ((), 0)
    return made


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_variables_times_and_grids_of_a_store(tmp_path, suffix):
    path, data = str(tmp_path / f"a.{suffix}"), dataset()
    data.to_zarr(path) if suffix == "zarr" else data.to_netcdf(path)
    store = open_store(path)
    assert set(store.variables) == {"t2m", "orography", "wind"}
    t2m, orography = store.variables["t2m"], store.variables["orography"]
    assert (t2m.units, t2m.size, t2m.is_map, orography.is_map) == ("K", (8, 12), False, True)
    assert t2m.rows is not None
    np.testing.assert_allclose(t2m.rows, np.linspace(50, 45, 8))
    assert store.times is not None
    assert store.names[:2] == ("2001-01-01T00:00:00", "2001-01-02T00:00:00")
    np.testing.assert_array_equal(np.diff(store.times.seconds), 86400)
    np.testing.assert_array_equal(store.read("t2m", 2, 4), data.t2m.values[2:4])
    np.testing.assert_array_equal(store.read("wind", 0, 1)[0], data.wind.values[0, 0])
    np.testing.assert_allclose(store.read_map("orography"), data.orography.values, rtol=1e-6)


def test_packed_values_are_unpacked_and_fill_values_are_missing(tmp_path):
    data = dataset()
    data.t2m[1, 2, 3] = np.nan
    packed = {"t2m": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 273.0, "_FillValue": -32768}}
    data.to_netcdf(tmp_path / "a.nc", encoding=packed)
    read = open_store(str(tmp_path / "a.nc")).read("t2m", 1, 2)[0]
    assert np.isnan(read[2, 3])
    np.testing.assert_allclose(np.delete(read.ravel(), 27), np.delete(data.t2m.values[1].ravel(), 27), atol=0.006)


def test_a_calendar_of_360_days(tmp_path):
    dataset(calendar="360_day").to_netcdf(tmp_path / "a.nc")
    times = open_store(str(tmp_path / "a.nc")).times
    assert times is not None
    assert times.calendar == "360_day"
    np.testing.assert_array_equal(np.diff(times.seconds), 86400)


def test_a_chunk_that_was_never_written_is_no_zero(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array = group.create_array(
        "t2m", shape=(6, 4, 4), chunks=(2, 4, 4), dtype="f4", dimension_names=("time", "y", "x"), fill_value=0
    )
    array[:4] = 1
    store = open_store(str(tmp_path / "a.zarr"))
    with pytest.raises(DataError, match=r"1 of the 3 chunks of t2m were never written.*--absent-chunks fill"):
        store.check_whole(("t2m",))
    array[4:] = 1
    open_store(str(tmp_path / "a.zarr")).check_whole(("t2m",))


def test_arrays_of_numpy(tmp_path):
    values = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 3, 4, 5)
    np.save(tmp_path / "a.npy", values)
    store = open_store(str(tmp_path / "a.npy"))
    assert list(store.variables) == ["c0", "c1", "c2"]
    assert store.num_samples == 2
    np.testing.assert_array_equal(store.read("c1", 1, 2)[0], values[1, 1])
    np.savez(tmp_path / "b.npz", t=values[:, 0], land=values[0, 0])
    named = open_store(str(tmp_path / "b.npz"))
    assert [v.is_map for v in named.variables.values()] == [False, True]


def write_tiff(path, values, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=len(values),
        height=values.shape[1],
        width=values.shape[2],
        dtype=values.dtype,
        **more,
    ) as file:
        file.write(values)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_folder_of_tiff_of_any_depth(tmp_path):
    rng = np.random.default_rng(0)
    scenes = {name: rng.integers(0, 60000, (4, 10, 12), np.uint16) for name in ("b/two", "one")}
    for name, values in scenes.items():
        write_tiff(tmp_path / f"{name}.tif", values)
    store = open_store(str(tmp_path))
    assert store.names == ("b/two", "one")
    assert list(store.variables) == ["band1", "band2", "band3", "band4"]
    np.testing.assert_array_equal(store.read("band3", 1, 2)[0], scenes["one"][2])
    assert store.variables["band1"].dtype == np.uint16


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_nodata_is_missing(tmp_path):
    values = np.ones((1, 6, 6), np.uint16)
    values[0, 2, 2] = 0
    write_tiff(tmp_path / "a.tif", values, nodata=0)
    read = open_store(str(tmp_path / "a.tif")).read("band1", 0, 1)[0]
    assert np.isnan(read[2, 2])
    assert int(np.isnan(read).sum()) == 1


def make_damaged(tmp_path):
    dataset().to_netcdf(tmp_path / "a.nc")
    whole = (tmp_path / "a.nc").read_bytes()
    (tmp_path / "a.nc").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "a.nc"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (make_damaged, "a.nc cannot be read"),
        (lambda folder: folder / "none.zarr", "none.zarr does not exist"),
        (lambda folder: folder / "none.npy", "none.npy does not exist"),
        (lambda folder: folder, "holds no .tif"),
    ],
)
def test_what_is_no_store_is_said(tmp_path, make, said):
    with pytest.raises(DataError, match=said):
        open_store(str(make(tmp_path)))


def test_a_bucket_is_not_read(tmp_path):
    with pytest.raises(ConfigError, match="are read from disks"):
        open_store("s3://bucket/a.zarr")


def test_a_variable_that_is_not_there(tmp_path):
    dataset().to_netcdf(tmp_path / "a.nc")
    with pytest.raises(ConfigError, match=r"high_variables: .* no variable 't2n', did you mean 't2m'"):
        open_store(str(tmp_path / "a.nc")).choose(("t2n",), "high_variables")
