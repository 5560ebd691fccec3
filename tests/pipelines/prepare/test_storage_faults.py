"""A bucket that refuses or breaks off for a while: the shard fails, no image is rejected, and the next try is whole."""

import shutil
from pathlib import Path

import pytest

from pipelines.images.file_names import IgnoredFiles
from pipelines.images.folder_files import each_file_below
from pipelines.prepare.plan.dealing import plan_shards
from pipelines.prepare.plan.shard_plan import load_own_plan, write_plan
from pipelines.prepare.preparation import begin
from pipelines.prepare.sources.listing import open_source
from pipelines.prepare.writing.shard_task import ShardTask, write_shard
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index
from sr3core.errors import DataError, StorageError
from tests.pipelines.prepare.preparations import picture
from tests.s3_server import FaultyProxy, S3Server, s3_variables

REMEDIES = {
    "503": "throttles: run the same command again later",
    "500": "",
    "403": "s3:ListBucket",
    "expired": "aws sso",
}


@pytest.mark.parametrize("fault", REMEDIES)
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
        with pytest.raises(StorageError, match=r"1\.png") as caught:
            write_shard(config, task)
        assert REMEDIES[fault] in str(caught.value)
        assert proxy.counts[fault]
        assert not list((tmp_path / "8-16").glob("*.index.json"))
        proxy.fault = lambda method, path: None
        write_shard(config, task)
    index = load_index(str(tmp_path / "8-16"), task.shard.name)
    assert (sorted(index.names), index.rejects) == (["0.png", "1.png", "2.png"], ())


def test_a_folder_that_goes_while_its_source_is_listed_is_no_shorter_list_but_an_error(tmp_path: Path) -> None:
    for folder in "abc":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(b"")
    listing = each_file_below(str(tmp_path), IgnoredFiles())
    first, _ = next(listing)
    for folder in {"a", "b", "c"} - {first[0]}:
        shutil.rmtree(tmp_path / folder)
    with pytest.raises(StorageError, match=r"cannot list: .*did it change while it was listed"):
        list(listing)


def test_an_image_that_goes_after_it_was_listed_is_named_and_one_that_comes_is_for_add_new(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.png").write_bytes(picture(number))
    config = PrepareConfig(
        source=str(source), out=str(tmp_path / "out"), stages=("8-16",), validation_fraction=0.0, keep_duplicates=True
    )
    write_plan(config, *plan_shards(config, open_source(config.source)))
    (source / "1.png").unlink()
    task = ShardTask(load_own_plan(config).shards[0], config.stages)
    write_shard(config, task)
    index = load_index(str(tmp_path / "out" / "8-16"), task.shard.name)
    assert [(reject.path, reject.reason.value) for reject in index.rejects] == [("1.png", "unreadable")]
    (source / "1.png").write_bytes(picture(1))
    (source / "3.png").write_bytes(picture(3))
    with pytest.raises(DataError, match=r"has changed since .* was begun \(3 images then, 4 now.*--add-new"):
        begin(config)
