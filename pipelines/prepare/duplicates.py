"""Images whose bytes are in a source under several names: which copy is kept, and which shards to write again."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from pipelines.prepare.shard_plan import Plan, PlannedShard, load_items
from pipelines.prepare.shard_task import ShardTask
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import StageSpec
from pipelines.shards.manifest import load_index
from pipelines.storage.uris import join


def tasks_without_duplicates(config: PrepareConfig, plan: Plan) -> Iterator[ShardTask]:
    """Yield a task for each finished shard that still holds a duplicate, or lacks an image that is no longer one.

    Duplicates can be found only once every image has been read. What is left out depends on names and bytes alone, so
    a run that was interrupted at any point arrives at the same shards.
    """
    duplicates = find_duplicates(config.out, plan, _stages_with_every_image(config))
    for shard in plan.shards:
        planned = {item.name for item in load_items(config.out, shard)} if duplicates else set()
        excluded = {name: duplicates[name] for name in sorted(planned & duplicates.keys())}
        stale = []
        for stage in config.stage_specs:
            index = load_index(join(config.out, stage.name), shard.name)
            if index.excluded != excluded:
                stale.append(stage.name)
        if stale:
            yield ShardTask(shard, tuple(stale), excluded)


def _stages_with_every_image(config: PrepareConfig) -> tuple[StageSpec, ...]:
    """Stages that together hold every image that any stage holds."""
    if config.max_flat < 1:  # an image may have crops of any one size alone that are not flat
        return config.stage_specs
    return (min(config.stage_specs, key=lambda stage: stage.high_size),)  # rejects the fewest as too small


def find_duplicates(out: str, plan: Plan, stages: tuple[StageSpec, ...]) -> dict[str, str]:
    """Map every name whose bytes also occur under a smaller name to the smallest such name.

    Names from the original source count as smaller than names that a later addition brought: existing shards stay as
    they are, and no held-out image enters training under another name. The result depends on names and bytes alone; an
    interrupted run gets the same one, because the indices name the duplicates that it has already left out. Memory:
    eight bytes an image, and the names of duplicates only.

    Args:
        out: the preparation's folder.
        plan: all shards, each of which has been written at least once.
        stages: the stages whose images are compared.
    """
    duplicates: dict[str, str] = {}
    prefixes = []
    for shard in plan.shards:
        images, excluded = _images(out, shard, stages)
        duplicates.update(excluded)
        prefixes.append(np.array([int(digest[:16], 16) for digest, _ in images], np.uint64))
    values, counts = np.unique(np.concatenate(prefixes or [np.zeros(0, np.uint64)]), return_counts=True)
    repeated = values[counts > 1]
    names_of: dict[str, list[tuple[int, str]]] = defaultdict(list)  # by the whole digest
    for shard, prefix in zip(plan.shards, prefixes, strict=True):
        suspects = np.flatnonzero(np.isin(prefix, repeated))
        if len(suspects):
            images, _ = _images(out, shard, stages)
            for digest, name in (images[position] for position in suspects):
                names_of[digest].append((shard.addition, name))
    left_out = dict(duplicates)
    for names in names_of.values():
        (_, first), *others = sorted(names)
        duplicates.update({name: first for _, name in others})
    # An image that was rejected before and is none now may have the smallest name of all.
    duplicates.update({name: duplicates.get(kept, kept) for name, kept in left_out.items()})
    return duplicates


def _images(
    out: str, shard: PlannedShard, stages: tuple[StageSpec, ...]
) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Digest and name of each image in a shard, once however many crops it has; and the duplicates that it left out."""
    found: dict[tuple[str, str], None] = {}
    excluded: dict[str, str] = {}
    for stage in stages:
        index = load_index(join(out, stage.name), shard.name)
        found |= dict.fromkeys(zip(index.digests, index.names, strict=True))
        excluded |= index.excluded
    return list(found), excluded
