"""Shard tasks on Ray Data: one row is one shard, so a lost worker or node costs the shards that it was writing."""

import logging
import pickle
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from pipelines.prepare.plan.shard_plan import PlannedShard
from pipelines.prepare.plan.stage_index import StageIndex
from pipelines.prepare.writing.progress import PrepareProgress
from pipelines.prepare.writing.shard_task import ShardReport, ShardTask, write_shard
from pipelines.runtime.live_nodes import wait_for_live_nodes
from pipelines.runtime.node_waiting import lacking
from pipelines.runtime.row_tasks import map_rows
from pipelines.runtime.waiting import waiting_for
from pipelines.settings.prepare import PrepareConfig
from sr3core import strict_json
from sr3core.config import from_dict, to_dict
from sr3core.errors import StorageError
from sr3core.sizes import num_pixels

MAX_ATTEMPTS = 4
"""Times that a shard is begun whose processes die: one may be lost with its node, or killed for another's memory."""

MAX_FAILED_SHARDS = 3
"""Shards that may fail before the rest are given up: a full disk fails them all."""

_PROCESS_BYTES, _BYTES_PER_PIXEL = 300 << 20, 48
log = logging.getLogger(__name__)


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

    A shard whose process dies is written again with a process for each image, in which the one that is to blame is
    found and rejected.

    Raises:
        StorageError: shards could not be written; those that were finished are kept.
    """
    failures: list[str] = []
    waiting = list(tasks)
    if waiting:
        _say_if_waiting()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        if not waiting:
            break
        ended = set()
        for row in first_awaited(_reports(config, waiting)):
            ended.add(row["shard"])
            if row["bug"]:
                raise RuntimeError(f"{row['shard']}: {row['bug']}")
            if row["error"]:
                failures.append(row["error"])
                if len(failures) >= MAX_FAILED_SHARDS:
                    raise _failed(failures, tasks)
            else:
                report: ShardReport = pickle.loads(row["report"])
                for stage, summary in report.summaries.items():
                    stages[stage].add(summary)
                progress.add(report)
                for observe in observers:
                    observe(progress)
        waiting = [replace(task, isolated=True) for task in waiting if task.shard.name not in ended]
        if waiting and attempt < MAX_ATTEMPTS:
            log.warning("%s: the process that wrote it died; its images are decoded one by one", _names(waiting))
            wait_for_live_nodes()
    if waiting:
        failures.append(f"{_names(waiting)}: the process that writes it died {MAX_ATTEMPTS} times")
    if failures:
        raise _failed(failures, tasks)


def first_awaited(reports: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The reports of shards; while the first is waited for, which no progress precedes, a line says for how long."""
    with waiting_for("writing the first shards"):
        first = next(reports, None)
    if first is not None:
        yield first
        yield from reports


def _failed(failures: Sequence[str], tasks: Sequence[ShardTask]) -> StorageError:
    return StorageError(
        f"{len(failures)} of {len(tasks)} shards could not be written: {failures[0]}."
        " Finished shards are kept; run the same command again to resume"
    )


def _names(tasks: Sequence[ShardTask]) -> str:
    names = [task.shard.name for task in tasks]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _reports(config: PrepareConfig, tasks: Sequence[ShardTask]) -> Iterator[dict[str, Any]]:
    """Yield what each task reports; nothing for a task whose process has died, or whose node with the report."""
    largest_first = sorted(tasks, key=lambda task: -task.shard.num_images)  # so that workers finish close together
    rows = ({"task": strict_json.dumps(asdict(task))} for task in largest_first)
    run = partial(_run_task, config=to_dict(config))
    yield from map_rows(run, rows, _reserved_bytes(config), config.num_workers)


def _reserved_bytes(config: PrepareConfig) -> int:
    """Memory that a task claims of its node: a process, and a photo and its resized copies in several forms.

    Nothing while no node can run a task: what an autoscaler's nodes will have is not known here, and one whose node
    types declare no memory would never add a node for a task that claims some.
    """
    import ray

    largest = max(num_pixels(stage.high_size) for stage in config.stage_specs)
    wanted = _PROCESS_BYTES + _BYTES_PER_PIXEL * largest
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    return min(wanted, int(max((node.get("memory", 0) for node in nodes), default=0)))  # more would never be granted


def _say_if_waiting() -> None:
    if missing := lacking({"CPU": 1}, 1):
        print(f"waits for nodes: a shard needs {missing}", flush=True)


def _run_task(row: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """One task. Storage errors are returned, so that the other shards continue; any other error is a bug."""
    data = strict_json.loads(row["task"])
    task = ShardTask(PlannedShard(**data.pop("shard")), tuple(data.pop("stages")), **data)
    answer = {"shard": task.shard.name, "report": b"", "error": "", "bug": ""}
    try:
        report = write_shard(from_dict(PrepareConfig, config), task)
    except StorageError as error:
        return answer | {"error": str(error)}
    except Exception:  # noqa: BLE001  # Ray Data would take it for a process that died
        return answer | {"bug": traceback.format_exc()}
    return answer | {"report": pickle.dumps(report)}
