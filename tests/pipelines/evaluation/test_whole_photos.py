"""Evaluation of a run on whole photos: shrunk, upscaled in tiles, measured as photos and as patches."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster.cli import main
from pipelines.evaluation.whole_photos import PATCH, PATCHES_PER_PHOTO, patch_corners
from pipelines.sampling.held_out_images import shrunk_size
from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import resize_bicubic, upsample_bicubic
from sr3core.metrics.psnr import psnr
from tests.untrained_runs import untrained_run


def test_a_photo_is_cut_to_what_shrinks_to_whole_pixels() -> None:
    assert shrunk_size(67, 130, Fraction(4)) == (16, 32)
    assert shrunk_size(260, 255, Fraction(128, 25)) == (50, 25)


@pytest.mark.parametrize("size", [(128, 128), (90, 300), (1000, 700)])
def test_patches_lie_in_the_photo_and_do_not_overlap(size: tuple[int, int]) -> None:
    corners = patch_corners(*size)
    assert 1 <= len(corners) <= PATCHES_PER_PHOTO
    covered = np.zeros(size, int)
    for top, left in corners:
        covered[top : top + PATCH, left : left + PATCH] += 1
    assert covered.max() == 1
    assert all(top + min(PATCH, size[0]) <= size[0] and left + min(PATCH, size[1]) <= size[1] for top, left in corners)


def test_photos_of_any_sides_are_shrunk_upscaled_and_measured(
    photos: Path, tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipelines.evaluation.networks.find_inception", lambda: None)
    (tmp_path / "photos").mkdir()
    one, other = sorted(photos.glob("*.jpg"))[:2]
    Image.open(one).convert("RGB").resize((150, 71)).save(tmp_path / "photos" / "wide.png")
    Image.open(other).convert("RGB").resize((64, 131)).save(tmp_path / "photos" / "tall.png")
    untrained_run(tmp_path / "run", 16, 64)
    command = ["evaluate", "--run", str(tmp_path / "run"), "--photos", str(tmp_path / "photos"), "--schedule", "1"]
    assert main([*command, "--num-distance-resamples", "0"]) == 0
    result = json.loads((tmp_path / "run" / "photos.json").read_text())
    assert (result["num_images"], result["keys"]) == (2, ["tall", "wide"])
    assert [method["name"] for method in result["methods"]] == ["nearest", "bicubic", "16-64-regression", "sr3"]
    assert all(metric in result["methods"][-1] for metric in ("psnr", "ssim", "consistency", "kid"))
    made = tmp_path / "run" / "photos" / "upscaled"
    for name, size in {"reference": (148, 68), "low": (37, 17), "sr3": (148, 68)}.items():
        assert Image.open(made / name / "wide.png").size == size
    ratios = []
    for name in ("tall", "wide"):
        photo = np.asarray(Image.open(tmp_path / "photos" / f"{name}.png"))
        photo = photo[: photo.shape[0] // 4 * 4, : photo.shape[1] // 4 * 4]
        low = resize_bicubic(photo, (photo.shape[0] // 4, photo.shape[1] // 4))
        large = to_uint8(upsample_bicubic(to_float(low[None]), photo.shape[:2]))
        ratios.append(psnr(large, photo[None])[0])
    assert result["methods"][1]["psnr"]["mean"] == pytest.approx(np.mean(ratios), abs=1e-6)
    assert len(list((tmp_path / "run" / "photos" / "patches" / "sr3").glob("*.png"))) == 2
    assert "whole photos" in result["setting"]
    assert "patches" in " ".join(capsys.readouterr().out.split())


def test_a_photo_that_leaves_nothing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((31, 80, 3), np.uint8)).save(tmp_path / "photos" / "thin.png")
    untrained_run(tmp_path / "run", 16, 64)
    command = ["evaluate", "--run", str(tmp_path / "run"), "--photos", str(tmp_path / "photos"), "--dry-run"]
    assert main(command) == 1
    assert "too small to be shrunk 4 times, which must leave 8 pixels: thin (31x80)" in " ".join(
        capsys.readouterr().err.split()
    )
