"""Training from shards in a bucket, on a real S3 server that sometimes refuses requests or cuts connections."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipelines.ingest.batches import batches_from
from pipelines.ingest.split_reader import open_training_split
from pipelines.report.status import status_of
from pipelines.runs import bucket_runs
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run, read_metrics
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.storage.uris import join, list_files, write_atomic
from pipelines.training.parallel_stages import train_run
from sr3core.config import override, to_dict
from tests.commands import ROOT
from tests.preparing import prepared
from tests.s3_server import FaultyProxy

STAGE = override(
    small_stage(8, 16, base_channels=8, num_steps=12, num_workers=1),
    log_every=1,
    validation_every=12,
    checkpoint_every=12,
    placement__num_workers=0,
)

EVALUATE = """
# argv: run. Measures it on a cluster of two machines, which is refused, and then on one.
import sys, ray
from tests.ray_head import SmallCluster
from pipelines.settings.evaluate import EvaluateConfig
from pipelines.evaluation.evaluate import evaluate_run
from sr3core.errors import ConfigError
cluster = SmallCluster(head_cpus=2)
other = cluster.add_node()
ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
config = EvaluateConfig(split="validation", limit=4, schedule="2", num_seeds=1)
try:
    evaluate_run(sys.argv[1], config)
except ConfigError as error:
    print(error)
