"""After the shards: which images are duplicates, and the manifest that makes a stage complete."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipelines.prepare.shard_plan import Plan
from pipelines.runtime.provenance import provenance
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS, StageSpec
from pipelines.shards.manifest import (
    FORMAT_VERSION,
    MAX_NAMED_REJECTS,
    REJECTS,
    Manifest,
    ShardIndex,
    count_rejects,
    load_index,
    save_manifest,
)
from pipelines.storage.uris import commit, join, temporary_path


def find_twins(config: PrepareConfig, plan: Plan) -> dict[str, str]:
    """Every name whose bytes are in the source under a smaller name too -> the smallest such name.

    What was there first counts as smaller than what a grown source added: shards of before stay as they are, and no
    held-out image comes back for training under another name. Decided by names and bytes alone: an interrupted run
    comes to the same answer, as what it has left out already is in the indices. Holds eight bytes an image, and names
    only of duplicates.
    """
    stage = min(config.stage_specs, key=lambda stage: stage.high_size)  # its images are a superset of the others'
    twins: dict[str, str] = {}
    prefixes = []
    for index in _indices(config, plan, stage):
        twins.update(index.excluded)
        prefixes.append(np.array([int(digest[:16], 16) for digest in index.digests], np.uint64))
    values, counts = np.unique(np.concatenate(prefixes or [np.zeros(0, np.uint64)]), return_counts=True)
    repeated = values[counts > 1]
    groups: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for shard, prefix in zip(plan.shards, prefixes, strict=True):
        suspects = np.flatnonzero(np.isin(prefix, repeated))
        if len(suspects):
            index = load_index(join(config.out, stage.name), shard.name)
            for position in suspects:
                groups[index.digests[position]].append((shard.addition, index.names[position]))
    for names in groups.values():
        (_, first), *others = sorted(names)
        twins.update({name: first for _, name in others})
    return twins


def write_manifest(config: PrepareConfig, plan: Plan, stage: StageSpec) -> Manifest:
    """Write a stage's rejects.jsonl and manifest.json from the indices of its shards."""
    directory = join(config.out, stage.name)
    temporary = temporary_path(join(directory, REJECTS))
    splits: dict[str, list] = {split: [] for split in SPLITS}
    num_rejects: dict[str, int] = defaultdict(int)
    named = []
    labels: list[int | None] = []
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            for shard, index in zip(plan.shards, _indices(config, plan, stage), strict=True):
                if index.keys:
                    splits[shard.split].append(index.entry)
                for reason, count in count_rejects(index.rejects).items():
                    num_rejects[reason] += count
                labels += index.labels
                named += index.rejects[: MAX_NAMED_REJECTS - len(named)]
                file.writelines(json.dumps(asdict(reject)) + "\n" for reject in index.rejects)
        commit(temporary, join(directory, REJECTS))
    finally:
        Path(temporary).unlink(missing_ok=True)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        stage=stage,
        splits={split: tuple(entries) for split, entries in splits.items()},
        provenance=provenance(config, {"source": plan.source_fingerprint}),
        fingerprint=plan.identity,
        num_rejects=dict(sorted(num_rejects.items())),
        rejects=tuple(named),
        num_classes=max((label + 1 for label in labels if label is not None and label >= 0), default=0),
        num_unlabelled=sum(label is None or label < 0 for label in labels),
    )
    save_manifest(directory, manifest)
    return manifest


def _indices(config: PrepareConfig, plan: Plan, stage: StageSpec) -> Iterator[ShardIndex]:
    for shard in plan.shards:
        yield load_index(join(config.out, stage.name), shard.name)
