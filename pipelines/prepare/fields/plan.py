"""The plan of a preparation of stores: which samples become which shard, in ranges that are read at once."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipelines.prepare.fields.source import FieldSource
from pipelines.prepare.fields.splits import split_samples
from pipelines.prepare.plan.shard_plan import PLAN
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS, Split
from pipelines.shards.manifest import index_path
from pipelines.storage.uris import exists, join, write_atomic
from pipelines.storage.versioned_json import JsonFormat
from sr3core.config import fingerprint, fingerprint_of
from sr3core.errors import ConfigError
from sr3core.sizes import num_pixels

FIELD_PLAN = "fields.json"
"""File of the plan in a preparation's folder."""

_FORMAT = JsonFormat(
    title="plan of fields",
    version=1,
    name="sr3-fields-plan",
    if_damaged="delete the folder and run `sr3 prepare` again",
    if_other_version="prepare into another --out",
)


@dataclass(frozen=True, slots=True)
class FieldShard:
    """A shard to write."""

    name: str
    """File name, such as train-000000.tar."""
    split: Split
    ranges: tuple[tuple[int, int], ...]
    """Samples start..stop - 1 of the source, in their order."""

    @property
    def num_samples(self) -> int:
        """Samples of the source that it is made from."""
        return sum(stop - start for start, stop in self.ranges)


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """All shards of a preparation."""

    config_fingerprint: str
    source_fingerprint: str
    """Of the names, variables and grids of the stores."""
    num_samples: int
    """Samples of the source."""
    num_left_out: int
    """Of these, training samples within the gap of a held-out block."""
    shards: tuple[FieldShard, ...]

    @property
    def identity(self) -> str:
        """Fingerprint of configuration and source."""
        return fingerprint_of([self.config_fingerprint, self.source_fingerprint])

    def num_planned(self, split: str) -> int:
        """Samples of the source in a split."""
        return sum(shard.num_samples for shard in self.shards if shard.split == split)


def plan_fields(source: FieldSource) -> FieldPlan:
    """Deal the samples of a source to shards; a shard's samples are of one split, in the order of the source.

    Raises:
        ConfigError, DataError: see split_samples.
    """
    splits = split_samples(source.config, source.names, source.times)
    found = [
        FieldShard(f"{split}-{number:06d}.tar", split, ranges)
        for split in SPLITS
        for number, ranges in enumerate(_ranges([i for i, found in enumerate(splits) if found == split], source))
    ]
    return FieldPlan(fingerprint(source.config), _identity(source), len(splits), splits.count(None), tuple(found))


def _ranges(numbers: list[int], source: FieldSource) -> Iterator[tuple[tuple[int, int], ...]]:
    """The samples of a split, dealt to shards; the chunks of a store stay together where they can."""
    most = _samples_per_shard(source)
    groups: dict[int, list[int]] = defaultdict(list)
    for number in numbers:
        groups[number // source.high_store.chunk].append(number)
    taken: list[int] = []
    for group in groups.values():
        for start in range(0, len(group), most):
            part = group[start : start + most]
            if taken and len(taken) + len(part) > most:
                yield _runs(taken)
                taken = []
            taken += part
    if taken:
        yield _runs(taken)


def _samples_per_shard(source: FieldSource) -> int:
    config, (stage,) = source.config, source.config.stage_specs
    values = (len(source.high_names) + len(source.static_names)) * num_pixels(stage.high_size)
    values += len(source.low_names) * num_pixels(stage.low_size)
    few = config.shard_bytes // (4 * values) if config.shard_bytes else config.samples_per_shard
    return max(1, min(config.samples_per_shard, few) // config.crops_per_image)


def _runs(numbers: list[int]) -> tuple[tuple[int, int], ...]:
    """Increasing numbers as runs of neighbours."""
    breaks = np.flatnonzero(np.diff(numbers) != 1) + 1
    parts = np.split(np.array(numbers), breaks)
    return tuple((int(part[0]), int(part[-1]) + 1) for part in parts)


def _identity(source: FieldSource) -> str:
    variables = [
        [v.name, v.units, list(v.size), str(v.dtype)]
        for store, names in (
            (source.high_store, source.high_names + source.static_names),
            (source.low_store, source.low_names),
        )
        for v in (store.variables[name] for name in names)
    ]
    return fingerprint_of([list(source.names), variables])


def begin_plan(config: PrepareConfig, plan: FieldPlan) -> None:
    """Write the plan, unless it is there.

    Raises:
        ConfigError: the folder was begun with another configuration, or of another source.
    """
    path, old = join(config.out, FIELD_PLAN), None
    if exists(path):
        old = load_plan(config.out)
        if old == plan:
            return
        if not _is_begun(config, old):
            old = None  # of which nothing was written
    if old is not None:
        what = "configuration" if old.config_fingerprint != plan.config_fingerprint else "source"
        raise ConfigError(
            f"{config.out} was begun with another {what}; choose another --out, or delete it to begin anew"
        )
    if exists(join(config.out, PLAN)):
        raise ConfigError(f"{config.out} holds prepared images; choose another --out for fields")
    content: dict[str, Any] = {**asdict(plan), "stages": list(config.stages)}
    write_atomic(path, _FORMAT.encode(content))


def _is_begun(config: PrepareConfig, plan: FieldPlan) -> bool:
    """Whether a shard of a plan is written."""
    places = ((join(config.out, stage), shard.name) for stage in config.stages for shard in plan.shards)
    return any(exists(index_path(*place)) for place in places)


def load_plan(out: str) -> FieldPlan:
    """Read the plan of a preparation of fields.

    Raises:
        DataError: it is damaged, or of another version.
        StorageError: it does not exist.
    """
    path = join(out, FIELD_PLAN)
    data = _FORMAT.read(path)
    with _FORMAT.decoding(path):
        return FieldPlan(
            data["config_fingerprint"],
            data["source_fingerprint"],
            data["num_samples"],
            data["num_left_out"],
            tuple(FieldShard(s["name"], s["split"], tuple((r[0], r[1]) for r in s["ranges"])) for s in data["shards"]),
        )


def planned_stages(out: str) -> tuple[str, ...]:
    """Names of the stages of a preparation of fields."""
    data = _FORMAT.read(join(out, FIELD_PLAN))
    with _FORMAT.decoding(join(out, FIELD_PLAN)):
        return tuple(str(name) for name in data["stages"])
