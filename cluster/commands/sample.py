"""`sr3 sample`: images from noise."""

from dataclasses import dataclass, field
from shlex import quote
from typing import Annotated

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.declared import Configured, Flat, OnRay, Writing
from cluster.options.reading import CommandLine, print_configuration
from cluster.session import ray_session
from pipelines.settings.locations import Location
from pipelines.settings.sample import SampleConfig


@dataclass(frozen=True, kw_only=True)
class Options(Configured, Writing, OnRay):
    """Generate images from noise with a run that has a base model; images that already exist are skipped."""

    run: Location
    """Run folder that `sr3 train` wrote, or a registry that `sr3 retrain` wrote, for its promoted model."""
    out: Location
    """Folder or s3:// prefix for 000000.png, 000001.png, ..., and labels.csv if the model has classes."""
    config: Annotated[SampleConfig, Flat] = field(default_factory=SampleConfig)


COMMAND_LINE = CommandLine(
    name="sample",
    options=Options,
    essential=(
        *("--run", "--out", "--num-images", "--classes", "--schedule", "--seed", "--batch", "--num-actors", "--grid"),
        *("--inference.precision", "--dry-run", "--config", "--address"),
    ),
    examples=(
        "sr3 sample --run runs/faces-cascade --out samples --num-images 50000",
        "sr3 sample --run runs/imagenet --out samples --classes 0-9,207 --grid samples.png",
    ),
)


def run(options: Options) -> int:
    """`sr3 sample --run RUN --out DIR --num-images 50000`."""
    if options.print_config:
        print_configuration(options)
        return DONE
    with loading():
        from pipelines.registry.registry import find_model
        from pipelines.runs.run_folder import open_run
        from pipelines.sampling.generate import part_of, sample_images
        from pipelines.sampling.generation_plan import plan_samples
        from pipelines.storage.leases.folder_lease import refuse_if_busy, working_in

    model = find_model(options.run)
    if options.dry_run:
        refuse_if_busy(options.out, "sampling", part_of(options.config))
        plan = plan_samples(open_run(model), options.out, options.config)
        names = " -> ".join(
            f"{stage.name} ({schedule.num_steps} steps)"
            for stage, schedule in zip(plan.stages, plan.schedules, strict=True)
        )
        print(f"would generate {len(plan.todo)} of {options.config.num_images} images by {names} in {options.out}")
        return DONE
    place = working_in(options.out, "sampling", part_of(options.config), options.wait)
    with place:
        with loading():  # what it refuses is told before Ray starts
            plan_samples(open_run(model), options.out, options.config)
        with ray_session(options.address):
            plan = sample_images(model, options.out, options.config)
    made, wanted = len(plan.todo), options.config.num_images
    there = f"; the other {wanted - made} already existed" if made < wanted else ""
    print(f"{made} of {wanted} images generated in {options.out}{there}")
    print(f"next: sr3 evaluate --run {quote(options.run)} --from-noise {wanted}    (their distance from originals)")
    return DONE
