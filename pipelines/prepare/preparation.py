"""`sr3 prepare`: list the source, plan the shards, write them in Ray tasks, then their manifests."""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipelines.images.rejects import check_retriable
from pipelines.prepare.finished.duplicates import tasks_without_duplicates
from pipelines.prepare.finished.manifest_writer import write_manifest
from pipelines.prepare.finished.pair_remarks import pair_remarks
from pipelines.prepare.finished.remaining_work import delete_leftovers, missing_tasks
from pipelines.prepare.finished.retried_rejects import begin_retry, find_retry
from pipelines.prepare.finished.sharpness import sharpness_remarks
from pipelines.prepare.opened_source import open_configured
from pipelines.prepare.plan.dealing import plan_addition, plan_shards
from pipelines.prepare.plan.plan_lines import PlanLines
from pipelines.prepare.plan.shard_plan import PLAN, Plan, is_begun, load_own_plan, load_plan, write_plan
from pipelines.prepare.plan.stage_index import StageIndex, open_stages
from pipelines.prepare.source_remarks import remarks_of, write_ignored
from pipelines.prepare.sources.items import Source
from pipelines.prepare.writing.crops import describe_crops
from pipelines.prepare.writing.parallel_writer import write_shards
from pipelines.prepare.writing.progress import PrepareProgress, export_progress, save_progress
from pipelines.runtime.progress_display import print_progress
from pipelines.runtime.waiting import waiting_for
from pipelines.settings.prepare import PrepareConfig
from pipelines.settings.stages import SPLITS
from pipelines.shards.manifest import REJECTS, Manifest
from pipelines.storage.leases.folder_lease import refuse_if_busy, working_in
from pipelines.storage.uris import absolute, exists, join
from sr3core.errors import DataError


@dataclass(frozen=True, slots=True)
class PrepareSummary:
    """What a preparation holds after a run, and what that run did."""

    out: str
    """Folder that holds a folder for each stage."""
    num_images: int
    """Images in the source."""
    num_samples: dict[str, dict[str, int]]
    """Stage -> split -> samples."""
    num_rejects: dict[str, dict[str, int]]
    """Stage -> reason code -> images."""
    num_shards_written: int
    """Shards that this run wrote; one that is written for several stages counts once."""
    seconds: float
    """Wall-clock time of this run."""
    seconds_of: dict[str, float]
    """Time by kind of work ("read", "decode", ...), summed over all workers."""
    remarks: tuple[str, ...] = ()
    """What else is to be known of the source: files that are not among its images, how classes were numbered."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A preparation whose source is listed and whose plan is written: what `complete` carries out."""

    config: PrepareConfig
    plan: Plan
    stages: Mapping[str, StageIndex]
    """Stage -> what is written of it."""
    remarks: tuple[str, ...]
    """What is to be known of the source."""


def prepare(
    config: PrepareConfig,
    on_progress: Callable[[PrepareProgress], None] | None = None,
    retry_rejects: Collection[str] = (),
) -> PrepareSummary:
    """Turn images into shards; Ray must be initialised. A repeated call writes only what is missing.

    Args:
        config: what is prepared, and how.
        on_progress: called after each shard; None prints the progress.
        retry_rejects: reason codes. Finished shards with images that were rejected for these are written anew.

    Raises:
        ConfigError: config.out was started with a different configuration, or lies among the tars to read; or a reason
            is unknown.
        DataError: the source does not exist, holds no images, or none that a stage can use.
        StorageError: shards could not be written; those that were finished are kept.
    """
    return _prepare(config, False, on_progress, retry_rejects)


def add_new(
    config: PrepareConfig,
    on_progress: Callable[[PrepareProgress], None] | None = None,
    retry_rejects: Collection[str] = (),
) -> PrepareSummary:
    """Prepare the images that were added to config.source, for training only; Ray must be initialised.

    If nothing has been prepared yet, this is `prepare`. Existing shards keep every byte, and the held-out splits stay
    as they are. An image is new if its name is: changed bytes under a known name are not noticed.

    Raises:
        ConfigError, DataError, StorageError: as prepare does.
    """
    return _prepare(config, True, on_progress, retry_rejects)


