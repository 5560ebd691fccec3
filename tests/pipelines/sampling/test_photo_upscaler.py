"""The actor that upscales one photo: every kind of photo, tiles, precision, what fails."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.images.decoding import decode_photo
from pipelines.images.rejects import RejectReason
from pipelines.runs.run_folder import open_run
from pipelines.sampling.photo_finder import Photo
from pipelines.sampling.photo_upscaler import PhotoReport, PhotoUpscaler, upscale_alpha
from pipelines.sampling.upscale_records import RECORDS
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.upscale import UpscaleConfig
from sr3core.config import to_dict
from sr3core.diffusion.noise import NoiseField
from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import upsample_bicubic
from sr3core.randomness import derive_seed
from sr3core.upscaling.stage import pad, refine
from tests.pipelines.sampling.photos import picture, saved


def upscaler(run: Path, out: Path, **options: object) -> PhotoUpscaler:
    """The actor's class in this process."""
    config = UpscaleConfig(schedule="2", **options)  # type: ignore[arg-type]
    return PhotoUpscaler(str(run), str(out), to_dict(config), 1, "cpu")


def upscaled(run: Path, folder: Path, data: bytes, **options: object) -> tuple[PhotoReport, Image.Image]:
    """Upscale one photo's bytes without Ray."""
    (folder / "photo").write_bytes(data)
    report = upscaler(run, folder, **options).work((Photo(str(folder / "photo"), "photo"), "out.png"))
    assert report.reason is None, report.detail
    return report, Image.open(report.output)


def test_a_photo_is_the_cascade_of_its_pixels_in_one_piece(cascade_run: Path, tmp_path: Path) -> None:
    """The output is bit-identical to the stages' output for the decoded pixels and the noise of (seed, bytes)."""
    data = saved(picture(0, 13, 21))
    _, image = upscaled(cascade_run, tmp_path, data, seed=5)
    photo = decode_photo(data)
    (record,) = (tmp_path / RECORDS).glob("*.json")
    seed = derive_seed(5, "photo", json.loads(record.read_text())["source"]["sha256"])
    low = to_float(photo.pixels[None])
    torch.set_num_threads(1)
    for stage in [stage.load("2") for stage in open_run(cascade_run).cascade()]:
        height, width = (2 * side for side in low.shape[-2:])
        x_up = pad(upsample_bicubic(low, (height, width)), height + -height % 4, width + -width % 4)
        low = refine(stage, low, x_up, NoiseField(derive_seed(seed, stage.name)).windows([(0, 0)]))
    np.testing.assert_array_equal(np.asarray(image), to_uint8(low)[0])


def test_a_photo_in_bfloat16_differs_by_a_rounding_and_is_another_output(cascade_run: Path, tmp_path: Path) -> None:
    data = saved(picture(0, 13, 21))
    first, image = upscaled(cascade_run, tmp_path, data)
    exact = np.asarray(image).astype(int)
    second, image = upscaled(cascade_run, tmp_path, data, inference=InferenceConfig(precision="bfloat16"))
    rounded = np.asarray(image).astype(int)
    assert first.made
    assert second.made, "what float32 had made does not stand for it"
    assert 0 < np.abs(rounded - exact).mean() < 8
    assert not upscaled(cascade_run, tmp_path, data, inference=InferenceConfig(precision="bfloat16"))[0].made


@pytest.mark.parametrize(
    ("source", "mode"),
    [
        (picture(1, 7, 11), "RGB"),
        (picture(1, 7, 11, 1), "L"),
        (picture(1, 7, 11, 2), "LA"),
        (picture(1, 7, 11, 4), "RGBA"),
        (Image.fromarray(np.full((7, 11), 40_000, np.uint16)), "L"),
        (picture(1, 7, 11).quantize(8), "RGB"),
        (picture(1, 1, 1), "RGB"),
        (picture(1, 1, 19), "RGB"),
        (picture(1, 19, 1, 4), "RGBA"),
    ],
    ids=["rgb", "grey", "grey-alpha", "rgba", "grey-16", "palette", "1x1", "1-high", "1-wide"],
)
def test_every_mode_and_shape(cascade_run: Path, tmp_path: Path, source: Image.Image, mode: str) -> None:
    _, image = upscaled(cascade_run, tmp_path, saved(source), tile=16, overlap=4)
    assert image.mode == mode
    assert image.size == (4 * source.width, 4 * source.height)


