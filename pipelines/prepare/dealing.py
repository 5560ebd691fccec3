"""Dealing a source's images to shards: a pure function of their names, so that every run arrives at the same plan."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipelines.prepare.shard_plan import Plan, PlannedShard, planned_items
from pipelines.prepare.sources.items import Source, SourceItem
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS
from sr3core import strict_json
from sr3core.config import fingerprint
from sr3core.errors import DataError
from sr3core.randomness import derive_seed


def plan_shards(config: PrepareConfig, source: Source, fill_splits: bool = True) -> tuple[Plan, bytes]:
    """Deal a source's images to shards, and encode the lines of plan.jsonl.

    A hash of its name decides the split of an image. A held-out split that came out empty, as a small fraction of a few
    dozen images may, gets the image that is nearest to it by its hash. Inside a split the order is by hash too, so that
    each shard mixes the source's folders; the rows of a parquet row group stay together, since a group is read as a
    whole.

    Args:
        config: fractions of the splits, seed, images a shard.
        source: what is dealt.
        fill_splits: False leaves a split empty, as earlier versions did.
    """
    by_split: dict[str, list[SourceItem]] = defaultdict(list)
    for item in source.items:
        by_split[_split_of(config, _draw(config, item))].append(item)
    if fill_splits:
        _fill_splits(config, by_split)
    shards, encoded = _deal(by_split, config.images_per_shard, config.seed)
    plan = Plan(
        fingerprint(config),
        hashlib.sha256(encoded).hexdigest()[:16],
        source.layout,
        len(source.items),
        len(source.ignored),
        tuple(shards),
    )
    return plan, encoded


def plan_addition(config: PrepareConfig, source: Source, plan: Plan) -> tuple[Plan, bytes] | None:
    """Extend a plan by the images whose names it does not hold; None if there are none.

    All of them are for training, in shards of their own. The held-out splits stay as they are, so that models trained
    before and after are measured on the same images, which neither has seen.

    Raises:
        DataError: an image of the plan has another class now.
    """
    known = {item.name: item.label for item in planned_items(config.out, plan)}
    for item in source.items:
        if item.name in known and known[item.name] != item.label:
            raise DataError(
                f"source: {item.name} was of class {known[item.name]} and is now of {item.label}: classes in"
                f" {config.source} were added or removed; let a new class's folder sort last, or use another --out"
            )
    new = [item for item in source.items if item.name not in known]
    if not new:
        return None
    addition = len(plan.additions) + 1
    first = sum(shard.split == "train" for shard in plan.shards)
    shards, encoded = _deal({"train": new}, config.images_per_shard, config.seed, addition, first)
    extended = replace(
        plan,
        num_images=plan.num_images + len(new),
        num_ignored=len(source.ignored),
        shards=(*plan.shards, *shards),
        additions=(*plan.additions, hashlib.sha256(encoded).hexdigest()[:16]),
    )
    return extended, encoded


def _deal(
    by_split: Mapping[str, Sequence[SourceItem]],
    images_per_shard: int,
    seed: int,
    addition: int = 0,
    first_number: int = 0,
) -> tuple[list[PlannedShard], bytes]:
    shards, lines, offset = [], [], 0
    for split in SPLITS:
        ordered = sorted(by_split.get(split, ()), key=lambda item: (_order_key(seed, item), item))
        for index, first in enumerate(range(0, len(ordered), images_per_shard), first_number):
            items = ordered[first : first + images_per_shard]
            line = (strict_json.dumps(items, separators=(",", ":")) + "\n").encode()
            digest = hashlib.sha256(line).hexdigest()[:16]
            name = f"{split}-{index:06d}.tar"
            shards.append(PlannedShard(name, split, len(items), offset, len(line), digest, addition))
            lines.append(line)
            offset += len(line)
    return shards, b"".join(lines)


def _draw(config: PrepareConfig, item: SourceItem) -> float:
    """The number in [0, 1) that decides an image's split."""
    return derive_seed(config.seed, "split", _digest(item).hex()) / 2**63


def _fill_splits(config: PrepareConfig, by_split: dict[str, list[SourceItem]]) -> None:
    """Give each held-out split that is wanted but empty the training image of the smallest draw; training keeps one."""
    wanted = {"validation": config.validation_fraction, "test": config.test_fraction}
    for split, fraction in wanted.items():
        images = [item for item in by_split["train"] if item.how not in ("repeated", "damaged")]
        if fraction > 0 and not by_split[split] and len(images) > 1:
            nearest = min(images, key=lambda item: (_draw(config, item), item.name))
            by_split["train"].remove(nearest)
            by_split[split].append(nearest)


def _split_of(config: PrepareConfig, draw: float) -> str:
    if draw < config.validation_fraction:
        return "validation"
    return "test" if draw < config.validation_fraction + config.test_fraction else "train"


def _digest(item: SourceItem) -> bytes:
    return hashlib.sha256(item.name.encode("utf-8", "surrogateescape")).digest()


def _order_key(seed: int, item: SourceItem) -> bytes:
    if item.how == "row":
        group = hashlib.sha256(f"{seed}/{item.path}/{item.offset}".encode("utf-8", "surrogateescape"))
        return group.digest() + item.size.to_bytes(8, "big")
    return hashlib.sha256(str(seed).encode() + _digest(item)).digest()
