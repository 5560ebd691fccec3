"""Reading records through a cache: what it lacks comes from the folder, and a damaged copy heals."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.ingest.record_reader import RecordReader
from pipelines.ingest.shard_cache import ShardCache
from pipelines.ingest.split_reader import SplitReader
from sr3core.errors import DataError, StorageError
from tests.s3_server import FaultyProxy, S3Server, s3_variables
from tests.synthetic_shards import write_shards


def spoil(tar: Path) -> None:
    content = bytearray(tar.read_bytes())
    content[600:-600] = b"\xff" * (len(content) - 1200)
    tar.write_bytes(content)


def test_a_damaged_copy_in_the_cache_is_replaced_and_a_damaged_shard_is_named(tmp_path):
    split = SplitReader(write_shards(tmp_path / "data", "8-16", [4]), "8-16", "train")
    (shard,) = split.shards
    expected = RecordReader(split.directory).read(shard, 2)
    cache = ShardCache(tmp_path / "cache", 10**6)
    reader = RecordReader(split.directory, cache)
    np.testing.assert_array_equal(reader.read(shard, 2).high, expected.high)
    original = Path(split.directory) / shard.name
    cache.fetch(str(original), shard)
    copy = tmp_path / "cache" / f"{shard.sha256}.tar"
    original.rename(tmp_path / "away")
    np.testing.assert_array_equal(reader.read(shard, 2).high, expected.high)  # from the cache alone
    (tmp_path / "away").rename(original)
    spoil(copy)
    np.testing.assert_array_equal(reader.read(shard, 2).high, expected.high)
    assert not copy.exists()
    spoil(original)
    with pytest.raises(DataError, match=r"hr is damaged.*run `sr3 verify`"):
        reader.read(shard, 2)


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [("503", "the bucket throttles: run the same command again"), ("expired", "aws sso login")],
)
def test_a_bad_hour_of_the_bucket_says_what_helps_and_loses_no_record(
    s3_server: S3Server, tmp_path: Path, fault: str, remedy: str
) -> None:
    data = write_shards(tmp_path / "data", "8-16", [4])
    bucket = f"records-{fault}"
    s3_server.create_bucket(bucket)
    for path in (tmp_path / "data" / "8-16").iterdir():
        s3_server.client().upload_file(str(path), bucket, f"8-16/{path.name}")
    (shard,) = SplitReader(data, "8-16", "train").shards
    expected = [RecordReader(f"{data}/8-16").read(shard, number) for number in range(4)]
    with s3_variables(AWS_MAX_ATTEMPTS="2"), FaultyProxy(s3_server.port) as proxy:
        reader = RecordReader(f"s3://{bucket}/8-16?endpoint_override={proxy.endpoint}")
        found = [reader.read(shard, 0)]
        proxy.fault = lambda method, path: fault if ".tar" in path else None
        with pytest.raises(StorageError, match=remedy):
            reader.read(shard, 1)
        proxy.fault = lambda method, path: None
        found += [reader.read(shard, number) for number in range(1, 4)]
    for record, as_on_disk in zip(found, expected, strict=True):
        assert record.key == as_on_disk.key
        np.testing.assert_array_equal(record.high, as_on_disk.high)
