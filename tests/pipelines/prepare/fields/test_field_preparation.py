"""Stores become shards: what is in them, how they are split, and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from pipelines.ingest.fields.split import load_fields
from pipelines.prepare.fields.alignment import check_not_shifted
from pipelines.prepare.fields.filling import coarsened, filled
from pipelines.prepare.fields.measured import Measured, check_splits_agree
from pipelines.prepare.fields.preparation import describe_field_plan, describe_fields, prepare_fields
from pipelines.prepare.finished.verify import verify
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index, load_manifest
from sr3core.errors import ConfigError, DataError
from sr3core.images.resize import area_weights
from sr3core.samples.statistics import Moments
from sr3core.samples.transforms import to_physical
from tests.field_stores import config, smooth, stores, written


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def prepared(places: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    wanted = config(places, tmp_path_factory.mktemp("prepared"))
    described = describe_fields(prepare_fields(wanted))
    assert "high t2m: " in described
    assert "training samples within the gap left out" in described
    return wanted.out


def test_a_shard_holds_what_the_stores_hold(prepared, places):
    high, low = (xr.open_zarr(places / name, chunks=None) for name in ("hr.zarr", "lr.zarr"))
    for split in ("train", "validation", "test"):
        found = load_fields(prepared, "8-32", split)
        assert found.records
        for record in found.records:
            now = high.sel(time=record.meta["name"])
            np.testing.assert_array_equal(record.high, now[["t2m", "u10", "v10", "tp", "q2m"]].to_array().values)
            then = low.sel(time=record.meta["name"]).isel(latitude=slice(None, None, -1))
            np.testing.assert_array_equal(record.low, then[["t2m", "u10", "v10", "tp", "z500"]].to_array().values)
            assert record.static is not None
            np.testing.assert_array_equal(record.static[0], high.orography.values)
    assert verify(prepared) == []


def test_the_network_sees_standardised_values_and_outputs_are_physical_again(prepared):
    found = load_fields(prepared, "8-32", "train")
    high = found.arrays["high"]
    np.testing.assert_allclose(high.std(axis=(0, 2, 3)), 0.5, rtol=1e-4)
    np.testing.assert_allclose(high.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    back = to_physical(high, found.spec.high)
    np.testing.assert_allclose(back, np.stack([r.high for r in found.records]), rtol=1e-3, atol=1e-3)
    assert found.arrays["low"].shape[1] == 6  # five that are made, q2m without an input among them, and z500
    assert np.abs(found.arrays["low"][:, 4]).max() == 0
    assert found.spec.low[0] == found.spec.high[0]


def test_held_out_blocks_are_whole_and_the_gap_is_kept(prepared):
    manifest = load_manifest(f"{prepared}/8-32")
    days = {}
    for split, shards in manifest.splits.items():
        names = [name for shard in shards for name in load_index(f"{prepared}/8-32", shard.name).names]
        days[split] = np.array(names, "datetime64[D]").astype(int)
    assert (len(days["validation"]), len(days["test"])) == (10, 5)
    assert 37 <= len(days["train"]) < 45
    held_out = np.concatenate([days["validation"], days["test"]])
    assert np.abs(days["train"][:, None] - held_out).min() >= 2
    for block in np.unique(held_out // 5):
        assert (held_out // 5 == block).sum() == 5


def test_a_second_run_writes_what_is_missing_and_the_same_bytes(places, tmp_path):
    wanted = config(places, tmp_path, samples_per_shard=10)
    first = prepare_fields(wanted)
    folder = Path(wanted.out) / "8-32"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert prepare_fields(wanted).num_shards_written == 0
    (folder / "train-000001.tar").unlink()
    (folder / "validation-000000.index.json").unlink()
    again = prepare_fields(wanted)
    assert again.num_shards_written == 2
    assert again.spec == first.spec
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name for name in before if before[name] != after[name]} <= {"manifest.json"}
    with pytest.raises(ConfigError, match="begun with another configuration"):
        prepare_fields(replace(wanted, gap="0d"))


def test_statistics_do_not_depend_on_the_number_of_shards(places, tmp_path):
    one = prepare_fields(config(places, tmp_path / "a")).spec
    many = prepare_fields(config(places, tmp_path / "b", samples_per_shard=3)).spec
    for ours, theirs in zip(one.high, many.high, strict=True):
        assert (ours.mean, ours.std) == (pytest.approx(theirs.mean), pytest.approx(theirs.std))


def test_one_variable_is_coarsened_and_crops_are_cut(places, tmp_path):
    wanted = config(
        places,
        tmp_path,
        low=None,
        coarsen=4,
        stages=("4-16",),
        crops_per_image=3,
        high_variables=("t2m",),
        low_variables=(),
        static_variables=(),
        transform=(),
        bounds=(),
    )
    assert "makes t2m (K) from t2m (K)" in describe_field_plan(wanted)
    prepare_fields(wanted)
    found = load_fields(wanted.out, "4-16", "train")
    weights = area_weights(16, 4)
    assert len({record.key for record in found.records}) == len(found.records)
    for record in found.records:
        np.testing.assert_allclose(record.low[0], weights @ record.high[0] @ weights.T, rtol=1e-5, atol=1e-5)
    assert len({tuple(record.meta["window"]) for record in found.records}) > 3


def with_missing(folder: Path) -> Path:
    high, low = stores(folder)
    high.t2m[:, 10:20, 5:25] = np.nan
    high.to_zarr(folder / "hr.zarr")
    low.to_zarr(folder / "lr.zarr")
    return folder


def test_missing_values_are_refused_or_masked(tmp_path):
    folder = with_missing(tmp_path)
    with pytest.raises(DataError, match=r"t2m of 2010-01-01T00:00:00 has 200 missing values .*--missing mask"):
        prepare_fields(config(folder, tmp_path))
    wanted = config(folder, tmp_path, missing="mask")
    summary = prepare_fields(wanted)
    assert summary.spec.valid_share == pytest.approx(1 - 200 / 1024 / 5)
    found = load_fields(wanted.out, "8-32", "train")
    weights = found.arrays["weights"]
    assert (weights[:, 0, 10:20, 5:25] == 0).all()
    assert (found.arrays["high"][:, 0, 10:20, 5:25] == 0).all()
    assert weights.mean() == pytest.approx(1, abs=1e-5)
    assert np.isfinite(found.arrays["low"]).all()


def another(places: Path, folder: Path, change) -> Path:
    high, low = (xr.open_zarr(places / name, chunks=None).load() for name in ("hr.zarr", "lr.zarr"))
    for data in (high, low):
        for variable in data.variables.values():
            variable.encoding = {}
    high, low = change(high, low)
    high.to_zarr(folder / "hr.zarr")
    low.to_zarr(folder / "lr.zarr")
    return folder


def in_celsius(high, low):
    low["t2m"] = low.t2m - 273.15
    low.t2m.attrs["units"] = "degC"
    return high, low


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_celsius, "t2m is in 'K' in .*hr.zarr and in 'degC' in .*lr.zarr"),
        (lambda h, lo: (h.assign(q2m=h.q2m * 0 + 3), lo), "q2m is 3 in all training samples: a constant channel"),
        (
            lambda h, lo: (h, lo.isel(time=slice(1, None))),
            "60 of .* and 59 of .*; only in the first: 2010-01-01",
        ),
        (
            lambda h, lo: (h, lo.assign_coords(longitude=lo.longitude + 1)),
            r"columns of t2m lie \+0.50",
        ),
        (lambda h, lo: (h, lo.assign_coords(latitude=lo.latitude - 1)), "rows of t2m lie -0.50"),
        (lambda h, lo: (h, lo.isel(longitude=slice(1, None))), "32x32 and t2m on one of 8x7"),
        (lambda h, lo: (h, lo.assign(t2m=lo.t2m.roll(longitude=1))), "t2m: the low-resolution input fits .* is moved"),
        (lambda h, lo: (h, lo.assign(t2m=lo.t2m[:, ::-1].values * 1 + 0 * lo.t2m)), "upside down"),
    ],
    ids=["units", "constant", "times", "columns", "rows", "ratio", "shifted", "upside-down"],
)
def test_wrong_data_that_would_train_well_are_refused(places, tmp_path, change, said):
    folder = another(places, tmp_path, change)
    with pytest.raises(DataError, match=said):
        prepare_fields(config(folder, tmp_path, blocks="15d", gap="0d"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split_by": "auto"}, "its neighbours are alike.*--split-by time --blocks"),
        ({"blocks": ""}, "blocks: a split by time needs the length"),
        ({"blocks": "fortnight"}, "'fortnight' is no duration"),
        ({"stages": ("8-16",)}, "8-16 is 2 times, and the grids are 4 times; take a stage such as 8-32"),
        ({"stages": ("16-64",)}, "16-64 is larger than the grid of 32x32; take a stage such as 8-32"),
        ({"low": None, "low_variables": ()}, "make it of the target with `--coarsen 4`"),
        ({"transform": ("tp=exp",)}, "tp=exp, known are none, log1p, quantile, range"),
        ({"coarsen": 4}, "--coarsen makes the input"),
        ({"source": "photos", "low": None}, "is for stores of arrays, and by its name 'photos' is none"),
    ],
)
def test_options_that_do_not_fit_are_refused(places, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        prepare_fields(config(places, tmp_path, **changes))


def test_units_that_differ_between_splits_are_refused():
    kelvin, celsius = (Measured(high={"t2m": Moments.of(np.array([9, 10, 11]) + zero)}) for zero in (273.0, 0.0))
    check_splits_agree([kelvin, kelvin], [kelvin], "validation")
    with pytest.raises(DataError, match=r"t2m has a mean of 10 in the validation .*their units differ"):
        check_splits_agree([kelvin], [celsius], "validation")


def test_too_few_blocks_are_an_error(places, tmp_path):
    with pytest.raises(DataError, match="blocks of 40d, and 3 at least are needed"):
        prepare_fields(config(places, tmp_path, blocks="40d"))


def test_means_are_the_same_bytes_in_any_memory_order_and_know_what_is_missing():
    values = smooth(np.random.default_rng(0), 2, 16)
    weights = area_weights(16, 4)
    np.testing.assert_allclose(coarsened(values, 4), weights @ values.astype(float) @ weights.T, rtol=1e-6, atol=1e-6)
    assert coarsened(np.asfortranarray(values), 4).tobytes() == coarsened(values, 4).tobytes()
    values[0, :4, :2] = np.nan
    assert np.isfinite(coarsened(values, 4)[0, 0, 0])
    values[0, 0, 2] = np.nan
    assert np.isnan(coarsened(values, 4)[0, 0, 0])


def test_unknown_cells_are_filled_from_those_nearest():
    plane = np.full((5, 5), np.nan, np.float32)
    plane[0, 0], plane[4, 4] = 1, 3
    made = filled(plane)
    assert np.isfinite(made).all()
    assert (made[0, 0], made[0, 1], made[4, 3], made[2, 2]) == (1, 1, 3, 2)
    assert np.isnan(filled(np.full((2, 2), np.nan))).all()


def test_a_target_that_is_half_a_cell_away_is_not_said_to_be_a_whole_one():
    values = smooth(np.random.default_rng(0), 4, 32)
    check_not_shifted("t", values, coarsened(np.roll(values, 1, axis=2), 4))


def test_16_bit_grey_images_and_floats_of_four_bands(tmp_path):
    rng = np.random.default_rng(0)
    grey = (2000 * smooth(rng, 12, 16) + 20000).astype(np.uint16)
    np.save(tmp_path / "grey.npy", grey)
    wanted = PrepareConfig(
        source=str(tmp_path / "grey.npy"),
        out=str(tmp_path / "data"),
        stages=("8-16",),
        coarsen=2,
        transform=("c0=range",),
        bounds=("c0=0:65535",),
        validation_fraction=0.2,
    )
    assert prepare_fields(wanted).spec.is_bounded
    found = load_fields(wanted.out, "8-16", "train")
    assert found.records[0].high.dtype == np.uint16
    assert np.abs(found.arrays["high"]).max() < 1
    shutil.rmtree(wanted.out)
