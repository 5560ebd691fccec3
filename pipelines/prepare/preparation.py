"""The preparation: list the source -> plan the shards -> write them on Ray Data -> manifests."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pipelines.prepare.finish import find_twins, write_manifest
from pipelines.prepare.progress import PrepareProgress, save_progress
from pipelines.prepare.shard_plan import (
    PLAN,
    Plan,
    PlannedShard,
    is_begun,
    load_items,
    load_own_plan,
    plan_addition,
    plan_shards,
    write_plan,
)
from pipelines.prepare.shard_task import ShardReport, ShardTask, write_shard
from pipelines.prepare.source_items import Source
from pipelines.prepare.sources import open_source
from pipelines.runtime.progress_display import print_progress
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS, StageSpec
from pipelines.shards.manifest import REJECTS, ShardIndex, index_path, load_index
from pipelines.storage.uris import absolute, delete, exists, is_below, is_remote, join, list_files
from sr3core.config import from_dict, to_dict
from sr3core.errors import ConfigError, DataError, StorageError

MAX_FAILED_SHARDS = 3
"""Shards that may fail before the rest is given up: a full disk fails them all."""


@dataclass(frozen=True, slots=True)
class PrepareSummary:
    """What a preparation holds now, and what this run did for it."""

    out: str
    """Where the stages' folders are."""
    num_images: int
    """Images in the source."""
    num_samples: dict[str, dict[str, int]]
    """Stage -> split -> samples."""
    num_rejects: dict[str, dict[str, int]]
    """Stage -> reason code -> images."""
    num_shards_written: int
    """Shards written by this run, those of all stages at one place counted once."""
    seconds: float
    """Duration of this run."""
    seconds_of: dict[str, float]
    """Work by part, over all workers."""


def prepare(config: PrepareConfig, on_progress: Callable[[PrepareProgress], None] | None = None) -> PrepareSummary:
    """Turn images into shards; Ray must be initialised. The same call again does only what is missing.

    Raises:
        ConfigError: config.out was begun with another configuration, or is among the tars that are read.
        DataError: the source does not exist, holds no image, or none that a stage can use.
        StorageError: shards could not be written; what was finished is kept.
    """
    config = _located(config)
    return _complete(config, _begin(config), on_progress)


def add_new(config: PrepareConfig, on_progress: Callable[[PrepareProgress], None] | None = None) -> PrepareSummary:
    """Prepare what config.source holds now and did not before, for training alone; Ray must be initialised.

    Where nothing has been prepared yet, this is `prepare`. Shards that are there stay as they are, byte for byte, and
    so does what is held out. An image is new by its name: other bytes under a known name are not looked at.

    Raises:
        ConfigError, DataError, StorageError: as prepare does.
    """
    config = _located(config)
    return _complete(config, _begin(config, add_new=True), on_progress)


def _complete(
    config: PrepareConfig, plan: Plan, on_progress: Callable[[PrepareProgress], None] | None
) -> PrepareSummary:
    """Write the shards that are missing, then the manifests."""
    _delete_leftovers(config)
    missing = list(_missing(config, plan))
    progress = PrepareProgress(
        num_shards=len(missing),
        num_images=sum(task.shard.num_images for task in missing),
        num_shards_before=len(plan.shards) - len(missing),
    )
    observers = (on_progress or print_progress(), save_progress(config.out))
    _write_all(config, missing, progress, observers)
    if not config.keep_duplicates:
        again = list(_with_duplicates(config, plan))
        progress.num_shards += len(again)
        progress.num_images += sum(task.shard.num_images for task in again)
        _write_all(config, again, progress, observers)
    _delete_leftovers(config)
    manifests = [write_manifest(config, plan, stage) for stage in config.stage_specs]
    for manifest in manifests:
        if not any(manifest.splits.values()):
            raise DataError(
                f"stages: no image of {config.source} can be used for {manifest.stage.name}:"
                f" {manifest.num_rejects}; {join(config.out, manifest.stage.name, REJECTS)} names each"
            )
    return PrepareSummary(
        out=config.out,
        num_images=plan.num_images,
        num_samples={m.stage.name: {split: m.num_samples(split) for split in SPLITS} for m in manifests},
        num_rejects={m.stage.name: m.num_rejects for m in manifests},
        num_shards_written=progress.shards_done,
        seconds=progress.seconds,
        seconds_of=dict(progress.seconds_of),
    )


def describe_plan(config: PrepareConfig, add_new: bool = False) -> str:
    """What `prepare` or `add_new` would do, in a line; nothing is written, and Ray is not needed.

    Raises:
        ConfigError, DataError: as they do before their first shard.
    """
    config = _located(config)
    plan, _ = _planned(config, add_new)
    missing = len(list(_missing(config, plan)))
    return (
        f"would prepare {', '.join(config.stages)} from {plan.num_images} images (layout {plan.layout}) in"
        f" {config.out}: {missing} of {len(plan.shards)} shards"
    )


def _located(config: PrepareConfig) -> PrepareConfig:
    return dataclasses.replace(config, source=absolute(config.source), out=absolute(config.out))


