"""The command `sr3 sample`."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from cluster.options import Common, parse, printed
from cluster.session import ray_session
from pipelines.settings.sample import SampleConfig

Flat = tyro.conf.arg(name="")


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """Draw images from noise with a run that has a base model; those that are there are not drawn again."""

    run: str
    """Run folder, or s3:// URI, that `sr3 train` wrote, or a registry of `sr3 retrain`, for its promoted model."""
    out: str
    """Folder or s3:// prefix for 000000.png and on, and labels.csv where there are classes."""
    config: Annotated[SampleConfig, Flat] = field(default_factory=SampleConfig)
    common: Annotated[Common, Flat] = field(default_factory=Common)


def sample(arguments: list[str]) -> int:
    """`sr3 sample --run RUN --out DIR --num-images 50000`."""
    options = parse(SampleOptions, "sample", arguments)
    if options.common.print_config:
        print(printed(options.config))
        return 0
    from pipelines.registry.registry import find_model
    from pipelines.runs.run_folder import open_run
    from pipelines.sampling.generate import sample_images
    from pipelines.sampling.generation_plan import plan_samples

    run = find_model(options.run)
    if options.common.dry_run:
        plan = plan_samples(open_run(run), options.out, options.config)
        names = " -> ".join(
            f"{stage.name} ({schedule.num_steps} steps)"
            for stage, schedule in zip(plan.stages, plan.schedules, strict=True)
        )
        print(f"would draw {len(plan.todo)} of {options.config.num_images} images by {names} in {options.out}")
        return 0
    with ray_session(options.common.address):
        plan = sample_images(run, options.out, options.config)
    print(f"{len(plan.todo)} of {options.config.num_images} images drawn in {options.out}, the others were there")
    return 0
