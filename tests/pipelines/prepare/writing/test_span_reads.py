"""Neighbours in a tar are read with one request, and are what they are when each is read alone."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.prepare.plan import dealing
from pipelines.prepare.plan.dealing import plan_addition, plan_shards
from pipelines.prepare.plan.shard_plan import load_items, load_own_plan, planned_items, write_plan
from pipelines.prepare.sources.items import SourceItem
from pipelines.prepare.sources.listing import open_source
from pipelines.prepare.writing.pairs import Reading
from pipelines.prepare.writing.shard_task import ShardTask, write_shard
from pipelines.prepare.writing.span_reads import SpanReads
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index
from sr3core.errors import DataError
from tests.pipelines.prepare.preparations import picture
from tests.pipelines.prepare.source_files import tar, write
from tests.preparing import prepared_without_ray
from tests.s3_server import ENVIRONMENT
from tests.slow_s3 import SlowS3

NUM_TARS, IN_EACH = 3, 40


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    """Tars of small pictures with a text beside each, like those of crawled images."""

    def members(number: int) -> dict[str, bytes]:
        images = range(number * IN_EACH, (number + 1) * IN_EACH)
        return {f"{n:05d}.{end}": picture(n) if end == "png" else b"text" for n in images for end in ("png", "txt")}

    return write(tmp_path / "source", {f"{number}.tar": tar(members(number)) for number in range(NUM_TARS)})


def config_of(source: object, out: Path, **changes: object) -> PrepareConfig:
    common = {"stages": ("8-16",), "samples_per_shard": 30, "validation_fraction": 0.1, "group_tars": True}
    return PrepareConfig(source=str(source), out=str(out), **common | changes)  # type: ignore[arg-type]


def samples(config: PrepareConfig) -> dict[str, set[tuple[str, str]]]:
    """Split -> name and digest of each image in the shards."""
    found: dict[str, set[tuple[str, str]]] = {}
    for shard in load_own_plan(config).shards:
        index = load_index(f"{config.out}/8-16", shard.name)
        assert not index.rejects
        found.setdefault(shard.split, set()).update(zip(index.names, index.digests, strict=True))
    return found


@pytest.fixture
def on_s3(tars: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SlowS3, str]]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setitem(os.environ, name, value)
    with SlowS3() as server:
        for path in tars.iterdir():
            server.put(f"bucket/in/{path.name}", path.read_bytes())
        yield server, f"s3://bucket/in?endpoint_override={server.endpoint}"


def test_shards_hold_the_same_images_by_a_sixth_of_the_requests(on_s3, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(dealing, "SEGMENT_BYTES", 1 << 17)
    server, uri = on_s3
    found, requests = {}, {}
    for grouped in (False, True):
        config = config_of(uri, tmp_path / str(grouped), group_tars=grouped)
        write_plan(config, *plan_shards(config, open_source(uri)))
        server.requests.clear()
        for shard in load_own_plan(config).shards:
            write_shard(config, ShardTask(shard, config.stages))
        found[grouped], requests[grouped] = samples(config), server.requests["GET"]
    assert found[True] == found[False]
    assert {split: len(images) for split, images in found[True].items()}.keys() == {"train", "validation"}
    assert requests[False] > 0.8 * NUM_TARS * IN_EACH, "some lie side by side by chance"
    assert requests[True] <= NUM_TARS * IN_EACH / 6


def test_shards_mix_the_tars(tars: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(dealing, "SEGMENT_BYTES", 1 << 14)
    config = config_of(tars, tmp_path / "out", validation_fraction=0)
    write_plan(config, *plan_shards(config, open_source(str(tars))))
    for shard in load_own_plan(config).shards:
        assert len({item.path for item in load_items(config.out, shard)}) > 1


def test_a_name_that_a_tar_holds_twice_is_taken_once(tmp_path: Path) -> None:
    first = tar({f"{n}.png": picture(n) for n in range(4)})
    end = len(first.rstrip(b"\0"))
    twice = first[: -(-end // 512) * 512] + tar({"2.png": picture(9)})
    source = write(tmp_path / "source", {"a.tar": twice})
    for grouped in (False, True):
        config = config_of(source, tmp_path / str(grouped), group_tars=grouped, validation_fraction=0)
        index = load_index(str(prepared_without_ray(config)), "train-000000.tar")
        assert sorted(index.names) == [f"a.tar/{n}.png" for n in range(4)]
        assert [(reject.path, reject.reason) for reject in index.rejects] == [("a.tar/2.png", "duplicate")]


def test_what_is_new_goes_by_its_name_also_where_a_tar_was_written_again(tars: Path, tmp_path: Path) -> None:
    config = config_of(tars, tmp_path / "out")
    plan, lines = plan_shards(config, open_source(str(tars)))
    write_plan(config, plan, lines)
    more = {f"{n:05d}.png": picture(n) for n in (999, *range(IN_EACH), 1000)}
    write(tars, {"0.tar": tar(more)})
    added = plan_addition(config, open_source(str(tars)), plan)
    assert added is not None
    write_plan(config, *added)
    new = planned_items(config.out, replace(added[0], shards=added[0].shards[len(plan.shards) :]))
    assert sorted(item.name for item in new) == ["0.tar/00999.png", "0.tar/01000.png"]


def test_what_is_cut_off_is_told_of_each_image(tmp_path: Path) -> None:
    place = tmp_path / "a.tar"
    place.write_bytes(bytes(range(100)))
    items = [SourceItem(str(n), "", "range", n * 20, 20) for n in range(6)]
    readings = [Reading(item, str(place), "") for item in items]
    reads = SpanReads(readings)
    assert [reads.read(reading) for reading in readings[:5]] == [bytes(range(n * 20, n * 20 + 20)) for n in range(5)]
    with pytest.raises(DataError, match="truncated"):
        reads.read(readings[5])
    again = SpanReads(readings[:5])
    for _ in range(2):  # where memory was short, an image is read again
        assert again.read(readings[4]) == bytes(range(80, 100))
    assert [again.read(reading) for reading in readings[:4]] == [bytes(range(n * 20, n * 20 + 20)) for n in range(4)]
