"""`sr3 upscale` on many photos: finished outputs, files from elsewhere, buckets, and being killed."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cluster.cli import main
from pipelines.images.rejects import RejectReason
from pipelines.runs.run_folder import open_run
from pipelines.sampling.upscale import UpscaleProgress, plan_upscaling, upscale_photos
from pipelines.settings.upscale import UpscaleConfig
from sr3core.diffusion.schedules import SCHEDULE_FORMAT_VERSION
from sr3core.errors import ConfigError
from tests.commands import run_sr3, start_sr3
from tests.pipelines.sampling.photos import outputs, picture, saved
from tests.processes import wait_for
from tests.s3_server import S3Server

FAST = UpscaleConfig(schedule="2", num_actors=1)


def quiet(_: UpscaleProgress) -> None:
    """Progress that nobody reads."""


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
    album: Path, cascade_run: Path, tmp_path: Path, gammas: list[float], message: str
) -> None:
    (tmp_path / "odd.json").write_text(json.dumps({"gammas": gammas, "format_version": SCHEDULE_FORMAT_VERSION}))
    with pytest.raises(ConfigError, match=message):
        plan_upscaling(str(cascade_run), [str(album)], "out", UpscaleConfig(schedule=str(tmp_path / "odd.json")))


def test_photos_take_few_steps_before_a_search_and_the_papers_on_request(cascade_run: Path) -> None:
    """100 steps, the paper's budget, take minutes for a thumbnail on a laptop."""
    for stage in open_run(str(cascade_run)).cascade():
        few, paper = stage.schedule(few_steps=True), stage.schedule("100")
        assert few is not None
        assert paper is not None
        assert (few.name, few.num_evaluations, few.sampler.algorithm, few.sampler.eta) == ("ddim-10", 10, "ddim", 0.0)
        assert (paper.num_evaluations, paper.sampler.algorithm) == (100, "ancestral")
        assert stage.schedule() == paper, "what is compared with the paper's numbers keeps its budget"


def test_an_interrupted_run_says_what_is_kept_and_what_is_lost() -> None:
    progress = UpscaleProgress(num_photos=5, photos_done=3, num_failed=1, at_work=[(9, 486, 0.02), (0, 4, 0.0)])
    assert progress.describe_what_is_kept() == (
        "upscale: 2 of 5 photos are finished and kept; 9 of 490 tiles of those in progress are lost"
    )
    assert UpscaleProgress(num_photos=5).describe_what_is_kept() == "upscale: 0 of 5 photos are finished and kept"


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
    command = ["upscale", str(album), "--run", str(cascade_run), "--out", str(out), "--recursive", "--num-actors", "1"]
    assert main([*command, "--schedule", "2", "--dry-run"]) == 0
    planned = capsys.readouterr().out
    assert "\na.png: new: 56x36, 1 tile x 2 evaluations + 1 tile x 2" in planned
    assert "\ndeep/c.png: new: 28x28" in planned
    assert "text.png: not_an_image:" in planned, "what the run would reject"
    assert re.search(r"^in all about \d+:\d\d on this machine, (cpu|cuda);", planned, re.MULTILINE)
    assert not out.exists()
    assert planned.count(str(out)) == 1, "the folder is named once"

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


def test_what_is_ignored_is_said_and_what_is_not_there_is_refused_before_ray_starts(
    album: Path, cascade_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (album / ".x.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    command = ["--run", str(cascade_run), "--out", "out", "--schedule", "2"]
    assert main(["upscale", "album", *command, "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert "ignored: 1 hidden ('album/.x.png'); 1 subfolder ('album/deep/')" in said
    assert main(["upscale", "album", *command, "--recursive", "--dry-run"]) == 0
    assert "ignored: 1 hidden ('album/.x.png')" in capsys.readouterr().out.splitlines()
    assert main(["upscale", "nofile.jpg", *command]) != 0
    said = capsys.readouterr().err
    assert "nofile.jpg: no such file or folder" in said
    assert "starting Ray" not in said


def test_a_file_that_is_not_ours_is_not_replaced(
    album: Path, cascade_run: Path, tmp_path: Path, ray_session: None
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"somebody's own")
    plan = plan_upscaling(str(cascade_run), [str(album / "a.jpg")], str(tmp_path / "out"), FAST)
    (report,) = upscale_photos(plan, quiet)
    assert report.reason is RejectReason.UNWRITTEN
    assert "not from `sr3 upscale`" in report.detail
    assert (tmp_path / "out" / "a.png").read_bytes() == b"somebody's own"


def test_photos_from_a_bucket_into_a_bucket(
    album: Path, cascade_run: Path, tmp_path: Path, ray_session: str, s3_server: S3Server
) -> None:
    local = tmp_path / "local"
    config = UpscaleConfig(schedule="2", num_actors=1, recursive=True)
    upscale_photos(plan_upscaling(str(cascade_run), [str(album)], str(local), replace(config, num_actors=2)), quiet)
    s3_server.create_bucket("photos")
    client, query = s3_server.client(), f"?endpoint_override={s3_server.endpoint}"
    for name, data in outputs(album).items():
        client.put_object(Bucket="photos", Key=f"in/{name}", Body=data)
    source, out = f"s3://photos/in{query}", f"s3://photos/out{query}"
    upscale_photos(plan_upscaling(str(cascade_run), [source], out, config), quiet)
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
    assert main(arguments_for(cascade_run, str(source), str(whole))) == 0

    process = start_sr3(*arguments_for(cascade_run, str(source), str(killed)), "--address", ray_session)
    wait_for(lambda: any(killed.glob("*.png")), lambda: process.poll() is None)
    process.kill()
    process.communicate()
    there = list(killed.glob("*.png"))
    assert 0 < len(there) < 8
    for path in there:
        assert path.read_bytes() == (whole / path.name).read_bytes(), "never half an image"
    (killed / f".01234567-{sorted(source.iterdir())[-1].stem}.png.tmp").write_bytes(b"half")
    assert main(arguments_for(cascade_run, str(source), str(killed))) == 0
    assert outputs(killed) == outputs(whole)
