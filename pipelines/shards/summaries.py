"""Summaries of shards: what a driver must know of each index, a hundredth of its size, in one table a stage."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.shards.manifest import ShardEntry, ShardIndex, count_rejects
from sr3core import strict_json

TABLE_FORMAT = 1
"""Version of the table; a table of another version is made again from the indices."""

DIGEST_BYTES = 8
"""Bytes of an image's digest that a summary holds."""

_COUNTS = ("num_samples", "num_rejected", "num_classes", "num_unlabelled", "num_bytes")
_TEXTS = ("shard", "version", "fingerprint", "plan", "sha256", "reasons", "excluded")
_BYTES = ("rejects", "digests")
BRIEF = ("shard", "version", "num_samples", "num_rejected")
"""Columns for those who only count."""


@dataclass(frozen=True, slots=True)
class ShardSummary:
    """What the index of a shard says of the shard as a whole, and what tells duplicates and rejects."""

    shard: str
    """File name of the tar."""
    fingerprint: str
    """Fingerprint of the configuration that made it."""
    plan: str
    """Fingerprint of the images that were planned for it."""
    num_bytes: int
    """Size of the tar; 0 if there is none, because every image was rejected."""
    sha256: str
    """SHA-256 of the tar."""
    num_samples: int
    """Samples in it."""
    num_classes: int
    """The largest class index plus one; 0 if nothing is labelled."""
    num_unlabelled: int
    """Samples without a class, or with a negative one."""
    num_rejects: Mapping[str, int]
    """Number of rejected images by reason code."""
    excluded: Mapping[str, str]
    """Name of each duplicate that was left out -> name under which its bytes are kept."""
    rejects: bytes
    """Its lines in rejects.jsonl."""
    digests: bytes
    """The first DIGEST_BYTES of the digest of each image in it, one after the other, see `images_of`."""

    @property
    def entry(self) -> ShardEntry:
        """The shard's line in the manifest."""
        return ShardEntry(self.shard, self.num_samples, self.num_bytes, self.sha256)

    def reject_rows(self) -> Iterator[dict[str, str]]:
        """The rejects as rejects.jsonl has them."""
        return map(strict_json.loads, self.rejects.splitlines())


def summarise(index: ShardIndex) -> ShardSummary:
    """The summary of a shard's index."""
    classes = [label for label in index.labels if label is not None and label >= 0]
    return ShardSummary(
        shard=index.shard,
        fingerprint=index.fingerprint,
        plan=index.plan,
        num_bytes=index.num_bytes,
        sha256=index.sha256,
        num_samples=len(index.keys),
        num_classes=max(classes, default=-1) + 1,
        num_unlabelled=len(index.labels) - len(classes),
        num_rejects=count_rejects(index.rejects),
        excluded=index.excluded,
        rejects="".join(strict_json.dumps(asdict(reject)) + "\n" for reject in index.rejects).encode(),
        digests=bytes.fromhex("".join(digest[: 2 * DIGEST_BYTES] for digest, _ in images_of(index))),
    )


def images_of(index: ShardIndex) -> list[tuple[str, str]]:
    """Digest and name of each image in a shard, once however many crops it has."""
    return list(dict.fromkeys(zip(index.digests, index.names, strict=True)))


def encode_table(summaries: Iterable[ShardSummary], versions: Mapping[str, str]) -> bytes:
    """Encode summaries as a Parquet file, sorted by shard.

    Args:
        summaries: of one stage.
        versions: shard -> version of its index that was summarised, see pipelines.storage.versions.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    kinds = {name: pa.int64() for name in _COUNTS} | {name: pa.string() for name in _TEXTS}
    kinds |= {name: pa.large_binary() for name in _BYTES}
    schema = pa.schema([(name, kinds[name]) for name in dict.fromkeys((*BRIEF, *kinds))])
    rows = [_row(summary, versions[summary.shard]) for summary in sorted(summaries, key=lambda s: s.shard)]
    table = pa.Table.from_pylist(rows, schema.with_metadata({"sr3": str(TABLE_FORMAT)}))
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, compression="zstd", row_group_size=10_000)
    return buffer.getvalue()


def decode_table(data: bytes) -> dict[str, tuple[str, ShardSummary]]:
    """Shard -> (version of its index, its summary).

    Raises:
        ValueError: it is damaged, or of another version.
    """
    return {row["shard"]: (row["version"], _summary(row)) for row in read_columns(io.BytesIO(data))}


def read_columns(file: Any, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Rows of a table, with some of its columns or all.

    Args:
        file: open for random access; only the columns are read.
        columns: their names, such as BRIEF.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        opened = parquet.ParquetFile(file)
        found = (opened.schema_arrow.metadata or {}).get(b"sr3")
        if found != str(TABLE_FORMAT).encode():
            raise ValueError(f"format version {found!r}, this program reads {TABLE_FORMAT}")
        return opened.read(columns).to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(str(error)) from error


def _row(summary: ShardSummary, version: str) -> dict[str, Any]:
    row: dict[str, Any] = {name: getattr(summary, name) for name in ShardSummary.__slots__}
    row["reasons"] = strict_json.dumps(row.pop("num_rejects"))
    row["excluded"] = strict_json.dumps(row["excluded"])
    return {**row, "version": version, "num_rejected": sum(summary.num_rejects.values())}


def _summary(row: dict[str, Any]) -> ShardSummary:
    decoded = {"num_rejects": strict_json.loads(row["reasons"]), "excluded": strict_json.loads(row["excluded"])}
    return ShardSummary(**{name: decoded[name] if name in decoded else row[name] for name in ShardSummary.__slots__})
