"""Writing one shard of fields: what a task reads of the stores, cuts and encodes."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pipelines.images.rejects import Reject, RejectReason
from pipelines.prepare.fields.measured import Measured
from pipelines.prepare.fields.plan import FieldShard
from pipelines.prepare.fields.source import FieldSample, FieldSource, open_fields
from pipelines.prepare.writing.crops import places
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.fields import FieldRecord, encode_field
from pipelines.shards.manifest import ShardIndex, save_index
from pipelines.shards.records import content_digest, record_key
from pipelines.shards.tar_writer import ShardWriter
from pipelines.storage.uris import join
from sr3core.config import fingerprint
from sr3core.sizes import Size, fits_in, rows_by_columns, sides_of

_READ_AT_ONCE = 32
"""Samples of a range that are in memory at once, at most."""


@dataclass(slots=True)
class _Open:
    """A shard while it is written."""

    measured: Measured = field(default_factory=Measured)
    digests: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def write_field_shard(config: PrepareConfig, shard: FieldShard, plan: str) -> ShardIndex:
    """Write a shard and its index; returns the index.

    Args:
        config: what is prepared.
        shard: the shard as planned.
        plan: the plan's identity.

    Raises:
        ConfigError, DataError: the stores cannot be read, or hold what is refused.
        StorageError: the shard cannot be written.
    """
    source = open_fields(config, checks=False)  # as they were before the first shard
    (stage,) = config.stage_specs
    directory = join(config.out, stage.name)
    channels = {part: source.channels(part) for part in ("high", "low")}
    static, state = source.static(), _Open()
    with ShardWriter(join(directory, shard.name)) as writer:
        for sample in _samples(source, shard):
            digest = content_digest(sample.high.tobytes() + sample.low.tobytes())
            records = list(_records(config, sample, static, digest))
            for record in records:
                writer.add(record.key, encode_field(record))
                state.measured.add(record, channels["high"], channels["low"])
                state.digests.append(digest)
                state.names.append(sample.name)
            if not records:
                state.rejects.append(_reject(sample, stage.high_size))
        sha256 = writer.commit()
        index = ShardIndex(
            shard=shard.name,
            fingerprint=fingerprint(config),
            plan=plan,
            num_bytes=writer.num_bytes if writer.keys else 0,
            sha256=sha256,
            keys=tuple(writer.keys),
            members=tuple(writer.members),
            digests=tuple(state.digests),
            names=tuple(state.names),
            labels=(None,) * len(state.names),
            rejects=tuple(state.rejects),
            statistics=state.measured.to_json(),
        )
    save_index(directory, index)
    return index


def _reject(sample: FieldSample, size: Size) -> Reject:
    height, width = sample.high.shape[-2:]
    if not fits_in(size, (height, width)):
        detail = f"{height}x{width}: not {rows_by_columns(size)} cells large"
        return Reject(sample.name, RejectReason.TOO_SMALL, detail)
    return Reject(sample.name, RejectReason.EMPTY, "none of its values is known")


def _samples(source: FieldSource, shard: FieldShard) -> Iterator[FieldSample]:
    several = _READ_AT_ONCE if source.times is not None else 1
    for start, stop in shard.ranges:
        for first in range(start, stop, several):
            yield from source.read(first, min(first + several, stop))


def _records(
    config: PrepareConfig, sample: FieldSample, static: np.ndarray | None, digest: str
) -> Iterator[FieldRecord]:
    """The crops of a sample in which something is known; the whole sample where it is of the stage's size."""
    (stage,) = config.stage_specs
    assert stage.low_size is not None, "PrepareConfig refuses base models of stores"
    (rows, columns), (low_rows, low_columns) = sides_of(stage.high_size), sides_of(stage.low_size)
    step = sample.high.shape[-1] // _common(sample.high.shape[-1], sample.low.shape[-1])
    room = tuple((side - cut) // step + 1 for side, cut in zip(sample.high.shape[-2:], (rows, columns), strict=True))
    key, left = record_key(sample.name, digest), config.crops_per_image
    block = {} if sample.block is None else {"block": sample.block}
    for row, column in places(config.seed, stage.high_size, key, (room[0], room[1])):
        top, first = row * step, column * step
        window = np.s_[..., top : top + rows, first : first + columns]
        valid = None if sample.valid is None else sample.valid[window]
        if valid is not None and not valid.any():
            continue
        at = top * low_rows // rows, first * low_columns // columns
        low = sample.low[..., at[0] : at[0] + low_rows, at[1] : at[1] + low_columns]
        if low.dtype.kind == "f" and not np.isfinite(low).all():
            return
        yield FieldRecord(
            record_key(f"{sample.name}@{top},{first}", digest),
            sample.high[window],
            low,
            None if static is None else static[window],
            valid,
            {"name": sample.name, "window": [top, first, rows, columns], **block},
        )
        left -= 1
        if not left:
            return


def _common(first: int, second: int) -> int:
    return int(np.gcd(first, second))
