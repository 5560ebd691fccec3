"""Shard tasks on Ray Data: one row is one shard, so a lost worker or node costs the shards that it was writing."""

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from pipelines.prepare.progress import PrepareProgress
from pipelines.prepare.shard_plan import PlannedShard
from pipelines.prepare.shard_task import ShardReport, ShardTask, write_shard
from pipelines.prepare.stage_index import StageIndex
from pipelines.settings.prepare import PrepareConfig
from sr3core import strict_json
from sr3core.config import from_dict, to_dict
from sr3core.errors import StorageError

MAX_FAILED_SHARDS = 3
"""Shards that may fail before the rest are given up: a full disk fails them all."""


def write_shards(
    config: PrepareConfig,
    tasks: Sequence[ShardTask],
    stages: Mapping[str, StageIndex],
    progress: PrepareProgress,
    observers: Sequence[Callable[[PrepareProgress], None]],
) -> None:
    """Write shards in parallel; Ray must be initialised.

    Args:
        config: what the shards are made by.
        tasks: the shards to write.
        stages: stage -> what its folder holds; notes each shard that is finished.
        progress: counts each shard that is finished.
        observers: called with the progress after each shard.

    Raises:
        StorageError: shards could not be written; those that were finished are kept.
    """
    if not tasks:
        return
    failures = []
    for row in _run(config, tasks):
        if row["error"]:
            failures.append(row["error"])
            if len(failures) >= MAX_FAILED_SHARDS:
                break
        else:
            report: ShardReport = pickle.loads(row["report"])
            for stage, summary in report.summaries.items():
                stages[stage].add(summary)
            progress.add(report)
            for observe in observers:
                observe(progress)
    if failures:
        raise StorageError(
            f"{len(failures)} of {len(tasks)} shards could not be written: {failures[0]}."
            " Finished shards are kept; run the same command again to resume"
        )


def _run(config: PrepareConfig, tasks: Sequence[ShardTask]) -> Iterator[dict[str, Any]]:
    import ray.data

    largest_first = sorted(tasks, key=lambda task: -task.shard.num_images)  # so that workers finish close together
    rows = [{"task": strict_json.dumps(asdict(task))} for task in largest_first]
    # Without a bound all tasks wait in Ray's own queues, where a worker finds its next one in milliseconds. With one,
    # Ray Data hands out a task when it has seen another end, and looks for that ten times a second.
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        partial(_run_task, config=to_dict(config)),
        num_cpus=1,
        compute=None if config.num_workers is None else ray.data.TaskPoolStrategy(min(config.num_workers, len(rows))),
    )
    # Reserving half of the CPUs for an output that is one line a shard would leave them idle.
    dataset.context.op_resource_reservation_enabled = False
    dataset.context.enable_progress_bars = False
    return iter(dataset.iter_rows())


def _run_task(row: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """One Ray task. Storage errors are returned, so that the other shards continue; any other error is a bug."""
    data = strict_json.loads(row["task"])
    task = ShardTask(PlannedShard(**data["shard"]), tuple(data["stages"]), data["duplicates"])
    try:
        report = write_shard(from_dict(PrepareConfig, config), task)
    except StorageError as error:
        return {"report": b"", "error": str(error)}
    return {"report": pickle.dumps(report), "error": ""}
