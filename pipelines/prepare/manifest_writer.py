"""A stage's manifest.json and rejects.jsonl, from the indices of its shards: with them the stage is complete."""

from collections import defaultdict
from dataclasses import asdict

from pipelines.prepare.shard_plan import Plan
from pipelines.runtime.provenance import provenance
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS, StageSpec
from pipelines.shards.manifest import (
    FORMAT_VERSION,
    MAX_NAMED_REJECTS,
    REJECTS,
    Manifest,
    count_rejects,
    load_index,
    save_manifest,
)
from pipelines.storage.local_files import discard, local_errors
from pipelines.storage.uris import commit, join, temporary_path
from sr3core import strict_json


def write_manifest(config: PrepareConfig, plan: Plan, stage: StageSpec) -> Manifest:
    """Write a stage's rejects.jsonl and manifest.json from the indices of its shards, all of which must exist."""
    directory = join(config.out, stage.name)
    temporary = temporary_path(join(directory, REJECTS))
    splits: dict[str, list] = {split: [] for split in SPLITS}
    num_rejects: dict[str, int] = defaultdict(int)
    named = []
    labels: list[int | None] = []
    try:
        with local_errors(temporary), open(temporary, "w", encoding="utf-8") as file:
            for shard in plan.shards:
                index = load_index(directory, shard.name)
                if index.keys:
                    splits[shard.split].append(index.entry)
                for reason, count in count_rejects(index.rejects).items():
                    num_rejects[reason] += count
                labels += index.labels
                named += index.rejects[: MAX_NAMED_REJECTS - len(named)]
                file.writelines(strict_json.dumps(asdict(reject)) + "\n" for reject in index.rejects)
        commit(temporary, join(directory, REJECTS))
    finally:
        discard(temporary)
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
