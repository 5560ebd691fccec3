"""Which image goes to which shard: decided before any image is read, so that scheduling cannot change it.

OUT/prepare.json holds the configuration and an entry for each shard; OUT/plan.jsonl holds a line for each shard with
its images, which a worker reads by offset: neither the driver nor the object store carries millions of names. Images
that are added to the source later get shards of their own, whose lines are in OUT/plan-0001.jsonl and so on.
"""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from shlex import quote
from typing import Any

from pipelines.prepare.plan.plan_lines import PlanLines
from pipelines.prepare.sources.items import SourceItem, from_row
from pipelines.runtime.provenance import provenance
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import FORMAT_VERSION
from pipelines.storage.uris import exists, join, read_chunks, read_range, write_atomic
from pipelines.storage.versioned_json import JsonFormat
from sr3core import strict_json
from sr3core.config import differences, fingerprint_of, scientific
from sr3core.errors import ConfigError, DataError

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


def write_plan(config: PrepareConfig, plan: Plan, lines: PlanLines) -> None:
    """Write the lines of a plan's last addition, then the plan, which refers to them."""
    lines.save(_lines_path(config.out, len(plan.additions)))
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
        remedy = f"run `sr3 prepare --out {quote(str(out))}`"
        raise DataError(f"{out} holds no {PLAN}: nothing has been prepared there; {remedy}")
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
    return _decode_line(path, shard, read_range(path, shard.offset, shard.size))


def planned_items(out: str, plan: Plan) -> Iterator[SourceItem]:
    """Every image of a plan, its files read from beginning to end instead of line by line."""
    for addition, shards in itertools.groupby(plan.shards, key=lambda shard: shard.addition):
        path = _lines_path(out, addition)
        chunks, buffer = read_chunks(path), bytearray()
        for shard in shards:
            while len(buffer) < shard.size and (chunk := next(chunks, b"")):
                buffer += chunk
            yield from _decode_line(path, shard, bytes(buffer[: shard.size]))
            del buffer[: shard.size]


def _decode_line(path: str, shard: PlannedShard, line: bytes) -> list[SourceItem]:
    if hashlib.sha256(line).hexdigest()[:16] != shard.fingerprint:
        raise DataError(f"{path}: the line of {shard.name} is damaged; prepare into another --out")
    return [from_row(row) for row in strict_json.loads(line)]
