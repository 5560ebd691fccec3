"""The table of a stage spares a request for every shard, and is believed only where nothing has changed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.prepare.plan.shard_plan import load_own_plan
from pipelines.prepare.plan.stage_index import StageIndex, count_shards
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import ShardIndex, load_index, save_index
from pipelines.storage.uris import join, write_atomic
from pipelines.storage.versions import list_versions
from sr3core.errors import StorageError
from tests.pipelines.prepare.preparations import pictures
from tests.preparing import prepared_without_ray, stages_of
from tests.s3_server import FaultyProxy, S3Server, s3_variables

SHARD = "train-000001.tar"


@pytest.fixture
def config(tmp_path: Path) -> PrepareConfig:
    """Six images, two a shard, all written, and their table."""
    source = pictures(tmp_path / "source", 6)
    settings: dict[str, Any] = {"samples_per_shard": 2, "validation_fraction": 0}
    config = PrepareConfig(source=str(source), out=str(tmp_path / "out"), stages=("8-16",), **settings)
    prepared_without_ray(config)
    opened(config).save()
    return config


def opened(config: PrepareConfig) -> StageIndex:
    return stages_of(config)["8-16"]


def counted(config: PrepareConfig) -> tuple[int, int, int]:
    names = [shard.name for shard in load_own_plan(config).shards]
    return count_shards(config.out, "8-16", names, list_versions(f"{config.out}/8-16"))


def test_an_index_that_has_changed_counts_and_its_summary_does_not(config: PrepareConfig) -> None:
    folder = f"{config.out}/8-16"
    before = opened(config).summaries
    save_index(folder, replace(load_index(folder, SHARD), plan="another"))
    assert opened(config).summaries == {**before, SHARD: replace(before[SHARD], plan="another")}
    (Path(folder) / "train-000002.index.json").unlink()
    assert set(opened(config).summaries) == {"train-000000.tar", SHARD}
    assert counted(config) == (2, 4, 0)


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.write_bytes(b"")]
)
def test_a_table_that_is_lost_or_damaged_costs_time_alone(
    config: PrepareConfig, damage: Callable[[Path], object]
) -> None:
    before = opened(config).summaries
    damage(Path(config.out) / "index-8-16.parquet")
    assert counted(config) == (3, 6, 0)
    index = opened(config)
    assert index.summaries == before
    index.save()
    assert opened(config).summaries == before


def test_requests_do_not_grow_with_the_shards(s3_server: S3Server) -> None:
    """Finished shards cost a LIST and a table, before a HEAD and two reads each; status reads a part of the table."""
    s3_server.create_bucket("stage-index")
    requests: Counter[str] = Counter()

    def fault(method: str, path: str) -> None:
        requests[method] += 1

    with FaultyProxy(s3_server.port) as proxy:
        out = f"s3://stage-index/out?endpoint_override={proxy.endpoint}"
        names = [f"train-{number:06d}.tar" for number in range(300)]
        for name in names:
            save_index(
                f"s3://stage-index/out/8-16?endpoint_override={proxy.endpoint}", ShardIndex(name, "f", "p", 0, "")
            )
        proxy.fault = fault
        index = StageIndex(out, "8-16", names)
        assert requests["GET"] >= 300
        index.save()
        requests.clear()
        index = StageIndex(out, "8-16", names)
        assert all(index.is_finished(name, "f", "p") for name in names)
        index.save()
        assert sum(requests.values()) <= 3, requests
        requests.clear()
        there = list_versions(index.directory)
        assert count_shards(out, "8-16", names, there) == (300, 0, 0)
        assert sum(requests.values()) <= 6, requests


def test_a_bucket_that_cannot_be_read_is_no_empty_folder(s3_server: S3Server) -> None:
    """Shards that are there would be written again."""
    s3_server.create_bucket("stage-index-refused")
    with FaultyProxy(s3_server.port) as proxy, s3_variables(AWS_MAX_ATTEMPTS="1"):
        out = f"s3://stage-index-refused/out?endpoint_override={proxy.endpoint}"
        save_index(
            f"s3://stage-index-refused/out/8-16?endpoint_override={proxy.endpoint}", ShardIndex(SHARD, "f", "p", 0, "")
        )
        for part in ("list-type", "index.json", "parquet"):
            proxy.fault = lambda method, path, part=part: "503" if part in path else None
            with pytest.raises(StorageError, match="SlowDown"):
                StageIndex(out, "8-16", [SHARD])
        proxy.fault = lambda method, path: None
        write_atomic(join(out, "index-8-16.parquet"), b"")
        assert StageIndex(out, "8-16", [SHARD]).is_finished(SHARD, "f", "p")
