"""`sr3 upscale`: photos of any size, with a trained run or the model in the box."""

from collections import Counter
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import tyro

from cluster.exits import DONE, FAILURE
from cluster.loading import loading
from cluster.options.declared import Configured, Flat, OnRay, Writing
from cluster.options.reading import CommandLine, print_configuration
from cluster.session import ray_session
from pipelines.settings.locations import PHOTOS_4X, Location
from pipelines.settings.upscale import UpscaleConfig
from sr3core.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.runs.run_folder import Run
    from pipelines.sampling.photo_upscaler import PhotoReport
    from pipelines.sampling.upscale import UpscalePlan


@dataclass(frozen=True, kw_only=True)
class Options(Configured, Writing, OnRay):
    """Upscale photos of any size, tile by tile; photos already upscaled so are skipped."""

    images: Annotated[tuple[Location, ...], tyro.conf.Positional]
    """Image files, folders, patterns in quotes ("scans/**/*.jpg"), s3://bucket/prefix. For a run of fields: a store."""
    run: Location = PHOTOS_4X
    """What to upscale with: a run folder that `sr3 train` wrote, a model folder of `sr3 export`, or a registry, for its
    promoted model. By default the model that comes with the program, for photos, 4 times."""
    out: Location
    """Folder or s3:// prefix for the outputs, named like the photos; OUT/.sr3 records how each was made. For a run of
    fields a .zarr or .nc."""
    config: Annotated[UpscaleConfig, Flat] = field(default_factory=UpscaleConfig)

    def __post_init__(self) -> None:
        if not self.images and not self.print_config:
            raise ConfigError("images: name at least one image file, or a folder of them")


COMMAND_LINE = CommandLine(
    name="upscale",
    options=Options,
    essential=(
        *("IMAGES", "--run", "--out", "--recursive", "--format", "--schedule", "--seed", "--tile", "--batch"),
        *("--inference.precision", "--num-actors", "--dry-run", "--config", "--address"),
    ),
    examples=(
        "sr3 upscale photo.jpg --out large",
        "sr3 upscale lr.zarr --run runs/weather --members 16 --out downscaled.zarr",
        "sr3 upscale photos/ --recursive --run runs/faces --out large --schedule 25",
    ),
)


def run(options: Options) -> int:
    """`sr3 upscale IMAGES… --out DIR [--run RUN]`."""
    if options.print_config:
        print_configuration(options)
        return DONE
    with loading():
        from pipelines.registry.registry import find_model
        from pipelines.sampling.fields.upscale_fields import run_of_fields
        from pipelines.sampling.upscale import describe_plan, plan_upscaling, upscale_photos
        from pipelines.storage.leases.folder_lease import refuse_if_busy, working_in

    model = find_model(options.run)
    if (fields := run_of_fields(model)) is not None:
        return _run_fields(options, fields)
    if options.dry_run:
        refuse_if_busy(options.out, "upscaling")
        for line in describe_plan(plan_upscaling(model, options.images, options.out, options.config)):
            print(line)
        return DONE
    with working_in(options.out, "upscaling", wait=options.wait):
        plan = plan_upscaling(model, options.images, options.out, options.config)
        for line in plan.ignored.remarks():
            print(line)
        with ray_session(options.address):
            reports = upscale_photos(plan)
    print(describe_upscaling(reports, options.out))
    print(next_command(plan))
    return FAILURE if any(report.reason for report in reports) else DONE


def _run_fields(options: Options, model: "Run") -> int:
    """The same with a run of fields: a store into a store."""
    from pipelines.sampling.fields.upscale_fields import describe_field_upscaling, plan_fields, upscale_fields
    from pipelines.storage.leases.folder_lease import working_in

    plan = plan_fields(model, options.images, options.out, options.config)
    if options.dry_run:
        print(describe_field_upscaling(plan))
        return DONE
    with working_in(f"{plan.out}.lease", "upscaling", wait=options.wait), ray_session(options.address):
        made = upscale_fields(plan)
    print(f"{made} samples of {options.config.members} members made in {plan.out}")
    return DONE


def next_command(plan: "UpscalePlan") -> str:
    """A better schedule, if none was searched for these photos, or else how good the run is; of a model that comes with
    the program, how to train one's own.
    """
    from pipelines.runs.shipped_models import is_shipped

    if is_shipped(plan.run.location):
        stages = " ".join(stage.config.data_stage for stage in plan.run.cascade())
        return f"next: sr3 prepare --source PHOTOS --out DATA --stages {stages}    (to train on photos like these)"
    place = quote(plan.run.location) + ("" if plan.run.data else " --data DATA")  # an exported model names none
    unsearched = [stage.name for stage in plan.run.cascade() if not list(stage.schedules.glob("best-*.json"))]
    if unsearched and plan.config.schedule is None:
        return f"next: sr3 search --run {place} --stage {unsearched[0]}    (a schedule for better photos)"
    return f"next: sr3 evaluate --run {place}    (how good they are, by held-out images)"


def describe_upscaling(reports: "list[PhotoReport]", out: str) -> str:
    """One line per failure and per kind of conversion, and the counts."""
    lines = [f"{report.source}: {report.reason}: {report.detail}" for report in reports if report.reason]
    notes = Counter(note for report in reports for note in report.notes)
    lines += [f"note: {note} ({count} photos)" for note, count in sorted(notes.items())]
    made, failed = sum(report.made for report in reports), sum(report.reason is not None for report in reports)
    there = len(reports) - made - failed
    before = f", {there} were there already" if there else ""
    return "\n".join([*lines, f"{made} of {len(reports)} images upscaled in {out}{before}, {failed} failed"])
