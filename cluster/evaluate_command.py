"""The command `sr3 evaluate`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cluster.options import Common, Flat, parse
from cluster.session import ray_session
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from sr3core.config import to_dict
from sr3core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Measure a run's methods on held-out images, or any folders of images: Tables 1-3's metrics with intervals."""

    run: str | None = None
    """Run folder: compares nearest, bicubic, regression and SR3 on its held-out images."""
    outputs: tuple[str, ...] = ()
    """Instead of a run: folders of any methods' images, DIR or NAME=DIR."""
    references: str | None = None
    """Folder of the originals, paired with --outputs by file name; with --unpaired, also a stage that `sr3 prepare`
    wrote, such as DATA/64-256, of which --split is taken."""
    inputs: str | None = None
    """Folder of the low-resolution inputs; adds consistency."""
    labels: str | None = None
    """CSV of ImageNet classes, columns file and imagenet_index; adds top-1 and top-5 error."""
    samples: tuple[str, ...] = ()
    """Beside --outputs: folders of one method's outputs for the same inputs, one a seed; adds their diversity."""
    photos: str | None = None
    """With --run and --labels: folder of labelled photos, to measure a 64-256 cascade in Table 3's setting."""
    from_noise: int | None = None
    """With --run: draw so many images with the run's cascade and compare them with the originals of --split, as sets
    (Table 4; the paper's FID-50k takes 50000)."""
    unpaired: bool = False
    """The outputs are of no reference in particular, such as images from noise: distances between sets alone, of any
    numbers of images (Table 4's FID-50k)."""
    out: str | None = None
    """JSON file for the numbers of --outputs; a run's go to RUN/evaluation.json, of --photos to RUN/table-3.json, of
    --from-noise to RUN/table-4.json."""
    cache: str | None = None
    """Folder for what was measured of --outputs, by content; OUT.measured without it."""
    config: Annotated[EvaluateConfig, Flat] = field(default_factory=EvaluateConfig)
    measure: Annotated[MeasureConfig, Flat] = field(default_factory=MeasureConfig)
    common: Annotated[Common, Flat] = field(default_factory=Common)

    def __post_init__(self) -> None:
        if (self.run is None) == (not self.outputs):
            raise ConfigError("name either --run RUN, or --outputs DIR --references DIR --out FILE.json")
        if self.outputs and (self.references is None or self.out is None):
            raise ConfigError("--outputs needs --references DIR and --out FILE.json beside it")
        if self.run is not None and (self.references or self.inputs or self.cache):
            raise ConfigError(
                "--run has references and inputs of its own; leave out --references, --inputs and --cache"
            )
        if self.run is not None and (self.unpaired or self.samples):
            raise ConfigError("--unpaired and --samples are for --outputs")
        if self.run is not None and (bool(self.photos) != bool(self.labels) or (self.out and not self.photos)):
            raise ConfigError(
                "--run with --photos DIR needs --labels CSV beside it, and --labels and --out need --photos"
            )
        if self.unpaired and (self.inputs or self.labels or self.samples):
            raise ConfigError("--unpaired compares whole sets; leave out --inputs, --labels and --samples")
        if self.from_noise is not None and (self.run is None or self.photos):
            raise ConfigError("--from-noise is for --run RUN, without --photos")
        if self.from_noise is not None and self.from_noise < 2:
            raise ConfigError(f"--from-noise: {self.from_noise} is less than 2 images")
        if self.outputs and self.photos:
            raise ConfigError("--photos are for --run: they are upscaled before they are classified")


def evaluate(arguments: list[str]) -> int:
    """`sr3 evaluate --run RUN`, or `sr3 evaluate --outputs NAME=DIR… --references DIR --out FILE.json`."""
    options = parse(EvaluateOptions, "evaluate", arguments)
    if options.common.print_config:
        print(json.dumps(to_dict(options.config) | to_dict(options.measure), indent=1))
        return 0
    if options.common.dry_run:
        print(f"would evaluate {_checked_run(options, options.run) if options.run else _checked_folders(options)}")
        return 0
    from pipelines.evaluation.metric_intervals import tabulate

    with ray_session(options.common.address):
        result = _of_run(options, options.run) if options.run else _of_folders(options)
    print(tabulate(result))
    return 0


def _of_run(options: EvaluateOptions, run: str) -> dict[str, Any]:
    config, variant = options.config, options.measure
    if options.photos:
        from pipelines.evaluation.table_3 import evaluate_table_3

        out = options.out or str(Path(run) / "table-3.json")
        return evaluate_table_3(run, options.photos, str(options.labels), out, config, variant)
    if options.from_noise:
        from pipelines.evaluation.table_4 import evaluate_table_4

        return evaluate_table_4(run, options.from_noise, config, variant)
    from pipelines.evaluation.evaluate import evaluate_run

    return evaluate_run(run, config, variant)


def _of_folders(options: EvaluateOptions) -> dict[str, Any]:
    config, variant = options.config, options.measure
    references, out = str(options.references), str(options.out)  # EvaluateOptions has seen to it that they are there
    if options.unpaired:
        from pipelines.evaluation.unpaired import evaluate_unpaired

        return evaluate_unpaired(
            options.outputs, references, out, variant, config.num_actors, options.cache, config.split
        )
    from pipelines.evaluation.evaluate import evaluate_folders

    return evaluate_folders(
        options.outputs,
        references,
        out,
        options.inputs,
        options.labels,
        variant,
        config.num_actors,
        options.cache,
        samples=options.samples,
    )


def _checked_run(options: EvaluateOptions, location: str) -> str:
    """What would be measured of a run, whose checkpoints and schedules are looked at."""
    from pipelines.runs.run_folder import open_run
    from pipelines.sampling.held_out import methods_of

    run = open_run(location)
    if options.from_noise:
        from pipelines.evaluation.table_4 import plan_table_4

        plan, originals = plan_table_4(run, options.from_noise, options.config)
        drawn = f"{options.from_noise} images from noise, {len(plan.todo)} of them to be drawn,"
        return f"{drawn} against {len(originals.files)} {options.config.split} images of {originals.folder}"
    methods = methods_of(run)
    for stage in (stage for stages in methods.values() for stage in stages):
        stage.check()
        stage.schedule(options.config.schedule)
    return f"nearest, bicubic, {', '.join(methods)} of {location} on {options.photos or options.config.split} images"


def _checked_folders(options: EvaluateOptions) -> str:
    """What would be compared, whose files are listed and paired."""
    from pipelines.evaluation.image_sets import ImageSet, check_pairs, named_folders

    methods = [ImageSet.read(folder, name) for name, folder in named_folders(options.outputs).items()]
    originals = ImageSet.read(str(options.references), "references", options.config.split if options.unpaired else None)
    if not options.unpaired:
        low = [ImageSet.read(options.inputs, "inputs")] if options.inputs else []
        check_pairs(originals, [*methods, *low])
    names = ", ".join(f"{images.name} ({len(images.files)} images)" for images in methods)
    return f"{names} against {len(originals.files)} references"