def _prepare(
    config: PrepareConfig,
    add_new: bool,
    on_progress: Callable[[PrepareProgress], None] | None,
    retry_rejects: Collection[str],
) -> PrepareSummary:
    config = _located(config)
    with working_in(config.out, "preparing"):
        return complete(begin(config, add_new, retry_rejects), on_progress)


def begin(config: PrepareConfig, add_new: bool = False, retry_rejects: Collection[str] = ()) -> Begun:
    """List the source and write the plan; needs no Ray.

    Args:
        config: what is prepared, and how.
        add_new: plan what was added to the source since it was prepared, as the function `add_new` does.
        retry_rejects: reason codes, as for `prepare`.

    Raises:
        ConfigError, DataError, StorageError: what `prepare` raises before its first shard.
    """
    check_retriable(retry_rejects)
    config = _located(config)
    with working_in(config.out, "preparing"):
        plan, remarks = _begin(config, add_new)
        stages = open_stages(config.out, plan, config.stage_specs)
        begin_retry(config, find_retry(config, plan, stages, retry_rejects), stages)
    return Begun(config, plan, stages, remarks)


def complete(begun: Begun, on_progress: Callable[[PrepareProgress], None] | None = None) -> PrepareSummary:
    """Write the shards that are missing, then the manifests; Ray must be initialised.

    Raises:
        DataError, StorageError: as `prepare` raises them.
    """
    config, plan, stages = begun.config, begun.plan, begun.stages
    with working_in(config.out, "preparing") as lease:
        observers = (
            on_progress or print_progress(),
            save_progress(config.out),
            export_progress(config.out),
            lambda _: lease.check_not_taken(),
        )
        progress = _write_shards(config, plan, stages, observers)
        manifests = [write_manifest(config, plan, stage, stages[stage.name]) for stage in config.stage_specs]
    for manifest in manifests:
        _refuse_empty(config, manifest)
    found = [line for manifest in manifests for line in _findings(config, manifest)]
    return PrepareSummary(
        out=config.out,
        num_images=plan.num_images,
        num_samples={m.stage.name: {split: m.num_samples(split) for split in SPLITS} for m in manifests},
        num_rejects={m.stage.name: m.num_rejects for m in manifests},
        remarks=(*begun.remarks, *found),
        num_shards_written=progress.shards_done,
        seconds=progress.seconds,
        seconds_of=dict(progress.seconds_of),
    )


def _findings(config: PrepareConfig, manifest: Manifest) -> Iterator[str]:
    """Lines on what the images of a stage turn out to be."""
    yield from sharpness_remarks(config, manifest)
    if config.has_pairs:
        yield from pair_remarks(config, manifest)


def _write_shards(
    config: PrepareConfig,
    plan: Plan,
    stages: Mapping[str, StageIndex],
    observers: Sequence[Callable[[PrepareProgress], None]],
) -> PrepareProgress:
    """Write the missing shards, then once more those that turn out to hold duplicates."""
    delete_leftovers(config.out, config.stage_specs)
    missing = list(missing_tasks(plan, stages))
    progress = PrepareProgress(
        num_shards=len(missing),
        num_images=sum(task.shard.num_images for task in missing),
        num_shards_before=len(plan.shards) - len(missing),
    )
    write_shards(config, missing, stages, progress, observers)
    if not config.keep_duplicates:
        again = list(tasks_without_duplicates(config, plan, stages))
        progress.num_shards += len(again)
        progress.num_images += sum(task.shard.num_images for task in again)
        write_shards(config, again, stages, progress, observers)
    for stage in stages.values():
        stage.save()
    delete_leftovers(config.out, config.stage_specs)
    return progress


