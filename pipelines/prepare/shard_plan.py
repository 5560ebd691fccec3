"""Which image goes to which shard: decided before any image is read, so that scheduling cannot change it.

OUT/prepare.json holds the configuration and an entry for each shard; OUT/plan.jsonl holds a line for each shard with
its images, which a worker reads by offset: neither the driver nor the object store carries millions of names. Images
that are added to the source later get shards of their own, whose lines are in OUT/plan-0001.jsonl and so on.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipelines.prepare.sources.items import Source, SourceItem
from pipelines.runtime.provenance import provenance
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS
from pipelines.shards.manifest import FORMAT_VERSION
from pipelines.storage.uris import exists, join, read_range, write_atomic
from pipelines.storage.versioned_json import JsonFormat
from sr3core import strict_json
from sr3core.config import differences, fingerprint, fingerprint_of, scientific
from sr3core.errors import ConfigError, DataError
from sr3core.randomness import derive_seed

PLAN, PLAN_LINES = "prepare.json", "plan.jsonl"

_FORMAT = JsonFormat(
    title="plan",
    version=FORMAT_VERSION,
    if_damaged="prepare into another --out",
    if_other_version="prepare into another --out",
)


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard to write, the same for every stage."""

    name: str
    """File name, such as train-000000.tar."""
    split: str
    """ "train", "validation" or "test"."""
    num_images: int
    """Images planned; rejected ones will be missing."""
    offset: int
    """First byte of its line in plan.jsonl."""
    size: int
    """Bytes of that line."""
    fingerprint: str
    """Hash of that line."""
    addition: int = 0
    """Number of the addition to the source that it came with; 0 for the original source."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All shards of a preparation."""

    fingerprint: str
    """Fingerprint of the configuration."""
    source_fingerprint: str
    """Hash of the names in the source."""
    layout: str
    """Layout of the source."""
    num_images: int
    """Images in the source."""
    num_ignored: int
    """Files in the source that are not images, judging by their names."""
    shards: tuple[PlannedShard, ...]
    """Shards in order of their names; those of an addition follow all earlier ones."""
    additions: tuple[str, ...] = ()
    """Hash of the names that each addition to the source brought."""

    @property
    def identity(self) -> str:
        """Fingerprint of the configuration and of all additions, by which manifests are told apart."""
        return fingerprint_of([self.fingerprint, *self.additions]) if self.additions else self.fingerprint

    def num_planned(self, split: str) -> int:
        """Images planned for a split; rejected ones will be missing."""
        return sum(shard.num_images for shard in self.shards if shard.split == split)


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
    known = {item.name: item.label for shard in plan.shards for item in load_items(config.out, shard)}
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


def write_plan(config: PrepareConfig, plan: Plan, lines: bytes) -> None:
    """Write the lines of a plan's last addition, then the plan, which refers to them."""
    write_atomic(_lines_path(config.out, len(plan.additions)), lines)
    data = {"config": scientific(config), **asdict(plan)}
    data["provenance"] = provenance(config, {"source": plan.source_fingerprint})
    write_atomic(join(config.out, PLAN), _FORMAT.encode(data))


def is_begun(config: PrepareConfig, plan: Plan) -> bool:
    """Whether config.out was started with this plan; False if it was not started at all.

    Raises:
        ConfigError: it was started with a different configuration; names every difference.
        DataError: the source has changed since it was begun.
    """
    path = join(config.out, PLAN)
    if not exists(path):
        return False
    before = _FORMAT.read(path)
    _check_config(config, before)
    if before["source_fingerprint"] != plan.source_fingerprint:
        raise DataError(
            f"source: {config.source} has changed since {config.out} was begun ({before['num_images']} images then,"
            f" {plan.num_images} now, or other names); use another --out, or --add-new to prepare the new images"
        )
    return True


def load_own_plan(config: PrepareConfig) -> Plan:
    """Read the plan in config.out, which must have been started with the same configuration.

    Raises:
        ConfigError: it was started with a different one; names every difference.
        DataError: there is no plan, or it is damaged.
    """
    plan, _ = load_plan(config.out)
    _check_config(config, _FORMAT.read(join(config.out, PLAN)))
    return plan


def _lines_path(out: str, addition: int) -> str:
    return join(out, f"plan-{addition:04d}.jsonl" if addition else PLAN_LINES)


def _check_config(config: PrepareConfig, before: dict[str, Any]) -> None:
    changed = differences(before["config"], strict_json.plain(scientific(config)))
    if changed:
        raise ConfigError(
            f"out: {config.out} was started with a different configuration ({'; '.join(changed)});"
            " use another --out, or the configuration that it was started with"
        )


def load_plan(out: str) -> tuple[Plan, tuple[str, ...]]:
    """Read the plan of a preparation and the names of its stages.

    Raises:
        DataError: there is no plan, or it is damaged.
    """
    path = join(out, PLAN)
    if not exists(path):
        raise DataError(f"{out} holds no {PLAN}: nothing has been prepared there; run `sr3 prepare --out {out}`")
    data = _FORMAT.read(path)
    with _FORMAT.decoding(path):
        shards = tuple(PlannedShard(**shard) for shard in data["shards"])
        plan = Plan(
            data["fingerprint"],
            data["source_fingerprint"],
            data["layout"],
            data["num_images"],
            data["num_ignored"],
            shards,
            tuple(data.get("additions", ())),
        )
        return plan, tuple(data["config"]["stages"])


def load_items(out: str, shard: PlannedShard) -> list[SourceItem]:
    """Read the images that are planned for a shard.

    Raises:
        DataError: its line in the plan is damaged.
    """
    path = _lines_path(out, shard.addition)
    line = read_range(path, shard.offset, shard.size)
    if hashlib.sha256(line).hexdigest()[:16] != shard.fingerprint:
        raise DataError(f"{path}: the line of {shard.name} is damaged; prepare into another --out")
    return [SourceItem(*row) for row in strict_json.loads(line)]


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
