"""The Python interface: the same pixels as the command's path, arrays and PIL images, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.photo_model import PhotoModel, load_model
from pipelines.runs.run_folder import open_run
from sr3core.errors import ConfigError, DataError
from sr3core.images.pixels import to_float, to_uint8
from sr3core.upscaling.tile_grid import Tiling
from sr3core.upscaling.tiles import run_tiled_cascade
from tests.pipelines.sampling.photos import picture


@pytest.fixture(scope="module")
def model(cascade_run: Path) -> PhotoModel:
    return load_model(str(cascade_run), schedule="2")


def test_an_array_is_upscaled_by_the_whole_cascade(model: PhotoModel, cascade_run: Path) -> None:
    pixels = np.asarray(picture(0, 8, 12))
    upscaled = model.upscale(pixels, seed=3)
    stages = [stage.load("2") for stage in open_run(cascade_run).cascade()]
    assert upscaled.shape == (32, 48, 3)
    assert model.magnification == 4
    ((top, strip),) = run_tiled_cascade(stages, to_float(pixels[None]), 3, Tiling())
    assert top == 0, "one tile"
    np.testing.assert_array_equal(upscaled, to_uint8(strip)[0])
    assert (upscaled != model.upscale(pixels, seed=4)).any()


def test_tiles_cover_the_picture(model: PhotoModel) -> None:
    pixels = np.asarray(picture(0, 30, 21))
    whole, tiled = model.upscale(pixels), model.upscale(pixels, tile=64, overlap=32, batch=2)
    assert whole.shape == tiled.shape == (120, 84, 3)
    assert np.abs(whole.astype(int) - tiled.astype(int)).mean() < 5


def test_a_pil_image_is_turned_as_its_orientation_says(model: PhotoModel) -> None:
    pixels = np.asarray(picture(0, 8, 12))
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = 6  # the camera was turned: shown, the left column is the top row
    upscaled = model.upscale(image)
    assert upscaled.size == (32, 48)
    np.testing.assert_array_equal(np.asarray(upscaled), model.upscale(np.rot90(pixels, -1).copy()))


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 4), (0, 8, 3)])
def test_what_is_no_picture_is_refused(model: PhotoModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"picture: uint8 \(.*\) is not a uint8 array \(h, w, 3\)"):
        model.upscale(np.zeros(shape, np.uint8))
    with pytest.raises(ConfigError, match="picture: float32"):
        model.upscale(np.zeros((8, 8, 3), np.float32))


def test_a_cascade_without_a_base_model_draws_nothing(model: PhotoModel) -> None:
    with pytest.raises(ConfigError, match=r"holds no base model, .*: use upscale\(\)"):
        model.sample([0])


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path} is not a run"):
        load_model(str(tmp_path))
