"""The model in the box: whole, small, honest about itself, and better than bicubic on photos that it never saw."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.cli import main
from pipelines.photo_model import PhotoModel, load_model
from pipelines.runs.run_folder import open_run
from pipelines.runs.shipped_models import MODELS
from pipelines.settings.locations import PHOTOS_4X
from pipelines.storage.uris import list_files
from sr3core.checkpoint import verify
from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import downsample_bicubic, upsample_bicubic
from sr3core.metrics.psnr import psnr

FOLDER = MODELS / "photos-4x"


@pytest.fixture(scope="module")
def model() -> PhotoModel:
    return load_model()


def test_it_is_whole_and_small() -> None:
    run = open_run(PHOTOS_4X)
    assert run.location == PHOTOS_4X, "another machine has it in another folder"
    for stage in run.cascade():
        stage.check_weights()
        verify(stage.weights.newest())
        assert stage.mean is not None
        verify(stage.mean.newest())
    assert sum(num_bytes for _, num_bytes in list_files(str(FOLDER))) < 5_000_000


def test_it_names_no_path_of_the_machine_that_trained_it() -> None:
    for name, _ in list_files(str(FOLDER)):
        if not name.endswith(".safetensors"):
            text = (FOLDER / name).read_text(encoding="utf-8").replace("/tmp/sr3-shards", "")  # a default
            assert not re.search(r"/(tmp|home|root|work|mnt)/", text)


def test_its_card_has_what_a_card_needs() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for words in ("license: ", "## Training data", "CC BY 2.0", "| bicubic |", "| this model |", "| regression |"):
        assert words in card
    assert json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))["data"] == ""


def test_it_is_closer_to_unseen_photos_than_bicubic(model: PhotoModel, photos: Path) -> None:
    """Of the bundled photos, the portraits are none of its training images."""
    gains = []
    for path in sorted(photos.glob("portrait-*.jpg"))[:12]:
        high = np.asarray(Image.open(path).convert("RGB"))[None]
        low = to_uint8(downsample_bicubic(to_float(high), high.shape[1] // 4))
        ours = model.upscale(low[0])[None]
        bicubic = to_uint8(upsample_bicubic(to_float(low), high.shape[1]))
        gains.append(float(psnr(ours, high)[0] - psnr(bicubic, high)[0]))
    assert len(gains) == 12
    assert np.mean(gains) > 0.2
    assert np.mean(np.array(gains) > 0) > 0.7


def test_the_command_takes_it_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (20, 30), "teal").save(tmp_path / "photo.png")
    assert main(["upscale", str(tmp_path / "photo.png"), "--out", str(tmp_path / "large"), "--dry-run"]) == 0
    assert "80x120, 1 tile x 11 evaluations" in capsys.readouterr().out


def test_it_is_copied_before_it_is_changed(tmp_path: Path) -> None:
    assert main(["export", PHOTOS_4X, "--out", str(tmp_path / "model")]) == 0
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    ours, theirs = load_model(str(tmp_path / "model")).upscale(pixels), load_model().upscale(pixels)
    np.testing.assert_array_equal(ours, theirs)
