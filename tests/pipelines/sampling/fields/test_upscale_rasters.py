"""TIFF from end to end: 16-bit grey images and scenes of four float bands are prepared, trained on, and upscaled."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from pipelines.prepare.fields.filling import coarsened
from pipelines.prepare.fields.preparation import prepare_fields
from pipelines.runs.run_folder import Run
from pipelines.sampling.fields.upscale_fields import plan_fields, upscale_fields
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.upscale import UpscaleConfig
from sr3core.errors import ConfigError, DataError
from tests.field_runs import trained
from tests.field_stores import smooth

NAMES = ("B02", "B03", "B04", "B08")
SIZE, SCALE = 32, 4
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def write(path: Path, values: np.ndarray, **more) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = values.shape
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype=values.dtype, **more) as file:
        file.write(values)
        if count == len(NAMES):
            file.descriptions = NAMES


def made(kind: str, folder: Path) -> Run:
    """A tiny run on 24 scenes, with inputs for it in folder/low."""
    rng = np.random.default_rng(1)
    count = 1 if kind == "grey" else 4
    fields = smooth(rng, 24 * count, SIZE).reshape(24, count, SIZE, SIZE)
    scenes = (30000 + 8000 * fields).clip(0, 65535).astype(np.uint16) if kind == "grey" else fields
    for number, scene in enumerate(scenes):
        write(folder / "high" / f"s{number:02d}.tif", scene)
    place = {"crs": "EPSG:32632", "transform": from_origin(500000, 5000000, 40, 40)}
    for number, low in enumerate((scenes[0], scenes[1, :, :16, :24])):
        small = coarsened(low, SCALE).astype(scenes.dtype)
        write(folder / "low" / "deep" / f"s{number}.tif", small, **(place if kind == "float" else {}))
    is_grey = kind == "grey"
    config = PrepareConfig(
        source=str(folder / "high"),
        out=str(folder / "data"),
        stages=(f"{SIZE // SCALE}-{SIZE}",),
        layout="tiff",
        coarsen=SCALE,
        split_by="name",
        validation_fraction=0.2,
        test_fraction=0.2,
        transform=("band1=range",) if is_grey else (),
        bounds=("band1=0:65535",) if is_grey else (),
    )
    prepare_fields(config)
    return trained(folder / "run", config.out)


def read(path: Path) -> tuple[np.ndarray, dict]:
    with rasterio.open(path) as file:
        return file.read(), {"crs": file.crs, "transform": file.transform, "names": file.descriptions}


def test_sixteen_bit_grey_images_come_out_as_such(tmp_path: Path) -> None:
    run = made("grey", tmp_path)
    plan = plan_fields(run, (str(tmp_path / "low"),), str(tmp_path / "out"), UpscaleConfig(schedule="2"))
    assert upscale_fields(plan) == 2
    values, _ = read(tmp_path / "out" / "deep" / "s0.tif")
    assert values.dtype == np.uint16
    assert values.shape == (1, 32, 32)
    truth, _ = read(tmp_path / "high" / "s00.tif")
    assert np.corrcoef(values.ravel(), truth.ravel())[0, 1] > 0.5
    assert read(tmp_path / "out" / "deep" / "s1.tif")[0].shape == (1, 16, 24), "each of its own size"
    assert upscale_fields(plan) == 0


def test_scenes_keep_their_bands_and_places_in_ensembles(tmp_path: Path) -> None:
    run = made("float", tmp_path)
    plan = plan_fields(run, (str(tmp_path / "low"),), str(tmp_path / "out"), UpscaleConfig(schedule="2", members=3))
    assert upscale_fields(plan) == 2
    members = [read(tmp_path / "out" / "deep" / f"s1-{member:02d}.tif")[0] for member in range(3)]
    mean, place = read(tmp_path / "out" / "deep" / "s1_mean.tif")
    assert place["names"] == NAMES
    assert place["crs"].to_epsg() == 32632
    assert place["transform"] == from_origin(500000, 5000000, 10, 10)
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, np.mean(members, 0), rtol=1e-4, atol=1e-5)
    spread, _ = read(tmp_path / "out" / "deep" / "s1_spread.tif")
    np.testing.assert_allclose(spread, np.std(members, 0, ddof=1), rtol=1e-3, atol=1e-4)
    (tmp_path / "out" / "deep" / "s1_spread.tif").unlink()
    assert upscale_fields(plan) == 1, "the last file of a sample says that it is complete"
    other = plan_fields(run, (plan.source,), plan.out, UpscaleConfig(schedule="2", members=2))
    with pytest.raises(DataError, match="was made with other settings"):
        upscale_fields(other)
    with pytest.raises(ConfigError, match="is to be a folder"):
        plan_fields(run, (plan.source,), str(tmp_path / "out.zarr"), UpscaleConfig())