def _begin(config: PrepareConfig, add_new: bool = False) -> Plan:
    """List the source and write its plan. Its names, 0.7 kB each, are let go of: a worker reads those of its shard."""
    plan, lines = _planned(config, add_new)
    if lines is not None:
        write_plan(config, plan, lines)
    return plan


def _planned(config: PrepareConfig, add_new: bool) -> tuple[Plan, bytes | None]:
    """The plan for what the source holds, and the lines to write with it; None where that plan is there already."""
    source = _source(config)
    if add_new and exists(join(config.out, PLAN)):
        plan = load_own_plan(config)
        return plan_addition(config, source, plan) or (plan, None)
    plan, lines = plan_shards(config, source)
    return plan, None if is_begun(config, plan) else lines


def _source(config: PrepareConfig) -> Source:
    if config.align_faces:
        from pipelines.images.face_alignment import check_installed

        check_installed()
    source = open_source(config.source, config.layout, will_align=config.align_faces)
    if source.layout == "tar" and is_below(config.out, config.source):
        raise ConfigError(
            f"out: {config.out} is inside of the source, whose tars are read: the same command would take its own"
            " shards for images; take an --out beside it"
        )
    return source


def _delete_leftovers(config: PrepareConfig) -> None:
    """Delete what a killed process left half-written; whole files have other names."""
    for stage in config.stage_specs:
        directory = join(config.out, stage.name)
        if not is_remote(directory) and exists(directory):
            for name, _ in list_files(directory):
                if name.startswith(".") and name.endswith(".tmp"):
                    delete(join(directory, name))


def _missing(config: PrepareConfig, plan: Plan) -> Iterator[ShardTask]:
    """Tasks for the shards that have no index yet."""
    for shard in plan.shards:
        stages = [s.name for s in config.stage_specs if _finished(config, plan, s, shard) is None]
        if stages:
            yield ShardTask(shard, tuple(stages))


def _finished(config: PrepareConfig, plan: Plan, stage: StageSpec, shard: PlannedShard) -> ShardIndex | None:
    """The index of a finished shard; None where it is missing, damaged or of another plan."""
    directory = join(config.out, stage.name)
    if not exists(index_path(directory, shard.name)):
        return None
    try:
        index = load_index(directory, shard.name)
    except DataError:  # a damaged index is a shard to write again
        return None
    same = index.fingerprint == plan.fingerprint and index.plan == shard.fingerprint
    there = not index.keys or exists(join(directory, shard.name))
    return index if same and there else None


def _write_all(
    config: PrepareConfig,
    tasks: Sequence[ShardTask],
    progress: PrepareProgress,
    observers: Sequence[Callable[[PrepareProgress], None]],
) -> None:
    """Write shards on Ray Data: one row is one shard, so a lost worker or node costs the shards that it was writing."""
    if not tasks:
        return
    failures = []
    for row in _run(config, tasks):
        if row["error"]:
            failures.append(row["error"])
            if len(failures) >= MAX_FAILED_SHARDS:
                break
        else:
            progress.add(ShardReport(**json.loads(row["report"])))
            for observe in observers:
                observe(progress)
    if failures:
        raise StorageError(
            f"{len(failures)} of {len(tasks)} shards could not be written: {failures[0]}."
            " What is finished is kept; the same command goes on from there"
        )


def _run(config: PrepareConfig, tasks: Sequence[ShardTask]) -> Iterator[dict[str, Any]]:
    import ray.data

    largest_first = sorted(tasks, key=lambda task: -task.shard.num_images)  # so that workers finish close together
    rows = [{"task": json.dumps(asdict(task))} for task in largest_first]
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


def _run_task(row: dict[str, Any], config: dict[str, Any]) -> dict[str, str]:
    """One Ray task. Storage errors are returned, so that the other shards go on; anything else is a bug and raised."""
    data = json.loads(row["task"])
    task = ShardTask(PlannedShard(**data["shard"]), tuple(data["stages"]), data["twins"])
    try:
        report = write_shard(from_dict(PrepareConfig, config), task)
    except StorageError as error:
        return {"report": "", "error": str(error)}
    return {"report": json.dumps(asdict(report)), "error": ""}


def _with_duplicates(config: PrepareConfig, plan: Plan) -> Iterator[ShardTask]:
    """Tasks for the shards that hold an image whose bytes are there under a smaller name.

    Only now are all bytes known. What is to be left out depends on names and bytes alone, so a run that was
    interrupted anywhere comes to the same shards.
    """
    twins = find_twins(config, plan)
    for shard in plan.shards:
        planned = {item.name for item in load_items(config.out, shard)} if twins else set()
        excluded = {name: twins[name] for name in sorted(planned & twins.keys())}
        stale = []
        for stage in config.stage_specs:
            index = load_index(join(config.out, stage.name), shard.name)
            if index.excluded != excluded:
                stale.append(stage.name)
        if stale:
            yield ShardTask(shard, tuple(stale), excluded)
