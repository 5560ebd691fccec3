"""Upscaling photos of any number, size and format, in tiles, on Ray actors; finished outputs are not made again."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.images.file_names import IgnoredFiles
from pipelines.images.rejects import DecodeError, RejectReason
from pipelines.runs.run_folder import Run, open_run
from pipelines.runtime.actor_pool import run_on_actors
from pipelines.runtime.actor_resources import find_actor_resources
from pipelines.runtime.progress_display import duration, print_progress
from pipelines.sampling.held_out import end_to_end
from pipelines.sampling.photo_finder import Photo, find_photos, name_outputs
from pipelines.sampling.photo_upscaler import PhotoReport, PhotoUpscaler, read_photo, settings_of, source_of
from pipelines.sampling.photo_writer import ENDINGS
from pipelines.sampling.upscale_estimate import UpscaleEstimate
from pipelines.sampling.upscale_records import NEW, changes_since, record_of
from pipelines.settings.upscale import UpscaleConfig
from pipelines.storage.leases.folder_lease import working_in
from pipelines.storage.leases.lease import Lease
from pipelines.storage.uris import absolute, join
from sr3core.config import to_dict

log = logging.getLogger(__name__)


@dataclass(slots=True)
class UpscaleProgress:
    """Progress of upscaling photos."""

    num_photos: int
    """Photos in all."""
    photos_done: int = 0
    """Photos that are finished, existed already, or failed."""
    num_failed: int = 0
    """Photos that failed."""
    at_work: list[tuple[int, int, float]] = field(default_factory=list)
    """Tiles done, tiles in all and fraction of the steps done, for each photo in progress."""
    started: float = field(default_factory=time.monotonic)
    """Monotonic time of the start."""

    @property
    def share(self) -> float:
        """Fraction of the photos that are done, counting those in progress in part; 1 only at the end."""
        if self.photos_done == self.num_photos:
            return 1.0
        return min((self.photos_done + sum(share for *_, share in self.at_work)) / self.num_photos, 0.999)

    def line(self) -> str:
        """The progress in one line."""
        done, tiles = (sum(photo[index] for photo in self.at_work) for index in (0, 1))
        seconds = (time.monotonic() - self.started) * (1 / self.share - 1) if self.share else None
        parts = [f"upscale: {'?' if seconds is None else duration(seconds)} left"]
        parts += [f"{self.photos_done}/{self.num_photos} photos"]
        parts += [f"{done}/{tiles} tiles of those in progress"] if tiles else []
        parts += [f"{self.num_failed} failed"] if self.num_failed else []
        return ", ".join(parts)

    def describe_what_is_kept(self) -> str:
        """What an interrupted run leaves: whole photos."""
        done, tiles = (sum(photo[index] for photo in self.at_work) for index in (0, 1))
        lost = f"; {done} of {tiles} tiles of those in progress are lost" if done else ""
        return f"upscale: {self.photos_done - self.num_failed} of {self.num_photos} photos are finished and kept{lost}"


@dataclass(frozen=True, slots=True)
class UpscalePlan:
    """Photos to upscale, a run that can, and a place for the outputs."""

    run: Run
    photos: dict[str, Photo]
    """By the names of their outputs."""
    ignored: IgnoredFiles
    """The other files that were named."""
    out: str
    """Absolute."""
    config: UpscaleConfig


def plan_upscaling(run: str, images: Sequence[str], out: str, config: UpscaleConfig) -> UpscalePlan:
    """List the photos and check the run; writes nothing, needs no Ray.

    Args:
        run: run folder.
        images: files, folders, patterns, s3:// prefixes.
        out: folder or s3:// prefix.
        config: how to upscale.

    Raises:
        DataError: there is nothing to upscale, or two photos would get one name.
        ConfigError: an output would replace a photo, or the run holds no SR3 stage.
        CheckpointError: the run's weights are not there.
    """
    out = absolute(out)
    found = find_photos(images, config.recursive, leave_out=out)
    photos = name_outputs(found.photos, out, ENDINGS[config.format])
    return UpscalePlan(_checked_run(run, config), photos, found.ignored, out, config)


def describe_plan(plan: UpscalePlan) -> Iterator[str]:
    """What upscale_photos would do: a line per photo, and the time that all would take on this machine.

    Reads the photos, writes nothing. The time is measured: one evaluation of each network on one tile.
    """
    settings = settings_of(plan.run, plan.config)
    estimate = UpscaleEstimate(plan.run, plan.config)
    yield from plan.ignored.remarks()
    yield f"in {plan.out}:"
    for name, photo in plan.photos.items():
        try:
            data = read_photo(photo)
            changes = changes_since(plan.out, name, record_of(source_of(photo, data), settings))
            what = estimate.describe(data) if changes else ""
        except DecodeError as error:
            yield f"{photo.uri}: {error}"
            continue
        action = f"{_in_short(changes)}: {what}" if changes else "is done"
        if changes is None:
            action = "would fail: it exists, but not from `sr3 upscale`"
        yield f"{name}: {action}"
    if estimate.seconds:
        yield f"in all about {duration(estimate.seconds)} on this machine, {estimate.device}; GPUs share the photos"


def _in_short(changes: Sequence[str]) -> str:
    return "new" if list(changes) == [NEW] else f"to be made again ({'; '.join(changes)})"


def _checked_run(run: str, config: UpscaleConfig) -> Run:
    opened = open_run(run)
    end_to_end(opened)
    for stage in opened.cascade():
        stage.check_weights()
        stage.schedule(config.schedule, few_steps=True)
    return opened


def upscale_photos(
    plan: UpscalePlan, on_progress: Callable[[UpscaleProgress], None] | None = None
) -> list[PhotoReport]:
    """Upscale photos of any size and format through a run's cascade to files named like them in `out`.

    Needs a running Ray. An output that exists from the same bytes and settings is kept; from others, it is made again.

    Args:
        plan: what to upscale.
        on_progress: called twice a second; by default progress is printed to standard error.

    Raises:
        StorageError: another process upscales into the same place.
    """
    with working_in(plan.out, "upscaling") as lease:
        return _upscale(plan, lease, on_progress or print_progress())


def _upscale(plan: UpscalePlan, lease: Lease, show: Callable[[UpscaleProgress], None]) -> list[PhotoReport]:
    import ray

    tasks = [(photo, name) for name, photo in plan.photos.items()]
    wanted, gpus = plan.config.num_actors, plan.config.inference.gpus
    found = find_actor_resources(wanted, gpus, plan.run.trained_on_gpus)
    options = {"num_cpus": found.cpus, "num_gpus": found.gpus, "max_concurrency": 2}  # one thread reports progress
    upscaler = ray.remote(PhotoUpscaler).options(**options)

    def make_actor() -> Any:
        return upscaler.remote(plan.run.location, plan.out, to_dict(plan.config), found.cpus, found.device)

    progress = UpscaleProgress(len(tasks))
    reports: dict[str, PhotoReport] = {}

    def tick(actors: list[Any]) -> None:
        lease.check_not_taken()
        progress.at_work = [at_work for actor in actors if (at_work := _ask(actor))]
        show(progress)

    try:
        for (photo, name), result in run_on_actors(make_actor, tasks, found.num_actors, tick):
            if not isinstance(result, PhotoReport):
                detail = "the process died twice; more memory, or a smaller --tile or --batch, may help"
                result = PhotoReport(photo.uri, join(plan.out, name), reason=RejectReason.CRASHED, detail=detail)
            reports[name] = result
            progress.photos_done += 1
            progress.num_failed += result.reason is not None
    except KeyboardInterrupt:
        log.info("%s", progress.describe_what_is_kept())
        raise
    return [reports[name] for _, name in tasks]


def _ask(actor: Any) -> tuple[int, int, float] | None:
    """An actor's progress; None while it is starting or dying."""
    import ray
    import ray.exceptions

    try:
        return ray.get(actor.progress.remote(), timeout=0.2)
    except (ray.exceptions.GetTimeoutError, ray.exceptions.RayActorError):
        return None
