"""Summaries of shards hold what manifests and duplicates take from indices, and survive their table."""

import io

import pytest

from pipelines.images.rejects import Reject, RejectReason
from pipelines.shards.manifest import ShardIndex
from pipelines.shards.summaries import BRIEF, decode_table, encode_table, read_columns, summarise

INDEX = ShardIndex(
    shard="train-000001.tar",
    fingerprint="f",
    plan="p",
    num_bytes=1 << 40,
    sha256="ab" * 32,
    keys=("a", "b", "c"),
    members=({}, {}, {}),
    digests=("00" * 32, "ff" * 32, "0123456789abcdef" * 4),
    names=("a", "b", "c"),
    labels=(3, None, -1),
    rejects=(
        Reject("lone \udcff.png", RejectReason.TOO_SMALL, 'a "detail"\n'),
        Reject("d", RejectReason.DUPLICATE, ""),
    ),
    excluded={"lone \udcff.png": "a"},
)


def test_a_summary_has_what_is_asked_of_an_index() -> None:
    summary = summarise(INDEX)
    assert summary.entry == INDEX.entry
    assert (summary.num_classes, summary.num_unlabelled) == (4, 2)
    assert summary.num_rejects == {"duplicate": 1, "too_small": 1}
    assert summary.digests.hex() == "00" * 8 + "ff" * 8 + "0123456789abcdef"
    assert [Reject(row["path"], RejectReason(row["reason"]), row["detail"]) for row in summary.reject_rows()] == list(
        INDEX.rejects
    )
    empty = summarise(ShardIndex("validation-000000.tar", "f", "p", 0, ""))
    assert (empty.num_classes, empty.num_unlabelled, empty.rejects, empty.digests) == (0, 0, b"", b"")


def test_a_table_gives_back_every_summary_and_its_version() -> None:
    summaries = [summarise(INDEX), summarise(ShardIndex("validation-000000.tar", "f", "p", 0, ""))]
    versions = {"train-000001.tar": "v1", "validation-000000.tar": "v2"}
    data = encode_table(summaries, versions)
    assert decode_table(data) == {s.shard: (versions[s.shard], s) for s in summaries}
    brief = read_columns(io.BytesIO(data), BRIEF)
    assert brief[0] == {"shard": "train-000001.tar", "version": "v1", "num_samples": 3, "num_rejected": 2}


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: b"PAR1" + bytes(100)])
def test_a_damaged_table_says_so(damage) -> None:
    with pytest.raises(ValueError, match=r"Parquet|parquet|footer|Invalid"):
        decode_table(damage(encode_table([summarise(INDEX)], {"train-000001.tar": "v1"})))
