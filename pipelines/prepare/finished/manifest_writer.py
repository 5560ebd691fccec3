"""A stage's manifest.json and rejects.jsonl, from the indices of its shards: with them the stage is complete."""

from collections import defaultdict
from itertools import islice

from pipelines.images.rejects import Reject, RejectReason
from pipelines.prepare.plan.shard_plan import Plan
from pipelines.prepare.plan.stage_index import StageIndex
from pipelines.runtime.provenance import provenance
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS, StageSpec
from pipelines.shards.manifest import (
    FORMAT_VERSION,
    MADE_BY,
    MAX_NAMED_REJECTS,
    REJECTS,
    Manifest,
    save_manifest,
)
from pipelines.storage.atomic_writers import write_pieces
from pipelines.storage.uris import join


def write_manifest(config: PrepareConfig, plan: Plan, stage: StageSpec, found: StageIndex) -> Manifest:
    """Write a stage's rejects.jsonl and manifest.json from the summaries of its shards, all of which must exist."""
    directory = join(config.out, stage.name)
    summaries = [found.summaries[shard.name] for shard in plan.shards]
    write_pieces(join(directory, REJECTS), (summary.rejects for summary in summaries))
    splits: dict[str, list] = {split: [] for split in SPLITS}
    num_rejects: dict[str, int] = defaultdict(int)
    for shard, summary in zip(plan.shards, summaries, strict=True):
        if summary.num_samples:
            splits[shard.split].append(summary.entry)
        for reason, count in summary.num_rejects.items():
            num_rejects[reason] += count
    named = islice((row for summary in summaries for row in summary.reject_rows()), MAX_NAMED_REJECTS)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        stage=stage,
        splits={split: tuple(entries) for split, entries in splits.items()},
        provenance=provenance(config, {"source": plan.source_fingerprint}),
        fingerprint=plan.identity,
        num_rejects=dict(sorted(num_rejects.items())),
        rejects=tuple(Reject(row["path"], RejectReason(row["reason"]), row["detail"]) for row in named),
        num_classes=max((summary.num_classes for summary in summaries), default=0),
        num_unlabelled=sum(summary.num_unlabelled for summary in summaries),
        operator=None if config.has_pairs else MADE_BY,
    )
    save_manifest(directory, manifest)
    return manifest
