"""Upscaling a store: coordinates, units, ensembles, and continuing where it was interrupted."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from pipelines.photo_model import load_model
from pipelines.playground.model import TriedModel
from pipelines.prepare.fields.preparation import prepare_fields
from pipelines.runs.field_samples import fitted_to_data
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run
from pipelines.sampling.fields.upscale_fields import (
    FieldUpscaler,
    describe_field_upscaling,
    plan_fields,
    run_of_fields,
    upscale_fields,
)
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.presets import preset
from pipelines.settings.upscale import UpscaleConfig
from pipelines.training.worker_group import Team
from pipelines.training.worker_loop import train_as_worker
from sr3core.config import override
from sr3core.errors import ConfigError, DataError
from tests.field_stores import config, written


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def run(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    wanted = config(places, places)
    prepare_fields(wanted)
    fitted = fitted_to_data(preset("fields"), wanted.out)
    changes = {
        "num_steps": 2,
        "model__unet__base_channels": 8,
        "model__objective__residual": "upsampled",
        "num_validation_images": 2,
        "placement__trackers": (),
    }
    only = override(fitted, stages=(override(fitted.stages[0], **changes),))
    made = create_run(
        tmp_path_factory.mktemp("runs") / "run", only, wanted.out, data_fingerprints(wanted.out, only), fresh=False
    )
    train_as_worker(made.stage("fields"), Team(0, 1, torch.device("cpu")), lambda _: None)
    return open_run(made.path)


def few(places: Path, folder: Path, num=3) -> str:
    data = xr.open_zarr(places / "lr.zarr", chunks=None).isel(time=slice(0, num), latitude=slice(None, None, -1)).load()
    for variable in data.variables.values():
        variable.encoding = {}
    data.to_zarr(folder / "in.zarr")
    return str(folder / "in.zarr")


def settings(places: Path, **changes) -> UpscaleConfig:
    return UpscaleConfig(schedule="2", static=str(places / "hr.zarr"), **changes)


@pytest.mark.parametrize("suffix", ["zarr", "nc"])
def test_an_ensemble_has_the_coordinates_of_its_input_refined(run, places, tmp_path, suffix):
    assert run_of_fields(run.location) is not None
    out = str(tmp_path / f"out.{suffix}")
    plan = plan_fields(run, (few(places, tmp_path),), out, settings(places, members=3))
    assert "t2m, u10, v10, tp, q2m on 32x32 cells from 8x8 for 3 samples, 3 members" in describe_field_upscaling(plan)
    assert upscale_fields(plan) == 3
    made = xr.open_zarr(out, chunks=None) if suffix == "zarr" else xr.open_dataset(out)
    truth = xr.open_zarr(places / "hr.zarr", chunks=None)
    assert made.t2m.dims == ("member", "time", "latitude", "longitude")
    assert made.t2m.shape == (3, 3, 32, 32)
    np.testing.assert_allclose(made.latitude, truth.latitude)
    np.testing.assert_allclose(made.longitude, truth.longitude)
    np.testing.assert_array_equal(made.time, truth.time[:3])
    assert made.t2m.attrs["units"] == "K"
    assert made.member.attrs["standard_name"] == "realization"
    np.testing.assert_allclose(made.t2m_mean, made.t2m.mean("member"), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(made.t2m_spread, made.t2m.std("member", ddof=1), rtol=1e-3, atol=1e-4)
    assert (made.t2m_spread > 0).mean() > 0.99
    assert float(made.tp.min()) >= 0
    assert list(tmp_path.glob("*unfinished*")) == []


def test_an_interrupted_ensemble_is_continued_with_the_same_numbers(run, places, tmp_path):
    source = few(places, tmp_path)
    whole = plan_fields(run, (source,), str(tmp_path / "whole.zarr"), settings(places))
    upscale_fields(whole)
    part = plan_fields(run, (source,), str(tmp_path / "part.zarr"), settings(places))
    FieldUpscaler(
        part.run, part.stage, part.source, part.out, {"schedule": "2", "static": part.config.static}, "cpu"
    ).work(1)
    assert upscale_fields(part) == 2
    assert upscale_fields(part) == 0
    ours, theirs = (xr.open_zarr(plan.out, chunks=None) for plan in (whole, part))
    np.testing.assert_array_equal(ours.t2m, theirs.t2m)
    other = plan_fields(run, (source,), part.out, settings(places, seed=1))
    with pytest.raises(DataError, match="was made with other settings"):
        upscale_fields(other)


def test_tiles_of_a_store_are_those_of_one_piece_nearly(run, places, tmp_path):
    source = few(places, tmp_path, 1)
    made = []
    for name, tile in (("a", None), ("b", 16)):
        plan = plan_fields(run, (source,), str(tmp_path / f"{name}.zarr"), settings(places, tile=tile))
        upscale_fields(plan)
        made.append(xr.open_zarr(plan.out, chunks=None).t2m.values)
    assert made[0].shape == made[1].shape
    assert np.abs(made[0] - made[1]).mean() < 0.2 * made[0].std()


def without_z500(data):
    return data.drop_vars("z500")


def in_celsius(data):
    data.t2m.attrs["units"] = "degC"
    return data


@pytest.mark.parametrize(
    ("change", "settings", "error", "said"),
    [
        (without_z500, {}, ConfigError, "images: .*no variable 'z500'"),
        (in_celsius, {}, DataError, "t2m is in 'degC', and the model was trained on 'K'"),
        (None, {"static": None}, ConfigError, "static: the model takes orography"),
        (None, {"out": "out.png"}, ConfigError, "neither a .zarr nor a NetCDF file"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(run, places, tmp_path, change, settings, error, said):
    data = xr.open_zarr(places / "lr.zarr", chunks=None).isel(time=[0]).load()
    data = change(data) if change else data
    for variable in data.variables.values():
        variable.encoding = {}
    data.to_zarr(tmp_path / "in.zarr")
    wanted = UpscaleConfig(schedule="2", static=settings.get("static", str(places / "hr.zarr")))
    with pytest.raises(error, match=said):
        plan_fields(run, (str(tmp_path / "in.zarr"),), str(tmp_path / settings.get("out", "out.zarr")), wanted)


def test_missing_values_in_the_input_are_refused(run, places, tmp_path):
    data = xr.open_zarr(places / "lr.zarr", chunks=None).isel(time=[0]).load()
    data.t2m[0, 2, 2] = np.nan
    for variable in data.variables.values():
        variable.encoding = {}
    data.to_zarr(tmp_path / "in.zarr")
    plan = plan_fields(run, (str(tmp_path / "in.zarr"),), str(tmp_path / "out.zarr"), settings(places))
    with pytest.raises(DataError, match="t2m of 2010-01-01T00:00:00 has missing values; fill them"):
        upscale_fields(plan)


def test_a_model_of_fields_enlarges_no_photos(run):
    for load in (load_model, lambda location: TriedModel(location, InferenceConfig(), "cpu")):
        with pytest.raises(ConfigError, match="its model is of fields, not of images; use `sr3 upscale STORE"):
            load(run.location)
