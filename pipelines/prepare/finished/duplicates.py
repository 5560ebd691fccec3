"""Images whose bytes are in a source under several names: which copy is kept, and which shards to write again."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pipelines.prepare.plan.shard_plan import Plan
from pipelines.prepare.plan.stage_index import StageIndex
from pipelines.prepare.writing.shard_task import ShardTask
from pipelines.runtime.threads import map_in_threads
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import load_index
from pipelines.shards.summaries import DIGEST_BYTES, ShardSummary, images_of
from sr3core.sizes import fits_in

_SORTED_AT_ONCE = 10_000_000
"""Digests of 8 bytes each."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The duplicates of a preparation."""

    kept: dict[str, str] = field(default_factory=dict)
    """Name whose bytes also occur under a smaller name -> the smallest such name, which is kept."""
    suspects: dict[str, list[str]] = field(default_factory=dict)
    """Shard -> names of its images whose bytes occur elsewhere too."""

    def excluded_from(self, summary: ShardSummary) -> dict[str, str]:
        """Which of the images that were planned for a shard are to be left out, and what is kept for each."""
        if not self.kept:
            return {}
        planned = {row["path"] for row in summary.reject_rows()}
        planned.update(self.suspects.get(summary.shard, ()))  # no other image of the shard can be a duplicate
        return {name: self.kept[name] for name in sorted(planned & self.kept.keys())}


def tasks_without_duplicates(
    config: PrepareConfig, plan: Plan, stages: Mapping[str, StageIndex]
) -> Iterator[ShardTask]:
    """Yield a task for each finished shard that still holds a duplicate, or lacks an image that is no longer one.

    Duplicates can be found only once every image has been read. What is left out depends on names and bytes alone, so
    a run that was interrupted at any point arrives at the same shards.

    Args:
        config: what is prepared, and how.
        plan: all shards, each of which has been written at least once.
        stages: stage -> what its folder holds.
    """
    compared = [stages[name] for name in _stages_with_every_image(config)]
    duplicates = find_duplicates(plan, compared)
    for shard in plan.shards:
        excluded = duplicates.excluded_from(compared[0].summaries[shard.name])
        stale = [name for name, stage in stages.items() if stage.summaries[shard.name].excluded != excluded]
        if stale:
            yield ShardTask(shard, tuple(stale), excluded)


def _stages_with_every_image(config: PrepareConfig) -> tuple[str, ...]:
    """Stages that together hold every image that any stage holds."""
    if config.max_flat < 1:  # an image may have crops of any one size alone that are not flat
        return config.stages
    sizes = {stage.name: stage.high_size for stage in config.stage_specs}
    rejecting_fewest = [name for name, size in sizes.items() if all(fits_in(size, other) for other in sizes.values())]
    return tuple(rejecting_fewest[:1]) or config.stages  # of a portrait and a landscape size, neither holds all


def find_duplicates(plan: Plan, stages: Sequence[StageIndex]) -> Duplicates:
    """Find every name whose bytes also occur under a smaller name.

    Names from the original source count as smaller than names that a later addition brought: existing shards stay as
    they are, and no held-out image enters training under another name. The result depends on names and bytes alone; an
    interrupted run gets the same one, because the indices name the duplicates that it has already left out. Memory:
    8 bytes an image, and the names of duplicates only.

    Args:
        plan: all shards, each of which has been written at least once.
        stages: the stages whose images are compared.
    """
    found = Duplicates()
    shards = [shard.name for shard in plan.shards]
    for name in shards:
        for stage in stages:
            found.kept.update(stage.summaries[name].excluded)
    left_out = dict(found.kept)
    digests = (
        [_known_digests(stages[0], name) for name in shards] if len(stages) == 1 else _read_digests(stages, shards)
    )
    names_of = _suspected(plan, stages, digests, found)
    for names in names_of.values():
        (_, first), *others = sorted(names)
        found.kept.update({name: first for _, name in others})
    # An image that was rejected before and is none now may have the smallest name of all.
    found.kept.update({name: found.kept.get(kept, kept) for name, kept in left_out.items()})
    return found


def _suspected(
    plan: Plan, stages: Sequence[StageIndex], digests: Sequence[np.ndarray], found: Duplicates
) -> dict[str, list[tuple[int, str]]]:
    """Digest -> addition and name of each image that shares its first bytes with another; notes the names."""
    repeated = _repeated(digests)
    positions = [np.flatnonzero(np.isin(part, repeated)) if len(repeated) else () for part in digests]
    suspects = [(shard, where) for shard, where in zip(plan.shards, positions, strict=True) if len(where)]
    names_of: dict[str, list[tuple[int, str]]] = defaultdict(list)
    images_of_each = map_in_threads(partial(_images, stages), [shard.name for shard, _ in suspects])
    for (shard, where), images in zip(suspects, images_of_each, strict=True):
        found.suspects[shard.name] = [images[position][1] for position in where]
        for digest, name in (images[position] for position in where):
            names_of[digest].append((shard.addition, name))
    return names_of


def _known_digests(stage: StageIndex, shard: str) -> np.ndarray:
    return np.frombuffer(stage.summaries[shard].digests, f">u{DIGEST_BYTES}")


def _read_digests(stages: Sequence[StageIndex], shards: Sequence[str]) -> list[np.ndarray]:
    """Of several stages, the names tell which images are the same one: all indices are read."""

    def digests(shard: str) -> np.ndarray:
        return np.array([int(digest[: 2 * DIGEST_BYTES], 16) for digest, _ in _images(stages, shard)], np.uint64)

    return list(map_in_threads(digests, shards))


def _repeated(digests: Sequence[np.ndarray]) -> np.ndarray:
    """The values that occur more than once, in order; a few million are sorted at a time."""
    num_passes = 1 + sum(map(len, digests)) // _SORTED_AT_ONCE
    found = [np.zeros(0, np.uint64)]
    for number in range(num_passes):
        first, last = ((2**64 * bound // num_passes) for bound in (number, number + 1))
        values = np.concatenate([*found[:1], *(part[(part >= first) & (part <= last - 1)] for part in digests)])
        values = values.astype(np.uint64, copy=False)
        values.sort()
        found.append(np.unique(values[1:][values[1:] == values[:-1]]))
    return np.concatenate(found)


def _images(stages: Sequence[StageIndex], shard: str) -> list[tuple[str, str]]:
    """Digest and name of each image in a shard, once however many crops and stages it has."""
    found: dict[tuple[str, str], None] = {}
    for stage in stages:
        found |= dict.fromkeys(images_of(load_index(stage.directory, shard)))
    return list(found)
