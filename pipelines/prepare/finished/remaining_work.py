"""What an unfinished preparation still has to write, judged by the files in its folder alone."""

from collections.abc import Iterator, Mapping

from pipelines.prepare.plan.shard_plan import Plan
from pipelines.prepare.plan.stage_index import StageIndex
from pipelines.prepare.writing.shard_task import ShardTask
from pipelines.settings.stages import StageSpec
from pipelines.storage.buckets.s3 import abort_uploads
from pipelines.storage.uris import delete, exists, is_remote, join, list_files


def missing_tasks(plan: Plan, stages: Mapping[str, StageIndex]) -> Iterator[ShardTask]:
    """Yield a task for each shard that one stage or more lacks.

    Args:
        plan: all shards.
        stages: stage -> what its folder holds.
    """
    for shard in plan.shards:
        missing = [n for n, s in stages.items() if not s.is_finished(shard.name, plan.fingerprint, shard.fingerprint)]
        if missing:
            yield ShardTask(shard, tuple(missing))


def delete_leftovers(out: str, stages: tuple[StageSpec, ...]) -> None:
    """Delete what a killed process left half written in the stages' folders; complete files have other names."""
    for stage in stages:
        directory = join(out, stage.name)
        if is_remote(directory):
            abort_uploads(directory)
        elif exists(directory):
            for name, _ in list_files(directory):
                if name.startswith(".") and name.endswith(".tmp"):
                    delete(join(directory, name))
