"""`sr3 upscale` on a small real run: every kind of photo, tiles, S3, what is done, what fails, and being killed."""

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.cli import main
from pipelines.images.decoding import decode_photo
from pipelines.images.rejects import RejectReason
from pipelines.runs.run_folder import open_run
from pipelines.sampling.photo_finder import Photo
from pipelines.sampling.photo_upscaler import PhotoUpscaler
from pipelines.sampling.upscale import PhotoReport, UpscaleProgress, checked_run, upscale_photos
from pipelines.sampling.upscale_records import RECORDS
from pipelines.settings.inference import InferenceConfig
from pipelines.settings.upscale import UpscaleConfig
from sr3core.cascade import pad, refine
from sr3core.config import to_dict
from sr3core.diffusion.schedules import SCHEDULE_FORMAT_VERSION
from sr3core.errors import ConfigError
from sr3core.images.pixels import to_float, to_uint8
from sr3core.images.resize import upsample_bicubic
from sr3core.randomness import NoiseField, derive_seed
from tests.commands import run_sr3, start_sr3
from tests.processes import wait_for
from tests.s3_server import S3Server

FAST = UpscaleConfig(schedule="2", num_actors=2)


def quiet(_: UpscaleProgress) -> None:
    """Progress that nobody reads."""


def picture(seed: int, height: int, width: int, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


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


def outputs(folder: Path) -> dict[str, bytes]:
    """Images and the records of what they were made of."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("gammas", "message"),
    [
        ([1.0, 0.5, 0.6, 0.1], r"odd\.json: .*gammas must fall strictly; they rise after t = 1$"),
        ([1.0, 1.5, 0.1], r"odd\.json: .*gammas must fall strictly; they rise after t = 0$"),
        ([1.0, 0.5, 0.0], r"odd\.json: .*gammas must stay in \(0, 1\]; the last is 0\.0$"),
        ([1.0, 0.5, 1e-30], r"odd\.json: gammas end at 1e-30, below the smallest noise level trained"),
    ],
)
def test_a_schedule_that_cannot_be_walked_is_refused_before_any_work(
    cascade_run: Path, tmp_path: Path, gammas: list[float], message: str
) -> None:
    (tmp_path / "odd.json").write_text(json.dumps({"gammas": gammas, "format_version": SCHEDULE_FORMAT_VERSION}))
    with pytest.raises(ConfigError, match=message):
        checked_run(str(cascade_run), UpscaleConfig(schedule=str(tmp_path / "odd.json")))


# --- one photo --------------------------------------------------------------------------------------------------------


def test_a_photo_is_the_cascade_of_its_pixels_in_one_piece(cascade_run: Path, tmp_path: Path) -> None:
    """What is written is, bit for bit, what the stages make of the decoded pixels on the noise of (seed, bytes)."""
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
    _, image = upscaled(cascade_run, tmp_path, saved(Image.fromarray(np.dstack([picture(2, 12, 16), alpha]))), tile=32)
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
        (saved(picture(0, 1, 5000)), {"format": "webp"}, RejectReason.TOO_LARGE, "16383 pixels a side; take png"),
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


# --- many photos ------------------------------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Photos of four kinds in two folders, and a file that is none."""
    folder = tmp_path / "album"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(saved(picture(0, 9, 14), "JPEG"))
    (folder / "b.png").write_bytes(saved(picture(1, 12, 5, 4)))
    (folder / "deep" / "c.webp").write_bytes(saved(picture(2, 7, 7), "WEBP"))
    (folder / "text.png").write_text("this is no image")
    return folder


def test_the_others_go_on_and_a_second_run_makes_what_changed(
    album: Path, cascade_run: Path, tmp_path: Path, ray_session: None, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    command = ["upscale", str(album), "--run", str(cascade_run), "--out", str(out), "--recursive", "--num-actors", "2"]
    assert main([*command, "--schedule", "2", "--dry-run"]) == 0
    assert "c.png: would be made (not there yet)" in capsys.readouterr().out
    assert not out.exists()

    assert main([*command, "--schedule", "2"]) == 1
    text = capsys.readouterr().out
    assert "text.png: not_an_image:" in text
    assert "3 of 4 images upscaled" in text
    assert Image.open(out / "a.png").size == (56, 36)
    assert Image.open(out / "b.png").mode == "RGBA"
    assert Image.open(out / "deep" / "c.png").size == (28, 28)

    before = {name: (out / name).stat().st_mtime_ns for name in outputs(out)}
    (album / "text.png").unlink()
    assert main([*command, "--schedule", "2"]) == 0
    assert "0 of 3 images upscaled" in capsys.readouterr().out
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before

    (album / "a.jpg").write_bytes(saved(picture(9, 9, 14), "JPEG"))
    os.truncate(out / "deep" / "c.png", 40)
    old = (out / "b.png").read_bytes()
    assert main([*command, "--schedule", "2"]) == 0
    assert "2 of 3 images upscaled" in capsys.readouterr().out
    assert (out / "b.png").read_bytes() == old
    assert Image.open(out / "deep" / "c.png").size == (28, 28)

    assert main([*command, "--schedule", "3", "--dry-run"]) == 0
    assert "'respaced-2' -> 'respaced-3'" in capsys.readouterr().out
    assert main([*command, "--schedule", "3"]) == 0
    assert "3 of 3 images upscaled" in capsys.readouterr().out
    assert (out / "b.png").read_bytes() != old


def test_a_file_that_is_not_ours_is_not_replaced(
    album: Path, cascade_run: Path, tmp_path: Path, ray_session: None
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"somebody's own")
    (report,) = upscale_photos(str(cascade_run), [str(album / "a.jpg")], str(tmp_path / "out"), FAST, quiet)
    assert report.reason is RejectReason.UNWRITTEN
    assert "not from `sr3 upscale`" in report.detail
    assert (tmp_path / "out" / "a.png").read_bytes() == b"somebody's own"


def test_photos_from_a_bucket_into_a_bucket(
    album: Path, cascade_run: Path, tmp_path: Path, ray_session: str, s3_server: S3Server
) -> None:
    local = tmp_path / "local"
    config = UpscaleConfig(schedule="2", num_actors=2, recursive=True)
    upscale_photos(str(cascade_run), [str(album)], str(local), config, quiet)
    s3_server.create_bucket("photos")
    client, query = s3_server.client(), f"?endpoint_override={s3_server.endpoint}"
    for name, data in outputs(album).items():
        client.put_object(Bucket="photos", Key=f"in/{name}", Body=data)
    source, out = f"s3://photos/in{query}", f"s3://photos/out{query}"
    upscale_photos(str(cascade_run), [source], out, config, quiet)
    keys = [item["Key"] for item in client.list_objects_v2(Bucket="photos", Prefix="out/")["Contents"]]
    images = {key.removeprefix("out/") for key in keys if key.endswith(".png")}
    assert images == {"a.png", "b.png", "deep/c.png"}
    for name in images:
        remote = client.get_object(Bucket="photos", Key=f"out/{name}")["Body"].read()
        assert remote == (local / name).read_bytes()
    times = {item["Key"]: item["LastModified"] for item in client.list_objects_v2(Bucket="photos")["Contents"]}
    done = run_sr3(*arguments_for(cascade_run, f"s3://photos/in/**/*.webp{query}", out), "--address", ray_session)
    assert "0 of 1 images upscaled" in done.stdout, "a pattern finds it, and it is done"
    assert "constructor arguments" not in done.stderr, "Ray has nothing to warn of"
    after = {item["Key"]: item["LastModified"] for item in client.list_objects_v2(Bucket="photos")["Contents"]}
    assert after == times


def arguments_for(run: Path, source: str, out: str) -> list[str]:
    options = ["--schedule", "2", "--recursive", "--num-actors", "2"]
    return ["upscale", source, "--run", str(run), "--out", out, *options]


def test_killed_anywhere_the_same_command_comes_to_the_same_bytes(
    photos: Path, cascade_run: Path, tmp_path: Path, ray_session: str
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for index, path in enumerate(sorted(photos.glob("*.jpg"))[:8]):
        Image.open(path).resize((24 + index, 24)).save(source / path.name)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    at = ["--address", ray_session]
    assert run_sr3(*arguments_for(cascade_run, str(source), str(whole)), *at).returncode == 0

    process = start_sr3(*arguments_for(cascade_run, str(source), str(killed)), *at)
    wait_for(lambda: any(killed.glob("*.png")), lambda: process.poll() is None)
    process.kill()
    process.communicate()
    there = list(killed.glob("*.png"))
    assert 0 < len(there) < 8
    for path in there:
        assert path.read_bytes() == (whole / path.name).read_bytes(), "never half an image"
    (killed / f".01234567-{sorted(source.iterdir())[-1].stem}.png.tmp").write_bytes(b"half")
    assert run_sr3(*arguments_for(cascade_run, str(source), str(killed)), *at).returncode == 0
    assert outputs(killed) == outputs(whole)