cluster.remove(other)
evaluate_run(sys.argv[1], config)
"""


@pytest.fixture(scope="module")
def proxy(s3_server):
    s3_server.create_bucket("shards")
    with FaultyProxy(s3_server.port) as between:
        yield between


@pytest.fixture(scope="module")
def shards(tmp_path_factory, photos, ray_session):
    """60 real photos in small shards on the disk."""
    return prepared(photos, tmp_path_factory.mktemp("shards"), 60, "8-16", samples_per_shard=8)


@pytest.fixture(scope="module")
def remote_shards(shards, proxy):
    """The same shards in the bucket."""
    root = f"s3://shards/faces?endpoint_override={proxy.endpoint}"
    for path in Path(shards).rglob("*"):
        if path.is_file():
            write_atomic(join(root, *path.relative_to(shards).parts), path.read_bytes())
    return root


def every_third(requests: itertools.count) -> str | None:
    number = next(requests)
    return "cut" if number % 6 == 2 else "503" if number % 6 == 5 else None


def trained(path: Path, data: str, cache: Path) -> Run:
    stage = override(STAGE, placement__cache_folder=str(cache))
    config = RunConfig(name="bucket", stages=(stage,))
    run = create_run(path, config, data, data_fingerprints(data, config), fresh=False)
    assert [result.error for result in train_run(run)] == [None]
    return run


def test_a_run_from_a_bucket_has_the_weights_of_one_from_a_disk(proxy, shards, remote_shards, tmp_path):
    local = trained(tmp_path / "a", shards, tmp_path / "unused")
    requests = itertools.count()
    proxy.fault = lambda method, path: every_third(requests) if method == "GET" and ".tar" in path else None
    proxy.counts.clear()
    remote = trained(tmp_path / "b", remote_shards, tmp_path / "cache")
    assert proxy.counts["503"] > 0
    assert proxy.counts["cut"] > 0, "the server was to fail while training read from it"
    (one,), (other,) = local.stages, remote.stages
    expected = load_file(one.weights.newest().path / "model.safetensors")
    for name, weight in load_file(other.weights.newest().path / "model.safetensors").items():
        assert torch.equal(weight, expected[name]), name
    losses = [[line["loss"] for line in read_metrics(stage.metrics)] for stage in (one, other)]
    assert losses[0] == losses[1]
    assert not (tmp_path / "unused").exists(), "a disk needs no cache"


def test_a_cache_too_small_for_what_is_read_at_once_costs_one_request_a_record(proxy, shards, remote_shards, tmp_path):
    requests = []
    proxy.fault = lambda method, path: requests.append(path) if ".tar" in path else None
    largest = max(entry.num_bytes for entry in open_training_split(remote_shards, STAGE).shards)
    stage = override(STAGE, placement__cache_folder=str(tmp_path / "cache"), placement__cache_bytes=2 * largest)
    batches = batches_from(open_training_split(remote_shards, stage), stage, 0, 0, 1)
    local = batches_from(open_training_split(shards, stage), stage, 0, 0, 1)
    for batch, expected in itertools.islice(zip(batches, local, strict=True), 6):
        assert batch.keys == expected.keys
        assert torch.equal(batch.high, expected.high)
    batches.close()
    assert len(requests) <= (6 + stage.placement.prefetch_batches) * stage.batch_size
    assert not list((tmp_path / "cache").glob("*.tar"))


@pytest.mark.parametrize("processes", [0, 2])
def test_shards_are_fetched_once_and_nothing_waits_for_them(proxy, remote_shards, tmp_path, processes):
    requests = []
    proxy.fault = lambda method, path: requests.append(path) if ".tar" in path else None
    folder = tmp_path / "cache"
    stage = override(STAGE, placement__cache_folder=str(folder), placement__decoding_processes=processes)
    split = open_training_split(remote_shards, stage)
    batches = batches_from(split, stage, 0, 0, 1)
    next(batches)
    while len(list(folder.glob("*.tar"))) < len(split.shards):
        next(batches)
    list(itertools.islice(batches, stage.placement.prefetch_batches))  # those that were begun before
    requests.clear()
    list(itertools.islice(batches, 10))
    batches.close()
    assert requests == []
    assert {path.stem for path in folder.glob("*.tar")} == {shard.sha256 for shard in split.shards}


def test_a_run_in_a_bucket_is_resumed_and_watched_from_another_machine(
    proxy, shards, tmp_path, monkeypatch, ray_session
):
    """Working copies in two folders represent two machines, which share only the bucket."""
    stage = override(STAGE, num_steps=12, checkpoint_every=4, keep_checkpoints=2, validation_every=4)
    whole = RunConfig(name="bucket", stages=(stage,))
    here = create_run(tmp_path / "here", whole, shards, data_fingerprints(shards, whole), fresh=False)
    assert [result.error for result in train_run(here)] == [None]

    location = f"s3://shards/runs/a?endpoint_override={proxy.endpoint}"
    monkeypatch.setattr(bucket_runs, "WORKING_COPIES", tmp_path / "one")
    eight = RunConfig(name="bucket", stages=(override(stage, num_steps=8),))  # as far as the first machine comes
    first = create_run(location, eight, shards, data_fingerprints(shards, eight), fresh=False)
    assert [result.error for result in train_run(first)] == [None]
    content = json.loads((first.path / "config.json").read_text())
    longer = json.dumps({**content, "config": to_dict(whole)})
    write_atomic(join(location, "config.json"), longer.encode())

    monkeypatch.setattr(bucket_runs, "WORKING_COPIES", tmp_path / "two")
    found = status_of(location)
    assert found["stages"][0]["step"] == 8
    assert (
        found["stages"][0]["newest"]
        == [line for line in read_metrics(first.stages[0].metrics) if line["kind"] == "train"][-1]
    )
    assert not list((tmp_path / "two").rglob("*.safetensors")), "looking costs no weights"
    second = open_run(location)
    assert [result.error for result in train_run(second)] == [None]
    (stage_run,), (alone,) = open_run(location).stages, here.stages
    assert [line["step"] for line in read_metrics(stage_run.metrics)] == [
        line["step"] for line in read_metrics(alone.metrics)
    ]
    expected = load_file(alone.weights.newest().path / "model.safetensors")
    for key, weight in stage_run.weights.load().state_dict().items():
        assert weight.shape == expected[key].shape
    ours = load_file(stage_run.weights.newest().path / "model.safetensors")
    for key, weight in ours.items():
        assert torch.equal(weight, expected[key]), key
    stored = {name.split("/")[2] for name, _ in list_files(location) if "/checkpoints/" in name}
    assert stored == {"step-00000008", "step-00000012"}, "the bucket keeps as many checkpoints as a disk"


def test_a_run_in_a_bucket_is_measured_on_one_machine_and_seen_from_another(proxy, shards, tmp_path, monkeypatch):
    proxy.fault = lambda method, path: None
    location = f"s3://shards/runs/measured?endpoint_override={proxy.endpoint}"
    monkeypatch.setattr(bucket_runs, "WORKING_COPIES", tmp_path / "one")
    config = RunConfig(name="bucket", stages=(STAGE,))
    run = create_run(location, config, shards, data_fingerprints(shards, config), fresh=False)
    assert [result.error for result in train_run(run)] == [None]
    measured = subprocess.run(
        [sys.executable, "-c", EVALUATE, location],
        env={**os.environ, "SR3_WORKING_COPIES": str(tmp_path / "one"), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert "is in a bucket, and 1 other nodes could not write into this one's working copy" in measured.stdout
    monkeypatch.setattr(bucket_runs, "WORKING_COPIES", tmp_path / "two")
    evaluation = json.loads((open_run(location).path / "evaluation.json").read_text())
    assert [row["name"] for row in evaluation["methods"]] == ["nearest", "bicubic", "sr3"]
