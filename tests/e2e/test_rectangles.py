"""A stage of rectangles through the commands: prepared, trained, measured, upscaling, reported."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.cli import main
from pipelines.ingest.split_reader import load_split
from pipelines.runs.run_folder import open_run
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from sr3core.config import override, to_dict
from tests.preparing import prepared

STAGE = "8x12-16x24"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, photos: Path, ray_session: None) -> Path:
    """A run that was trained on 16x24 images for a few steps, in this process."""
    folder = tmp_path_factory.mktemp("wide")
    data = prepared(photos, folder, 20, STAGE, test_fraction=0.2)
    stage = override(
        small_stage((8, 12), (16, 24), base_channels=8, num_steps=6, num_workers=0), num_validation_images=2
    )
    (folder / "wide.json").write_text(json.dumps(to_dict(RunConfig(name="wide", stages=(stage,)))))
    arguments = ["train", "--config", str(folder / "wide.json"), "--data", data, "--out", str(folder / "run")]
    assert main(arguments) == 0
    return folder / "run"


def test_records_are_the_largest_central_crops_of_the_stages_shape(run: Path) -> None:
    (stage,) = open_run(run).cascade()
    images = load_split(stage.data, STAGE, "train")
    assert (images.high.shape[1:], images.low.shape[1:]) == ((16, 24, 3), (8, 12, 3))


def test_rectangles_are_measured_and_reported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--run", str(run), "--schedule", "2", "--limit", "2"]) == 0
    sr3 = json.loads((run / "evaluation.json").read_text())["methods"][-1]
    assert sr3["name"] == "sr3"
    assert np.isfinite(sr3["psnr"]["mean"])
    assert main(["report", str(run)]) == 0
    assert "8×12 → 16×24" in (run / "report.html").read_text()


def test_photos_of_any_side_are_upscaled(run: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((13, 7, 3), 90, np.uint8)).save(tmp_path / "odd.png")
    assert main(["upscale", str(tmp_path / "odd.png"), "--run", str(run), "--out", str(tmp_path / "large")]) == 0
    assert Image.open(tmp_path / "large" / "odd.png").size == (14, 26)
