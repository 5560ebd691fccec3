"""`sr3 prepare --retry-rejects`: finished shards with rejects of certain reasons become unfinished ones.

A shard is written anew as a whole, as if for the first time, so that it has the bytes of a fresh preparation. What a
retry changes elsewhere follows from the usual search for duplicates.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pipelines.prepare.plan.shard_plan import Plan, PlannedShard, load_items
from pipelines.prepare.plan.stage_index import StageIndex
from pipelines.settings.prepare import PrepareConfig
from pipelines.shards.manifest import MANIFEST
from pipelines.shards.summaries import ShardSummary
from pipelines.storage.uris import delete, join


@dataclass(frozen=True, slots=True)
class Retry:
    """Finished shards that are to be written again."""

    indices: tuple[tuple[str, str], ...] = ()
    """Stage and shard of each."""
    num_images: dict[str, int] | None = None
    """Reason -> images that were rejected for it, in any stage."""

    def describe(self) -> str:
        """One line for the user."""
        counts = ", ".join(f"{count} {reason}" for reason, count in (self.num_images or {}).items()) or "none"
        shards = len({shard for _, shard in self.indices})
        return f"rejected images to try again: {counts}; {shards} finished shards are written anew for that"


def find_retry(config: PrepareConfig, plan: Plan, stages: Mapping[str, StageIndex], reasons: Collection[str]) -> Retry:
    """Find the finished shards that hold rejects of the given reasons, and those whose duplicates depend on them."""
    retried: dict[PlannedShard, set[str]] = defaultdict(set)
    rejected: set[tuple[str, str]] = set()
    excluding: dict[PlannedShard, ShardSummary] = {}
    for shard in plan.shards if reasons else ():
        for name, stage in stages.items():
            if (summary := stage.summaries.get(shard.name)) is None:  # not finished, and so written anyway
                continue
            if not summary.num_rejects.keys().isdisjoint(reasons):
                retried[shard].add(name)
                rejected.update((r["reason"], r["path"]) for r in summary.reject_rows() if r["reason"] in reasons)
            if summary.excluded:
                excluding[shard] = summary
    # A duplicate was left out in favour of an image that may now be rejected itself.
    kept = {item.name for shard in retried for item in load_items(config.out, shard)} if excluding else set()
    for shard, summary in excluding.items():
        if kept.intersection(summary.excluded.values()):
            retried[shard].update(config.stages)
    counts = Counter(reason for reason, _ in sorted(rejected))
    return Retry(tuple((stage, shard.name) for shard in retried for stage in sorted(retried[shard])), dict(counts))


def begin_retry(config: PrepareConfig, retry: Retry, stages: Mapping[str, StageIndex]) -> None:
    """Mark shards as unfinished, so that this run, or the next one if it is interrupted, writes them.

    The manifests go first: shards that change under a manifest would look damaged.
    """
    for stage in {stage for stage, _ in retry.indices}:
        delete(join(config.out, stage, MANIFEST))
    for stage, shard in retry.indices:
        stages[stage].discard(shard)
