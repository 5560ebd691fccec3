"""A bucket that refuses or breaks off for a while: the shard fails, no image is rejected, and the next try is whole."""

from pathlib import Path

import pytest

from pipelines.prepare.plan.dealing import plan_shards
from pipelines.prepare.plan.shard_plan import write_plan
from pipelines.prepare.sources.listing import open_source
from pipelines.prepare.writing.shard_task import ShardTask, write_shard
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index
from sr3core.errors import StorageError
from tests.pipelines.prepare.preparations import picture
from tests.s3_server import FaultyProxy, S3Server, s3_variables


@pytest.mark.parametrize("fault", ["503", "500", "403"])
def test_a_bad_hour_loses_no_image(s3_server: S3Server, tmp_path: Path, fault: str) -> None:
    bucket = f"bad-hour-{fault}"
    s3_server.create_bucket(bucket)
    for number in range(3):
        s3_server.client().put_object(Bucket=bucket, Key=f"{number}.png", Body=picture(number))
    with s3_variables(AWS_MAX_ATTEMPTS="2"), FaultyProxy(s3_server.port) as proxy:
        source = f"s3://{bucket}?endpoint_override={proxy.endpoint}"
        config = PrepareConfig(source=source, out=str(tmp_path), stages=("8-16",), validation_fraction=0.0)
        plan, lines = plan_shards(config, open_source(source))
        write_plan(config, plan, lines)
        task = ShardTask(plan.shards[0], config.stages)
        proxy.fault = lambda method, path: fault if "1.png" in path else None
        with pytest.raises(StorageError, match=r"1\.png"):
            write_shard(config, task)
        assert proxy.counts[fault]
        assert not list((tmp_path / "8-16").glob("*.index.json"))
        proxy.fault = lambda method, path: None
        write_shard(config, task)
    index = load_index(str(tmp_path / "8-16"), task.shard.name)
    assert (sorted(index.names), index.rejects) == (["0.png", "1.png", "2.png"], ())