def _refuse_empty(config: PrepareConfig, manifest: Manifest) -> None:
    if not any(manifest.splits.values()):
        raise DataError(
            f"stages: no image of {config.source} can be used for {manifest.stage.name}: {manifest.num_rejects};"
            f" {join(config.out, manifest.stage.name, REJECTS)} gives the reason for each"
        )


def describe_plan(config: PrepareConfig, add_new: bool = False, retry_rejects: Collection[str] = ()) -> str:
    """Describe what `prepare` or `add_new` would do, and what of the source is ignored; writes nothing, needs no Ray.

    Raises:
        ConfigError, DataError: as they do before their first shard.
    """
    return preview(config, add_new, retry_rejects)[0]


def preview(
    config: PrepareConfig, add_new: bool = False, retry_rejects: Collection[str] = ()
) -> tuple[str, dict[str, int]]:
    """What describe_plan says, and the images per split that would be planned, before any is rejected."""
    check_retriable(retry_rejects)
    config = _located(config)
    refuse_if_busy(config.out, "preparing")
    source = open_configured(config)
    plan, _ = _planned(config, source, add_new)
    counts = {split: plan.num_planned(split) for split in SPLITS}
    of_splits = ", ".join(f"{count} {split}" for split, count in counts.items())
    stages = open_stages(config.out, plan, config.stage_specs)
    missing = len(list(missing_tasks(plan, stages)))
    would = (
        f"would prepare {', '.join(config.stages)} from {plan.num_images} images (layout {plan.layout}) in"
        f" {config.out}: {missing} of {len(plan.shards)} shards; {of_splits}"
    )
    again = [find_retry(config, plan, stages, retry_rejects).describe()] if retry_rejects else []
    return "\n".join([would, *again, *describe_crops(config, plan.num_images), *remarks_of(source)]), counts


def _located(config: PrepareConfig) -> PrepareConfig:
    low = None if config.low is None else absolute(config.low)
    return dataclasses.replace(config, source=absolute(config.source), out=absolute(config.out), low=low)


def _begin(config: PrepareConfig, add_new: bool) -> tuple[Plan, tuple[str, ...]]:
    """List the source, and write its plan and the names of what it ignores; returns the plan and the remarks.

    The images are put aside while they are planned, and not kept: a worker reads those of its shard.
    """
    source = open_configured(config)
    plan, lines = _planned(config, source, add_new)
    if lines is not None:
        write_plan(config, plan, lines)
    return plan, write_ignored(config, source)


def _planned(config: PrepareConfig, source: Source, add_new: bool) -> tuple[Plan, PlanLines | None]:
    """The plan for the source's images, and the lines to write with it; None if the plan has been written already.

    The source is listed meanwhile, of which a line says for how long.
    """
    with waiting_for(f"listing {config.source}"):
        return _listed(config, source, add_new)


def _listed(config: PrepareConfig, source: Source, add_new: bool) -> tuple[Plan, PlanLines | None]:
    if add_new and exists(join(config.out, PLAN)):
        plan = load_own_plan(config)
        return plan_addition(config, source, plan) or (plan, None)
    plan, lines = plan_shards(config, source)
    if exists(join(config.out, PLAN)):
        plan, lines = _as_begun(config, source, plan, lines)
    return plan, None if is_begun(config, plan) else lines


def _as_begun(config: PrepareConfig, source: Source, plan: Plan, lines: PlanLines) -> tuple[Plan, PlanLines]:
    """The plan as the version made it that began: earlier ones knew no bytes of a shard, and still earlier ones left
    splits empty."""
    begun = load_plan(config.out)[0].source_fingerprint
    unbounded = dataclasses.replace(config, shard_bytes=0).images_per_shard
    for fill_splits in (True, False):
        if plan.source_fingerprint != begun and not (fill_splits and unbounded == config.images_per_shard):
            plan, lines = plan_shards(config, source, unbounded, fill_splits)
    return plan, lines