def test_transparency_is_bicubic(cascade_run: Path, tmp_path: Path) -> None:
    alpha = np.zeros((12, 16), np.uint8)
    alpha[3:9, 4:12] = 255
    photo = Image.fromarray(np.dstack([np.asarray(picture(2, 12, 16)), alpha]))
    _, image = upscaled(cascade_run, tmp_path, saved(photo), tile=32)
    expected = Image.fromarray(alpha.astype(np.float32)).resize((64, 48), Image.Resampling.BICUBIC)
    assert np.abs(np.asarray(image)[..., 3] - np.clip(np.asarray(expected), 0, 255)).max() <= 0.501


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_orientation_is_applied(cascade_run: Path, tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    _, image = upscaled(cascade_run, tmp_path, saved(picture(3, 6, 10), exif=exif))
    assert image.size == ((24, 40) if orientation == 6 else (40, 24))
    assert 0x0112 not in image.getexif()


def test_tiles_change_a_photo_little_and_batches_of_them_nothing(cascade_run: Path, tmp_path: Path) -> None:
    data = saved(picture(4, 24, 24).resize((24, 24)).convert("RGB"))
    made = {}
    for name, options in {"one": {}, "tiles": {"tile": 48}, "batch": {"tile": 48, "batch": 3}}.items():
        (tmp_path / name).mkdir()
        made[name] = np.asarray(upscaled(cascade_run, tmp_path / name, data, **options)[1]).astype(int)
    assert np.abs(made["tiles"] - made["batch"]).max() <= 1  # convolutions may round differently by batch size
    assert 0 < np.abs(made["tiles"] - made["one"]).mean() < 0.2 * np.abs(made["one"] - made["one"].mean()).mean()


@pytest.mark.parametrize(
    ("data", "options", "reason", "text"),
    [
        (b"", {}, RejectReason.EMPTY, "empty"),
        (b"this is no image", {}, RejectReason.NOT_AN_IMAGE, "no known image format"),
        (saved(picture(0, 9, 9))[:60], {}, RejectReason.TRUNCATED, ""),
        (saved(picture(0, 40, 50)), {"max_megapixels": 0.03}, RejectReason.TOO_LARGE, "--max-megapixels"),
        (saved(picture(0, 1, 5000)), {"format": "webp"}, RejectReason.TOO_LARGE, "16383 pixels a side; use png"),
    ],
    ids=["empty", "text", "cut", "bomb", "format"],
)
def test_what_fails_says_why(
    cascade_run: Path, tmp_path: Path, data: bytes, options: dict, reason: RejectReason, text: str
) -> None:
    (tmp_path / "photo").write_bytes(data)
    report = upscaler(cascade_run, tmp_path, **options).work((Photo(str(tmp_path / "photo"), "photo"), "out"))
    assert report.reason is reason
    assert text in report.detail
    assert os.listdir(tmp_path) == ["photo"], "nothing is left behind"


def test_a_limit_that_is_raised_lets_a_photo_through(cascade_run: Path, tmp_path: Path) -> None:
    _, image = upscaled(cascade_run, tmp_path, saved(picture(0, 40, 50)), max_megapixels=0.033)
    assert image.size == (200, 160)


def test_an_output_that_cannot_be_written_is_that_photos_failure(cascade_run: Path, tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(saved(picture(0, 5, 5)))
    (tmp_path / "out").write_bytes(b"a file where a folder should be")
    actor = upscaler(cascade_run, tmp_path / "out")
    report = actor.work((Photo(str(tmp_path / "photo"), "photo"), "photo.png"))
    assert report.reason is RejectReason.UNWRITTEN


@pytest.mark.parametrize(("height", "width"), [(23, 31), (1, 9), (9, 1), (1, 1)])
def test_alpha_is_upscaled_as_pillow_does_in_floating_point_and_clipped(height: int, width: int) -> None:
    alpha = np.random.default_rng(0).integers(0, 2, (height, width), dtype=np.uint8) * 255
    size = (4 * height, 4 * width)
    exact = Image.fromarray(alpha.astype(np.float32)).resize((4 * width, 4 * height), Image.Resampling.BICUBIC)
    expected = np.clip(np.asarray(exact), 0, 255)
    strips = [upscale_alpha(alpha, size, top, 2) for top in range(0, size[0], 2)]
    assert np.abs(np.concatenate(strips) - expected).max() <= 0.501
