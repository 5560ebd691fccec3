"""The work of one Ray task: a shard's planned images -> a tar and an index per stage; each image is decoded once."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from pipelines.images.decoding import DecodedImage, decode_image
from pipelines.images.rejects import DecodeError, Reject, RejectReason
from pipelines.prepare.plan.shard_plan import PlannedShard, load_items
from pipelines.prepare.sources.items import SourceItem
from pipelines.prepare.sources.listing import read_item
from pipelines.prepare.writing.crops import pieces
from pipelines.prepare.writing.guarded_decoding import Call, guarded_calls
from pipelines.prepare.writing.read_ahead import Read, read_ahead
from pipelines.runtime.allocator import keep_freed_memory
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import StageSpec
from pipelines.shards.manifest import ShardIndex, save_index
from pipelines.shards.records import content_digest, encode_record, make_pixels
from pipelines.shards.summaries import ShardSummary, summarise
from pipelines.shards.tar_writer import ShardWriter
from pipelines.storage.uris import join
from sr3core.config import fingerprint


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A shard to write."""

    shard: PlannedShard
    """The shard as planned."""
    stages: tuple[str, ...]
    """Names of the stages to write it for."""
    duplicates: Mapping[str, str] = field(default_factory=dict)
    """Name of each image to leave out as a duplicate -> name under which its bytes are kept."""
    isolated: bool = False
    """Whether each image is decoded in a process of its own, since a process that wrote the shard has died."""


@dataclass(slots=True)
class ShardReport:
    """What a task has done."""

    shard: str
    """File name of the shard."""
    num_images: int = 0
    """Images read."""
    num_samples: int = 0
    """Samples written, all stages together."""
    num_rejects: int = 0
    """Images that one stage or more rejected."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time by kind of work: "read", "decode", "align", "resize", "encode", "write"."""
    summaries: dict[str, ShardSummary] = field(default_factory=dict)
    """Stage -> summary of the shard that was written for it."""

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the duration of a block to a kind of work."""
        start = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


@dataclass(slots=True)
class _Open:
    """A shard of one stage while it is being written."""

    stage: StageSpec
    writer: ShardWriter
    digests: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def write_shard(config: PrepareConfig, task: ShardTask) -> ShardReport:
    """Write a shard for every stage of a task, with one image in memory at a time.

    Raises:
        StorageError: the output cannot be written; no unfinished shards remain.
    """
    keep_freed_memory()
    report = ShardReport(task.shard.name)
    with ExitStack() as stack:
        shards = [
            _Open(stage, stack.enter_context(ShardWriter(join(config.out, stage.name, task.shard.name))))
            for stage in config.stage_specs
            if stage.name in task.stages
        ]
        call = stack.enter_context(guarded_calls(config, task.isolated))
        items = load_items(config.out, task.shard)
        reads = read_ahead([i for i in items if i.name not in task.duplicates], _reader(config))
        stack.callback(reads.close)
        for item in items:
            report.num_images += 1
            if not _add_image(config, item, shards, task.duplicates, reads, call, report):
                report.num_rejects += 1
        with report.timed("write"):
            for shard in shards:
                report.summaries[shard.stage.name] = _finish(config, task, shard)
    return report


def _reader(config: PrepareConfig) -> Callable[[SourceItem], bytes]:
    return lambda item: read_item(config.source, item, config.image_column)


def _add_image(
    config: PrepareConfig,
    item: SourceItem,
    shards: Sequence[_Open],
    duplicates: Mapping[str, str],
    reads: Iterator[tuple[SourceItem, Read]],
    call: Call,
    report: ShardReport,
) -> bool:
    """Add one image to the shards; False if one of them rejected it."""
    try:
        if item.name in duplicates:
            raise DecodeError(RejectReason.DUPLICATE, f"the same bytes as {duplicates[item.name]!r}")
        with report.timed("read"):
            _, read = next(reads)
            data = read()
        with report.timed("decode"):
            image = call(decode_image, data)
        if config.align_faces:
            with report.timed("align"):
                image = call(_aligned, image, max(stage.high_size for stage in config.stage_specs))
    except DecodeError as error:
        for shard in shards:
            shard.rejects.append(Reject(item.name, error.reason, error.detail))
        return False
    with report.timed("read"):
        digest = content_digest(data)
    height, width = image.pixels.shape[:2]
    meta = {"name": item.name, "width": width, "height": height, "format": image.format, "notes": list(image.notes)}
    if item.synset is not None:
        meta["synset"] = item.synset
    fits = True
    for shard in shards:
        if min(height, width) < shard.stage.high_size:
            detail = f"{width}x{height}: the shorter side is below {shard.stage.high_size}"
            shard.rejects.append(Reject(item.name, RejectReason.TOO_SMALL, detail))
            fits = False
            continue
        fits &= _add_pieces(config, item, shard, digest, image.pixels, meta, report)
    return fits


def _add_pieces(
    config: PrepareConfig,
    item: SourceItem,
    shard: _Open,
    digest: str,
    pixels: np.ndarray,
    meta: dict[str, object],
    report: ShardReport,
) -> bool:
    """Add the records of an image that is large enough to a shard; False if it is rejected since all of it is flat."""
    before = len(shard.digests)
    for piece in pieces(config, shard.stage, item.name, digest, pixels):
        _add_sample(config, shard, piece.key, piece.pixels, item.label, meta | piece.meta, report)
        shard.digests.append(digest)
        shard.names.append(item.name)
        shard.labels.append(item.label)
    if len(shard.digests) == before:
        detail = f"every crop of {shard.stage.high_size}x{shard.stage.high_size} pixels that was tried is flat"
        shard.rejects.append(Reject(item.name, RejectReason.FLAT, detail))
    return len(shard.digests) > before


def _aligned(image: DecodedImage, largest: int) -> DecodedImage:
    from pipelines.images.face_alignment import align_face  # an extra, and seconds to load

    return replace(image, pixels=align_face(image.pixels, largest), notes=(*image.notes, "face aligned"))


def _add_sample(
    config: PrepareConfig,
    shard: _Open,
    key: str,
    pixels: np.ndarray,
    label: int | None,
    meta: dict[str, object],
    report: ShardReport,
) -> None:
    with report.timed("resize"):
        high, low = make_pixels(pixels, shard.stage)
    with report.timed("encode"):
        members = encode_record(config, key, high, low, label, meta)
    with report.timed("write"):
        shard.writer.add(key, members)
    report.num_samples += 1


def _finish(config: PrepareConfig, task: ShardTask, shard: _Open) -> ShardSummary:
    """Commit the tar, then the index, which marks it complete."""
    sha256 = shard.writer.commit()
    index = ShardIndex(
        shard=task.shard.name,
        fingerprint=fingerprint(config),
        plan=task.shard.fingerprint,
        num_bytes=shard.writer.num_bytes,
        sha256=sha256,
        keys=tuple(shard.writer.keys),
        members=tuple(shard.writer.members),
        digests=tuple(shard.digests),
        names=tuple(shard.names),
        labels=tuple(shard.labels),
        rejects=tuple(shard.rejects),
        excluded=dict(sorted(task.duplicates.items())),
    )
    save_index(join(config.out, shard.stage.name), index)
    return summarise(index)
