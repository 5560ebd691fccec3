"""The work of one Ray task: a shard's planned images -> a tar and an index per stage; each image is decoded once."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from pipelines.images.decoding import DecodedImage, decode_image
from pipelines.images.rejects import DecodeError, Reject, RejectReason
from pipelines.prepare.plan.shard_plan import PlannedShard, load_items
from pipelines.prepare.sources.items import SourceItem
from pipelines.prepare.writing.crops import Piece, pieces
from pipelines.prepare.writing.guarded_decoding import Call, guarded_calls
from pipelines.prepare.writing.pairs import Reading, check_pair, readings_of
from pipelines.prepare.writing.read_ahead import Read, read_ahead
from pipelines.prepare.writing.span_reads import SpanReads
from pipelines.runtime.allocator import keep_freed_memory
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import StageSpec
from pipelines.shards.manifest import ShardIndex, save_index
from pipelines.shards.records import content_digest, encode_record, make_pixels
from pipelines.shards.summaries import ShardSummary, summarise
from pipelines.shards.tar_writer import ShardWriter
from pipelines.storage.uris import join
from sr3core.config import fingerprint
from sr3core.sizes import Size, fits_in, rows_by_columns, sides_of


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
    """Time by kind of work: "read", "decode", "align", "compare", "resize", "encode", "write"."""
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
        wanted = [reading for i in items if i.name not in task.duplicates for reading in readings_of(config, i)]
        reads = read_ahead(wanted, SpanReads(wanted).read)
        stack.callback(reads.close)
        for item in items:
            report.num_images += 1
            if not _add_image(config, item, shards, task.duplicates, reads, call, report):
                report.num_rejects += 1
        with report.timed("write"):
            for shard in shards:
                report.summaries[shard.stage.name] = _finish(config, task, shard)
    return report


@dataclass(frozen=True, slots=True)
class _Picture:
    """A decoded image, perhaps with its given low-resolution image."""

    pixels: np.ndarray
    low: np.ndarray | None
    digest: str
    meta: dict[str, object]


def _add_image(
    config: PrepareConfig,
    item: SourceItem,
    shards: Sequence[_Open],
    duplicates: Mapping[str, str],
    reads: Iterator[tuple[Reading, Read]],
    call: Call,
    report: ShardReport,
) -> bool:
    """Add one image to the shards; False if one of them rejected it."""
    try:
        if item.name in duplicates:
            raise DecodeError(RejectReason.DUPLICATE, f"the same bytes as {duplicates[item.name]!r}")
        waiting = [next(reads)[1] for _ in readings_of(config, item)]
        picture = _picture(config, item, waiting, call, report)
    except DecodeError as error:
        for shard in shards:
            shard.rejects.append(Reject(item.name, error.reason, error.detail))
        return False
    height, width = picture.pixels.shape[:2]
    fits = True
    for shard in shards:
        if not fits_in(shard.stage.high_size, (height, width)):
            detail = f"{width}x{height}: {_too_small(shard.stage.high_size)}"
            shard.rejects.append(Reject(item.name, RejectReason.TOO_SMALL, detail))
            fits = False
            continue
        fits &= _add_pieces(config, item, shard, picture, report)
    return fits


def _too_small(size: Size) -> str:
    if isinstance(size, int):
        return f"the shorter side is below {size}"
    return f"not {size[1]} pixels wide and {size[0]} high"


def _picture(
    config: PrepareConfig, item: SourceItem, waiting: Sequence[Read], call: Call, report: ShardReport
) -> _Picture:
    """Read and decode an image, and its given low-resolution image if it has one.

    Raises:
        DecodeError: it cannot be used; carries the reason.
    """
    with report.timed("read"):
        data = waiting[0]()
    with report.timed("decode"):
        image = call(decode_image, data)
    if config.align_faces:
        with report.timed("align"):
            image = call(_aligned, image, max(max(sides_of(stage.high_size)) for stage in config.stage_specs))
    height, width = image.pixels.shape[:2]
    meta: dict[str, object] = {"name": item.name, "width": width, "height": height, "format": image.format}
    meta["notes"] = list(image.notes)
    if item.synset is not None:
        meta["synset"] = item.synset
    low = None
    if len(waiting) > 1:
        low, data_of_both, noted = _low_picture(config, data, image.pixels, waiting[1], call, report)
        data, meta = data_of_both, meta | noted
    with report.timed("read"):
        digest = content_digest(data)
    return _Picture(image.pixels, low, digest, meta)


def _low_picture(
    config: PrepareConfig, data: bytes, pixels: np.ndarray, read: Read, call: Call, report: ShardReport
) -> tuple[np.ndarray, bytes, dict[str, list[float]]]:
    """The given low-resolution image of an image, the bytes of both, and what is noted of the pair."""
    try:
        with report.timed("read"):
            low_data = read()
        with report.timed("decode"):
            low = call(decode_image, low_data).pixels
    except DecodeError as error:
        raise DecodeError(error.reason, f"its low-resolution image: {error.detail}") from error
    with report.timed("compare"):
        return low, data + low_data, check_pair(config, pixels, low)


def _add_pieces(
    config: PrepareConfig,
    item: SourceItem,
    shard: _Open,
    picture: _Picture,
    report: ShardReport,
) -> bool:
    """Add the records of an image that is large enough to a shard; False if it is rejected since all of it is flat."""
    before = len(shard.digests)
    low = None if shard.stage.low_size is None else picture.low
    for piece in pieces(config, shard.stage, item.name, picture.digest, picture.pixels, low):
        _add_sample(config, shard, piece, item.label, picture.meta | piece.meta, report)
        shard.digests.append(picture.digest)
        shard.names.append(item.name)
        shard.labels.append(item.label)
    if len(shard.digests) == before:
        detail = f"every crop of {rows_by_columns(shard.stage.high_size)} pixels that was tried is flat"
        shard.rejects.append(Reject(item.name, RejectReason.FLAT, detail))
    return len(shard.digests) > before


def _aligned(image: DecodedImage, largest: int) -> DecodedImage:
    from pipelines.images.face_alignment import align_face  # an extra, and seconds to load

    return replace(image, pixels=align_face(image.pixels, largest), notes=(*image.notes, "face aligned"))


def _add_sample(
    config: PrepareConfig,
    shard: _Open,
    piece: Piece,
    label: int | None,
    meta: dict[str, object],
    report: ShardReport,
) -> None:
    with report.timed("resize"):
        high, low = (piece.pixels, piece.low) if piece.low is not None else make_pixels(piece.pixels, shard.stage)
    with report.timed("encode"):
        members = encode_record(config, piece.key, high, low, label, meta)
    with report.timed("write"):
        shard.writer.add(piece.key, members)
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
