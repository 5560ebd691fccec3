"""A source that grows: shards of only what is new, nothing else touched, nothing held out changed or leaked."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.ingest.split_reader import load_split
from pipelines.prepare.finished.verify import verify
from pipelines.prepare.plan.shard_plan import load_plan
from pipelines.prepare.preparation import add_new, prepare
from pipelines.prepare.writing.progress import PrepareProgress
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index, load_manifest
from sr3core.errors import ConfigError, DataError
from tests.commands import ROOT
from tests.preparing import some_photos

KILLED = """
# argv: source, out. Extends a preparation and dies as soon as the first new shard is written.
import os, signal, sys, ray
from pipelines.settings.prepare import PrepareConfig
from pipelines.prepare.preparation import add_new
ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")
config = PrepareConfig(source=sys.argv[1], out=sys.argv[2], stages=("8-16",), samples_per_shard=4, num_workers=1,
                       validation_fraction=0.3)
add_new(config, lambda progress: os.kill(os.getpid(), signal.SIGKILL))
"""


def quiet(_: PrepareProgress) -> None:
    """Progress that nobody reads."""


def config_for(source: Path, out: Path, **changes) -> PrepareConfig:
    values = {"stages": ("8-16", "16-32"), "validation_fraction": 0.3, "samples_per_shard": 8, **changes}
    return PrepareConfig(source=str(source), out=str(out), **values)


def sums(out: Path) -> dict[str, str]:
    """sha256 of every shard and index."""
    paths = [path for path in out.rglob("*") if path.suffix == ".tar" or path.name.endswith(".index.json")]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def names(out: Path, split: str) -> set[str]:
    """Of the source images in a split."""
    shards = load_manifest(str(out / "8-16")).splits[split]
    return {name for shard in shards for name in load_index(str(out / "8-16"), shard.name).names}


@pytest.fixture
def grown(photos, tmp_path, ray_session):
    """A source of 30 photos, prepared; then 20 others came, among them a held-out one under a name before all."""
    source, out = some_photos(photos, tmp_path / "photos", 30), tmp_path / "data"
    prepare(config_for(source, out), quiet)
    held_out = sorted(names(out, "validation"))[0]
    for path in sorted(photos.glob("*.jpg"))[30:49]:
        (source / path.name).write_bytes(path.read_bytes())
    (source / "0000-again.jpg").write_bytes((source / held_out).read_bytes())
    return source, out, held_out


def test_only_what_is_new_is_prepared_and_the_rest_stays(grown):
    source, out, held_out = grown
    before, frozen, trained = sums(out), load_split(str(out), "8-16", "validation"), names(out, "train")
    fingerprint = load_manifest(str(out / "8-16")).fingerprint
    summary = add_new(config_for(source, out), quiet)
    after = sums(out)
    assert before.items() <= after.items(), "no shard and no index of before has changed a byte"
    new = sorted(name for name in after.keys() - before.keys() if name.startswith("8-16") and name.endswith(".tar"))
    first = sum(name.startswith("8-16/train") and name.endswith(".tar") for name in before)
    assert new == [f"8-16/train-{first + number:06d}.tar" for number in range(3)]
    again = load_split(str(out), "8-16", "validation")
    assert again.keys == frozen.keys
    assert (again.high == frozen.high).all()
    added = names(out, "train") - trained
    assert len(added) == 19
    assert "0000-again.jpg" not in added, "a held-out image must not come back for training under another name"
    assert held_out in names(out, "validation")
    assert summary.num_rejects["8-16"] == {"duplicate": 1}
    assert load_manifest(str(out / "8-16")).fingerprint != fingerprint, "another training set, so another run"
    assert verify(str(out)) == []


def test_growing_twice_and_not_at_all(grown, photos):
    source, out, _ = grown
    add_new(config_for(source, out), quiet)
    once, manifest = sums(out), (out / "8-16" / "manifest.json").read_bytes()
    assert add_new(config_for(source, out), quiet).num_shards_written == 0
    assert sums(out) == once
    assert (out / "8-16" / "manifest.json").read_bytes() == manifest
    last = sorted(photos.glob("*.jpg"))[-1]
    (source / last.name).write_bytes(last.read_bytes())
    (source / sorted(names(out, "train"))[0]).unlink()  # what is gone from the source stays in its shard
    add_new(config_for(source, out), quiet)
    assert once.items() <= sums(out).items()
    assert last.name in names(out, "train")
    plan, _ = load_plan(str(out))
    assert [shard.addition for shard in plan.shards if shard.num_images == 1] == [2]


def test_a_class_that_would_renumber_others_is_refused(photos, tmp_path, ray_session):
    source, out = tmp_path / "classes", tmp_path / "data"
    pictures = sorted(photos.glob("*.jpg"))
    for number, name in enumerate(("dog/a.jpg", "dog/b.jpg", "owl/a.jpg", "owl/b.jpg")):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(pictures[number].read_bytes())
    config = config_for(source, out, stages=("base-16",), layout="imagefolder", validation_fraction=0.0)
    prepare(config, quiet)
    before = sums(out)
    (source / "cat").mkdir()
    (source / "cat" / "a.jpg").write_bytes(pictures[9].read_bytes())
    with pytest.raises(
        DataError, match=r"dog/a.jpg was of class 0 and is now of 1: .* let a new class's folder sort last"
    ):
        add_new(config, quiet)
    assert sums(out) == before
    (source / "cat").rename(source / "rat")
    add_new(config, quiet)
    index = load_index(str(out / "base-16"), "train-000001.tar")
    assert dict(zip(index.names, index.labels, strict=True)) == {"rat/a.jpg": 2}


def test_a_killed_addition_resumes_to_the_same_bytes(photos, tmp_path, ray_session):
    import ray

    values = {"stages": ("8-16",), "samples_per_shard": 4, "num_workers": 1}
    source = some_photos(photos, tmp_path / "photos", 12)
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    for out in (killed, straight):
        prepare(config_for(source, out, **values), quiet)
    for path in sorted(photos.glob("*.jpg"))[12:36]:
        (source / path.name).write_bytes(path.read_bytes())
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    done = subprocess.run([sys.executable, "-c", KILLED, str(source), str(killed)], cwd=ROOT, env=environment)
    assert done.returncode == -signal.SIGKILL
    add_new(config_for(source, straight, **values), quiet)
    assert sums(killed).keys() < sums(straight).keys()
    old = json.loads((killed / "8-16" / "manifest.json").read_text())["splits"]["train"]
    assert sum(shard["num_samples"] for shard in old) < 12, "a reader sees the old manifest until the new one is whole"
    add_new(config_for(source, killed, **values), quiet)
    assert sums(killed) == sums(straight)


def test_add_new_begins_where_nothing_is_and_refuses_another_configuration(photos, tmp_path, ray_session):
    source = some_photos(photos, tmp_path / "photos", 10)
    add_new(config_for(source, tmp_path / "a"), quiet)
    prepare(config_for(source, tmp_path / "b"), quiet)
    assert sums(tmp_path / "a") == sums(tmp_path / "b")
    with pytest.raises(ConfigError, match=r"started with a different configuration \(seed: 0 -> 1\)"):
        add_new(config_for(source, tmp_path / "a", seed=1), quiet)
    extra = sorted(photos.glob("*.jpg"))[20]
    (source / extra.name).write_bytes(extra.read_bytes())
    with pytest.raises(DataError, match="--add-new to prepare the new images"):
        prepare(config_for(source, tmp_path / "a"), quiet)
