"""Dealing a source's images to shards: a pure function of their names, so that every run arrives at the same plan."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from pipelines.prepare.plan.buckets import (
    NUM_BUCKETS,
    SEGMENT_BYTES,
    Buckets,
    Record,
    Splitter,
    decode_row,
    sorted_records,
)
from pipelines.prepare.plan.plan_lines import PlanLines
from pipelines.prepare.plan.shard_plan import Plan, PlannedShard, planned_items
from pipelines.prepare.sources.items import Parts, Source
from pipelines.runtime.tasks import map_in_tasks
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS
from sr3core.config import fingerprint
from sr3core.errors import DataError

Conflict = tuple[str, int | None, int | None]
"""An image, its class in the plan, and its class now."""


def plan_shards(
    config: PrepareConfig, source: Source, images_per_shard: int | None = None, fill_splits: bool = True
) -> tuple[Plan, PlanLines]:
    """Deal a source's images to shards, and encode the lines of plan.jsonl.

    A hash of its name decides the split of an image. A held-out split that came out empty, as a small fraction of a few
    dozen images may, gets the image that is nearest to it by its hash. Inside a split the order is by hash too, so that
    each shard mixes the source's folders; the rows of a parquet row group stay together, since a group is read as a
    whole, and if it is asked for, so do neighbours in a tar.

    Args:
        config: fractions of the splits, seed, images a shard.
        source: what is dealt.
        images_per_shard: the number that the configuration asks for if None; earlier versions knew no bound in bytes.
        fill_splits: False leaves a split empty, as earlier versions did.
    """
    fractions = config.validation_fraction, config.test_fraction
    splitter = Splitter(config.seed, *fractions, source.class_names, _segment_bytes(config))
    buckets = Buckets(splitter, source.parts)
    if fill_splits:
        _fill_splits(splitter, buckets)
    lines = PlanLines()
    shards = tuple(_deal(buckets, images_per_shard or config.images_per_shard, lines))
    plan = Plan(
        fingerprint(config),
        lines.fingerprint,
        source.layout,
        source.num_images,
        len(source.ignored),
        shards,
    )
    return plan, lines


def _segment_bytes(config: PrepareConfig) -> int:
    return SEGMENT_BYTES if config.group_tars else 0


def plan_addition(config: PrepareConfig, source: Source, plan: Plan) -> tuple[Plan, PlanLines] | None:
    """Extend a plan by the images whose names it does not hold; None if there are none.

    All of them are for training, in shards of their own. The held-out splits stay as they are, so that models trained
    before and after are measured on the same images, which neither has seen.

    Raises:
        DataError: an image of the plan has another class now.
    """
    splitter = Splitter(config.seed, class_names=source.class_names)
    buckets = Buckets(splitter, source.parts)
    _remove_known(config, buckets, Buckets(splitter, Parts.of(planned_items(config.out, plan))))
    num_new = buckets.num_records("train")
    if not num_new:
        return None
    if config.group_tars:  # which images are new goes by their names; then they are put in order by their places
        new = (decode_row(row) for bucket in range(NUM_BUCKETS) for _, row in buckets.records("train", bucket))
        buckets = Buckets(replace(splitter, segment_bytes=_segment_bytes(config)), Parts.of(new))
    addition = len(plan.additions) + 1
    first = sum(shard.split == "train" for shard in plan.shards)
    lines = PlanLines()
    shards = tuple(_deal(buckets, config.images_per_shard, lines, addition, first))
    extended = replace(
        plan,
        num_images=plan.num_images + num_new,
        num_ignored=len(source.ignored),
        shards=(*plan.shards, *shards),
        additions=(*plan.additions, lines.fingerprint),
    )
    return extended, lines


def _deal(
    buckets: Buckets, images_per_shard: int, lines: PlanLines, addition: int = 0, first_number: int = 0
) -> Iterator[PlannedShard]:
    """Yield the shards of each split in turn, while their lines are written."""
    for split in SPLITS:
        number, count = first_number, 0
        for piece in buckets.map_ordered(split, partial(_pieces, images_per_shard)):
            lines.add_rows(piece[1])
            count += piece[0]
            if count == images_per_shard:
                yield _end_shard(lines, split, number, count, addition)
                number, count = number + 1, 0
        if count:
            yield _end_shard(lines, split, number, count, addition)


def _end_shard(lines: PlanLines, split: str, number: int, count: int, addition: int) -> PlannedShard:
    offset, size, digest = lines.end_line()
    return PlannedShard(f"{split}-{number:06d}.tar", split, count, offset, size, digest, addition)


def _pieces(images_per_shard: int, load: tuple[int, list[bytes]]) -> list[tuple[int, bytes]]:
    """Number and rows of the images of each shard, as far as some consecutive buckets hold them: one task."""
    before, blocks = load
    rows = [row for _, row in sorted_records(blocks)]
    start = -(before % images_per_shard)
    ranges = (rows[max(first, 0) : first + images_per_shard] for first in range(start, len(rows), images_per_shard))
    return [(len(some), b",".join(some)) for some in ranges if some]


def _remove_known(config: PrepareConfig, buckets: Buckets, known: Buckets) -> None:
    """Leave the images alone whose names are not known.

    Raises:
        DataError: a known image has another class now.
    """
    loads = ((buckets.blocks("train", b), known.blocks("train", b)) for b in range(NUM_BUCKETS))
    conflicts: list[Conflict] = []
    for bucket, (new, changed) in enumerate(map_in_tasks(_new_records, loads)):
        buckets.replace("train", bucket, new)
        conflicts += changed
    if conflicts:
        name, before, now = min(conflicts, key=lambda conflict: conflict[0])
        raise DataError(
            f"source: {name} was of class {before} and is now of {now}: classes in {config.source} were added or"
            " removed; let a new class's folder sort last, or use another --out"
        )


def _new_records(load: tuple[list[bytes], list[bytes]]) -> tuple[list[Record], list[Conflict]]:
    """Records of one bucket whose images another does not know, and known ones that have another class: one task."""
    mine, theirs = ([record for block in blocks for record in pickle.loads(block)] for blocks in load)
    known = {item.name: item.label for item in (decode_row(row) for _, row in theirs)}
    new, changed = [], []
    for record in mine:
        item = decode_row(record[1])
        if item.name not in known:
            new.append(record)
        elif known[item.name] != item.label:
            changed.append((item.name, known[item.name], item.label))
    return new, changed


def _fill_splits(splitter: Splitter, buckets: Buckets) -> None:
    """Give each held-out split that is wanted but empty the training image of the smallest draw; training keeps one."""
    wanted = {"validation": splitter.validation_fraction, "test": splitter.test_fraction}
    for split, fraction in wanted.items():
        if fraction <= 0 or buckets.num_records(split):
            continue
        images = buckets.map_ordered("train", partial(_nearest, splitter))
        nearest = sorted(images)[:2]
        if len(nearest) > 1:
            _, _, record = nearest[0]
            bucket = record[0][0]
            kept = buckets.records("train", bucket)
            kept.remove(record)
            buckets.replace("train", bucket, kept)
            buckets.replace(split, bucket, [record])


def _nearest(splitter: Splitter, load: tuple[int, list[bytes]]) -> list[tuple[float, str, Record]]:
    """Draw, name and record of the two images of the smallest draws, of those that are neither repeated nor damaged."""
    images = ((decode_row(record[1]), record) for record in sorted_records(load[1]))
    usable = [(splitter.draw(i.name), i.name, r) for i, r in images if i.how not in ("repeated", "damaged")]
    return sorted(usable)[:2]
