"""The registry on a disk and on a real S3 server: versions that do not change, a pointer that many processes move."""

import hashlib
import subprocess
import sys
import time
from shlex import quote

import pytest
from PIL import Image

from cluster.cli import main
from pipelines.registry.registry import Registry, find_model
from pipelines.runs.run_folder import open_run
from pipelines.storage import atomic_writers, uris
from sr3core.diffusion.schedules import default_schedule
from sr3core.errors import CheckpointError, ConfigError, DataError
from tests.commands import ROOT

METRICS = {"values": {"fid": 12.5}, "label": "FID"}
PROVENANCE = {"data": "0", "start": None}

PROMOTER = """
# argv: registry, version. Promotes it ten times, each time after what it sees, until it is the one whose turn it was.
import sys
from pipelines.registry.registry import Registry
registry = Registry(sys.argv[1])
sys.stdin.readline()
for _ in range(10):
    while not registry.promote(sys.argv[2], "race", registry.promoted()[1]):
        pass
"""


@pytest.fixture
def registry(place):
    """An empty registry, on a disk and in a bucket."""
    return Registry(uris.join(place, "models"))


@pytest.fixture
def run(cascade_run):
    return open_run(cascade_run)


def publish(registry: Registry, run, *names: str) -> None:
    for name in names:
        registry.publish(run, name, METRICS, PROVENANCE)


def promote(registry: Registry, *versions: str) -> None:
    for version in versions:
        assert registry.promote(version, "better", registry.promoted()[1])


def test_an_empty_registry(registry):
    assert registry.versions() == []
    assert registry.promoted()[0] is None
    with pytest.raises(ConfigError, match="no version has been promoted yet"):
        registry.roll_back()
    with pytest.raises(ConfigError, match=r"no version 'v0001'; it holds none"):
        registry.promote("v0001", "", registry.promoted()[1])


def test_a_version_is_a_run_that_samples_as_the_run_that_it_was_made_of(registry, run):
    version = registry.publish(run, "retraining-a", METRICS, PROVENANCE)
    assert (version.name, version.metrics) == ("v0001", METRICS)
    opened = open_run(find_model(version.uri))
    for ours, theirs in zip(opened.stages, run.stages, strict=True):
        expected = dict(theirs.weights.load().named_parameters())
        for name, parameter in ours.weights.load().named_parameters():
            assert parameter.equal(expected[name])
        assert ours.config == theirs.config
    names = [name for name, _ in uris.list_files(version.uri)]
    assert not [name for name in names if "optimizer" in name or "model.safetensors" in name], "it is for inference"
    assert {"config.json", "version.json", "claim.json"} < set(names)


def test_the_same_retraining_again_finds_its_version_and_another_has_its_own(registry, run):
    publish(registry, run, "a", "b")
    before = {name: size for name, size in uris.list_files(registry.uri)}
    publish(registry, run, "a", "b")
    assert {name: size for name, size in uris.list_files(registry.uri)} == before
    assert [(version.name, version.retraining) for version in registry.versions()] == [("v0001", "a"), ("v0002", "b")]


def test_a_version_that_was_never_finished_is_none(registry, run, monkeypatch):
    real, calls = atomic_writers.put_file, []

    def dies(path: str, uri: str) -> None:
        calls.append(uri)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(path, uri)

    monkeypatch.setattr("pipelines.registry.registry.put_file", dies)
    with pytest.raises(KeyboardInterrupt):
        publish(registry, run, "a")
    monkeypatch.undo()
    assert registry.versions() == []
    publish(registry, run, "b")
    assert [version.name for version in registry.versions()] == ["v0002"]
    publish(registry, run, "a")
    assert [(version.name, version.retraining) for version in registry.versions()] == [("v0001", "a"), ("v0002", "b")]


def test_promotion_and_rollback_walk_back_and_forth(registry, run):
    publish(registry, run, "a", "b", "c")
    with pytest.raises(DataError, match="without a promoted version"):
        find_model(registry.uri)
    promote(registry, "v0001", "v0002", "v0003")
    assert find_model(registry.uri).partition("?")[0].endswith("/v0003")
    assert registry.roll_back() == "v0002"
    assert registry.roll_back() == "v0001", "twice back is two versions back, not forth again"
    with pytest.raises(ConfigError, match="v0001 was the first one promoted"):
        registry.roll_back()
    registry.promote_by_hand("v0003")
    with pytest.raises(ConfigError, match="v0003 is already the promoted version"):
        registry.promote_by_hand("v0003")
    with pytest.raises(ConfigError, match="did you mean 'v0003'"):
        registry.promote_by_hand("v003")
    assert registry.roll_back() == "v0001", "what was promoted by hand is rolled back like any other"
    assert [entry.content["version"][-1] for entry in registry.history()] == list("1232131")


def test_a_promotion_by_hand_of_before_is_told_from_a_rollback(registry, run):
    """It was recorded as a rollback, and `--rollback` after it answered that there was nothing before it."""
    publish(registry, run, "a", "b")
    promote(registry, "v0001")
    as_it_was = {"version": "v0002", "previous": "v0001", "why": "rollback", "rollback": True, "time": 0.0}
    assert registry._journal.append(registry.promoted()[1], as_it_was)
    assert registry.roll_back() == "v0001"
    with pytest.raises(ConfigError, match="v0001 was the first one promoted"):
        registry.roll_back()


