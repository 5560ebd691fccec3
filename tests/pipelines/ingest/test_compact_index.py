"""Indices in memory: the same places as on disk, under 60 bytes a sample, bounded."""

import pytest

from pipelines.ingest.compact_index import CompactIndex, IndexCache
from pipelines.shards.manifest import ShardIndex, load_index
from tests.synthetic_shards import write_shards

EIGHT_GIB = 8 << 30


def index_of(members):
    keys = tuple(f"{number:020x}" for number in range(len(members)))
    return ShardIndex("train-000000.tar", "", "", 1, "", keys, tuple(members))


def test_it_finds_what_the_index_on_disk_states_also_in_large_tars():
    members = [
        {"hr.png": (EIGHT_GIB + 512, 900), "lr.png": (EIGHT_GIB + 2048, 100), "json": (EIGHT_GIB + 2560, 30)},
        {"json": (EIGHT_GIB + 4096, 30), "hr.webp": (EIGHT_GIB + 5120, 800), "cls": (EIGHT_GIB + 6144, 1)},
    ]
    compact = CompactIndex(index_of(members))
    for number, places in enumerate(members):
        extent = compact[number]
        assert extent.key == f"{number:020x}"
        assert {name: (extent.first + offset, size) for name, (offset, size) in extent.members.items()} == places
        assert extent.first == min(offset for offset, _ in places.values())
        assert extent.first + extent.size == max(offset + size for offset, size in places.values())


@pytest.mark.parametrize(
    "names", [("hr.png", "json"), ("hr.png", "lr.png", "json"), ("hr.png", "lr.png", "cls", "json")]
)
def test_a_sample_takes_under_60_bytes(names):
    rows = [{name: (1024 * (4 * i + j), 400) for j, name in enumerate(names)} for i in range(1000)]
    assert CompactIndex(index_of(rows)).num_bytes / 1000 < 60


def test_the_least_recently_used_indices_are_let_go(tmp_path):
    directory = write_shards(tmp_path, "8-16", [4] * 5) + "/8-16"
    names = [f"train-{number:06d}.tar" for number in range(5)]
    one = CompactIndex(load_index(directory, names[0])).num_bytes
    indices = IndexCache(directory, max_bytes=2 * one)
    first, second = indices[names[0]], indices[names[1]]
    assert indices[names[0]] is first
    indices[names[2]]
    assert indices[names[0]] is first
    assert indices[names[1]] is not second, "it was the one used least recently"
    for name in names:
        indices[name]
        assert indices.num_bytes <= 2 * one
    alone = IndexCache(directory, max_bytes=0)
    assert alone[names[0]] is alone[names[0]]
