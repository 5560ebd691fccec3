"""What an unfinished preparation still has to write, judged by the files in its folder alone."""

from collections.abc import Iterator

from pipelines.prepare.shard_plan import Plan, PlannedShard
from pipelines.prepare.shard_task import ShardTask
from pipelines.settings.stages import StageSpec
from pipelines.shards.manifest import index_path, load_index
from pipelines.storage.uris import delete, exists, is_remote, join, list_files
from sr3core.errors import DataError


def missing_tasks(out: str, plan: Plan, stages: tuple[StageSpec, ...]) -> Iterator[ShardTask]:
    """Yield a task for each shard that one stage or more lacks.

    Args:
        out: the preparation's folder.
        plan: all its shards.
        stages: the stages to prepare.
    """
    for shard in plan.shards:
        missing = [s.name for s in stages if not _is_finished(join(out, s.name), shard, plan.fingerprint)]
        if missing:
            yield ShardTask(shard, tuple(missing))


def _is_finished(directory: str, shard: PlannedShard, fingerprint: str) -> bool:
    """Whether a stage's folder holds a shard whole, made by the configuration and the plan of these fingerprints."""
    if not exists(index_path(directory, shard.name)):
        return False
    try:
        index = load_index(directory, shard.name)
    except DataError:  # a shard with a damaged index is written again
        return False
    same = index.fingerprint == fingerprint and index.plan == shard.fingerprint
    return same and (not index.keys or exists(join(directory, shard.name)))


def delete_leftovers(out: str, stages: tuple[StageSpec, ...]) -> None:
    """Delete the temporary files that a killed process left in the stages' folders; complete files have other names."""
    for stage in stages:
        directory = join(out, stage.name)
        if not is_remote(directory) and exists(directory):
            for name, _ in list_files(directory):
                if name.startswith(".") and name.endswith(".tmp"):
                    delete(join(directory, name))