def test_a_promotion_after_what_is_no_longer_in_force_is_refused(registry, run):
    publish(registry, run, "a", "b")
    _, empty = registry.promoted()
    assert registry.promote("v0001", "first", empty)
    assert not registry.promote("v0002", "has not seen v0001", empty)
    assert registry.promoted()[0].name == "v0001"


def test_processes_that_promote_at_once_lose_no_promotion(registry, run):
    publish(registry, run, "a", "b")
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", PROMOTER, registry.uri, version], stdin=subprocess.PIPE, text=True, cwd=ROOT
        )
        for version in ("v0001", "v0002")
    ]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.close()
    assert [racer.wait(120) for racer in racers] == [0, 0]
    history = [entry.content for entry in registry.history()]
    assert sorted(entry["version"] for entry in history) == ["v0001"] * 10 + ["v0002"] * 10
    assert [entry["previous"] for entry in history] == [None, *(entry["version"] for entry in history[:-1])]
    assert registry.promoted()[0].name == history[-1]["version"]


@pytest.mark.parametrize("file", ["config.json", "8-16/checkpoints/step-00000000/ema.safetensors"])
def test_a_version_with_another_byte_is_refused(registry, run, file, capsys):
    publish(registry, run, "a", "b")
    promote(registry, "v0001", "v0002")
    path = uris.join(registry.uri, "v0001", *file.split("/"))
    data = uris.read_bytes(path)
    uris.write_atomic(path, data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    with pytest.raises(CheckpointError, match=f"{file}.* is damaged: its sha256 is not the recorded one"):
        registry.roll_back()
    assert registry.promoted()[0].name == "v0002"
    assert main(["models", registry.uri, "--verify"]) == 1
    assert file in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="is damaged"):
        open_run(find_model(uris.join(registry.uri, "v0001"))).stage("8-16").weights.load()


def test_a_schedule_that_is_no_part_of_a_version_is_not_used(tmp_path, run):
    registry = Registry(str(tmp_path))
    publish(registry, run, "a")
    schedule = default_schedule(run.stage("8-16").model.noise_schedule, 5)
    folder = tmp_path / "v0001" / "8-16" / "schedules"
    folder.mkdir(exist_ok=True)
    (folder / "best-99.json").write_text(schedule.to_json())
    with pytest.raises(CheckpointError, match=r"best-99.json is not part of this version"):
        find_model(str(tmp_path / "v0001"))


def test_upscaling_takes_the_promoted_model_of_a_registry(registry, run, photos, tmp_path, ray_session):
    publish(registry, run, "a", "b")
    promote(registry, "v0002")
    photo = tmp_path / "photo.png"
    Image.open(sorted(photos.glob("*.jpg"))[0]).crop((40, 40, 60, 54)).save(photo)
    sums = {}
    for name, model in (("registry", registry.uri), ("run", str(run.path))):
        arguments = [str(photo), "--run", model, "--schedule", "2", "--out", str(tmp_path / name)]
        assert main(["upscale", *arguments]) == 0
        (made,) = (tmp_path / name).glob("*.png")
        sums[name] = hashlib.sha256(made.read_bytes()).hexdigest()
    assert sums["registry"] == sums["run"]


def test_models_of_another_place_is_an_error_that_says_what_it_is(registry, run, tmp_path, capsys):
    assert main(["models", registry.uri]) == 1
    assert f"{registry.uri} does not exist" in capsys.readouterr().err
    assert main(["models", str(run.path)]) == 1
    assert f"no registry; `sr3 status {run.path}`" in capsys.readouterr().err
    (tmp_path / "an empty one").mkdir()
    assert main(["models", str(tmp_path / "an empty one")]) == 1
    assert "holds no version of a model" in capsys.readouterr().err


def test_models_lists_versions_and_rolls_back(registry, run, capsys):
    publish(registry, run, "a", "b")
    every = {"fid": 312.5, "kid": 0.01234, "psnr": 23.456, "ssim": 0.6789, "consistency": 12.345}
    registry.publish(run, "c", {**METRICS, "values": every}, PROVENANCE)
    assert main(["models", registry.uri]) == 0
    assert f"None is promoted: `sr3 models {quote(registry.uri)} --promote v0003`" in capsys.readouterr().out
    promote(registry, "v0001", "v0002")
    assert main(["models", registry.uri]) == 0
    head, first, second, third, label, using = capsys.readouterr().out.splitlines()
    today = time.strftime("%Y-%m-%d")
    assert head.split() == ["VERSION", "MADE", "PROMOTED", "FID", "KID", "PSNR", "SSIM", "CONS."]
    assert first.split() == ["v0001", today, today, "12.5", "-", "-", "-", "-"]
    assert second.split()[:3] == ["v0002", "*", today]
    assert third.split() == ["v0003", today, "-", "312.5", "0.01234", "23.46", "0.6789", "12.35"]
    assert max(map(len, (head, first, second, third))) <= 80
    assert label == "Judged by FID."
    assert f"--run {quote(registry.uri)}" in using
    assert main(["models", registry.uri, "--rollback"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "rolled back to v0001"
    assert told[2].startswith("v0001 * ")
    assert main(["models", registry.uri, "--promote", "v0002"]) == 0
    assert main(["models", registry.uri, "--rollback"]) == 0
    assert main(["models", registry.uri, "--promote", "v0009"]) == 2
    assert "no version 'v0009'" in capsys.readouterr().err
