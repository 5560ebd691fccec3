"""`sr3 evaluate`: the paper's metrics, for a run or for any folders of images."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

from cluster.exits import DONE
from cluster.loading import loading
from cluster.options.declared import Configured, Flat, OnRay, Writing
from cluster.options.reading import CommandLine, print_configuration
from cluster.session import ray_session
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from pipelines.settings.locations import DataLocation, Location, NamedLocation
from pipelines.settings.mixtures import read_data
from pipelines.storage.leases.folder_lease import refuse_if_busy, working_in
from sr3core.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.images.file_names import IgnoredFiles


@dataclass(frozen=True, kw_only=True)
class Options(Configured, Writing, OnRay):
    """Measure a run's methods on held-out images, or any folders of images: Tables 1-3's metrics with intervals."""

    run: Location | None = None
    """Run folder: compares nearest, bicubic, regression and SR3 on its held-out images."""
    data: tuple[DataLocation, ...] = ()
    """With --run: where the data that it was trained on are now, if they were moved; the run remembers it."""
    outputs: tuple[NamedLocation, ...] = ()
    """Instead of a run: folders of any methods' images, DIR or NAME=DIR."""
    references: Location | None = None
    """Folder of the originals, paired with --outputs by file name; with --unpaired, it may also be a stage that
    `sr3 prepare` wrote, such as DATA/64-256, of which --split is used."""
    inputs: Location | None = None
    """Folder of the low-resolution inputs; adds consistency."""
    labels: Location | None = None
    """CSV of ImageNet classes with the columns file and imagenet_index; adds top-1 and top-5 error."""
    samples: tuple[Location, ...] = ()
    """With --outputs: folders of one method's outputs for the same inputs, one per seed; adds their diversity."""
    photos: Location | None = None
    """With --run: folder of photos that it never saw, of any sizes: each is shrunk, upscaled in tiles as `sr3 upscale`
    does, and compared with itself. With --labels too, a 64-256 cascade is measured in Table 3's setting."""
    from_noise: int | None = None
    """With --run: generate this many images with the run's cascade and compare them with the originals of --split, as
    sets (Table 4; the paper's FID-50k uses 50000)."""
    unpaired: bool = False
    """Compare --outputs and --references as sets of any sizes, by distances alone (Table 4's FID-50k): for images
    without references of their own, such as images from noise."""
    out: Location | None = None
    """JSON file for the results of --outputs; those of a run are written to RUN/evaluation.json, of --photos to
    RUN/photos.json, with --labels to RUN/table-3.json, of --from-noise to RUN/table-4.json."""
    cache: Location | None = None
    """Folder for measurements of --outputs, keyed by content; default: OUT.measured."""
    config: Annotated[EvaluateConfig, Flat] = field(default_factory=EvaluateConfig)
    measure: Annotated[MeasureConfig, Flat] = field(default_factory=MeasureConfig)

    def __post_init__(self) -> None:
        if self.print_config:
            return
        if (self.run is None) == (not self.outputs):
            raise ConfigError("name either --run RUN, or --outputs DIR --references DIR --out FILE.json")
        if self.outputs and (self.references is None or self.out is None):
            raise ConfigError("--outputs needs --references DIR and --out FILE.json as well")
        if self.run is not None and (self.references or self.inputs or self.cache):
            raise ConfigError("--run uses its own references and inputs; leave out --references, --inputs and --cache")
        if self.run is None and self.data:
            raise ConfigError("--data says where the data of a run are; leave it out, or name --run RUN")
        if self.run is not None and (self.unpaired or self.samples):
            raise ConfigError("--unpaired and --samples apply to --outputs, not to --run; leave them out")
        if self.run is not None and (self.labels or self.out) and not self.photos:
            raise ConfigError("with --run, --labels and --out need --photos FOLDER; name one, or leave them out")
        if self.unpaired and (self.inputs or self.labels or self.samples):
            raise ConfigError("--unpaired compares sets as a whole; leave out --inputs, --labels and --samples")
        if self.from_noise is not None and (self.run is None or self.photos):
            raise ConfigError("--from-noise needs --run RUN, and excludes --photos")
        if self.from_noise is not None and self.from_noise < 2:
            raise ConfigError(f"--from-noise: {self.from_noise} is fewer than 2 images")
        if self.outputs and self.photos:
            raise ConfigError("--photos needs --run: the photos are upscaled before they are measured")


COMMAND_LINE = CommandLine(
    name="evaluate",
    options=Options,
    essential=(
        *("--run", "--outputs", "--references", "--inputs", "--out", "--split", "--limit", "--schedule"),
        "--members",
        *("--from-noise", "--unpaired", "--num-actors", "--dry-run", "--config", "--address"),
    ),
    examples=(
        "sr3 evaluate --run runs/faces",
        "sr3 evaluate --outputs gan=DIR ours=DIR --references DIR --out numbers.json",
    ),
)


def run(options: Options) -> int:
    """`sr3 evaluate --run RUN`, or `sr3 evaluate --outputs NAME=DIR… --references DIR --out FILE.json`."""
    if options.print_config:
        print_configuration(options)
        return DONE
    with loading():
        from pipelines.evaluation.networks import check_weight_files
        from pipelines.sampling.fields.upscale_fields import run_of_fields

    if options.run and run_of_fields(options.run) is not None:
        return _of_fields(options, options.run)
    if options.config.members is not None:
        raise ConfigError("members: ensembles are of fields, and these are images; leave it out")
    check_weight_files(options.measure)
    if options.run and options.dry_run:
        refuse_if_busy(options.run, "evaluating")
    if options.dry_run:
        what, ignored = _checked(options)
        print("\n".join([f"would evaluate {what}", *ignored.remarks()]))
        return DONE
    with loading():
        from pipelines.evaluation.metric_intervals import tabulate

    with _place(options):
        for line in _checked(options)[1].remarks():
            print(line)
        with ray_session(options.address):
            result = _of_run(options, options.run) if options.run else _of_folders(options)
    print(tabulate(result))
    for line in describe_evaluation(options, result):
        print(line)
    return DONE


def _of_fields(options: Options, location: str) -> int:
    """Evaluate a run that makes fields."""
    from cluster.field_evaluation import check_run_of_fields, evaluate_run_of_fields

    for name in ("photos", "labels", "from_noise", "out"):
        if getattr(options, name) is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is for images, and {location} makes fields; leave it out")
    data = read_data(options.data) if options.data else None
    if options.dry_run:
        refuse_if_busy(location, "evaluating")
        print(f"would evaluate {check_run_of_fields(location, options.config, data, remember=False)}")
        return DONE
    with _place(options):
        evaluate_run_of_fields(location, options.config, data, options.address)
    return DONE


def _place(options: Options) -> AbstractContextManager[object]:
    """The exclusive right to evaluate a run; `--outputs` writes one file, and measurements keyed by content."""
    return working_in(options.run, "evaluating", wait=options.wait) if options.run else nullcontext()


def describe_evaluation(options: Options, result: dict[str, Any]) -> Iterator[str]:
    """What the numbers say, and the next command."""
    from pipelines.report.verdict import evaluation_verdict, run_verdict, sets_verdict
    from pipelines.runs.run_folder import open_run

    yield ""
    if options.from_noise or options.unpaired:
        yield from sets_verdict(result)
    elif options.run is not None:
        yield from run_verdict(open_run(options.run), result)
    else:
        yield from evaluation_verdict(result, {})
    yield f"next: sr3 report {quote(options.run)}" if options.run else f"all numbers: {options.out}"


def _of_run(options: Options, run: str) -> dict[str, Any]:
    config, variant = options.config, options.measure
    if options.photos:
        from pipelines.evaluation.table_3 import evaluate_table_3
        from pipelines.evaluation.whole_photos import evaluate_photos

        if options.labels is None:
            out = options.out or str(Path(run) / "photos.json")
            return evaluate_photos(run, options.photos, out, config, variant)
        out = options.out or str(Path(run) / "table-3.json")
        return evaluate_table_3(run, options.photos, options.labels, out, config, variant)
    if options.from_noise:
        from pipelines.evaluation.table_4 import evaluate_table_4

        return evaluate_table_4(run, options.from_noise, config, variant)
    from pipelines.evaluation.evaluate import evaluate_run

    return evaluate_run(run, config, variant)


def _of_folders(options: Options) -> dict[str, Any]:
    from pipelines.evaluation.evaluate import Folders, evaluate_folders

    folders = Folders(
        outputs=options.outputs,
        references=str(options.references),  # Options.__post_init__ has checked that it and out are given
        inputs=options.inputs,
        labels=options.labels,
        samples=options.samples,
        paired=not options.unpaired,
        split=options.config.split,
    )
    return evaluate_folders(folders, str(options.out), options.measure, options.config.num_actors, options.cache)


def _checked(options: Options) -> "tuple[str, IgnoredFiles]":
    """What is measured, in words, and the files that are not; checks all that can be known before."""
    return _checked_run(options, options.run) if options.run else _checked_folders(options)


def _checked_run(options: Options, location: str) -> "tuple[str, IgnoredFiles]":
    """What is measured of a run; checks that its checkpoints, schedules and data exist, and remembers moved data."""
    from pipelines.evaluation.image_sets import ImageSet, read_labels
    from pipelines.evaluation.whole_photos import find_whole_photos
    from pipelines.images.file_names import IgnoredFiles
    from pipelines.runs.run_data import remember_data, require_data, with_data
    from pipelines.runs.run_folder import open_run
    from pipelines.sampling.held_out import measured_stage, methods_of

    run = with_data(open_run(location), read_data(options.data) if options.data else None)
    if not options.dry_run:
        remember_data(run)
    if options.from_noise:
        from pipelines.evaluation.table_4 import plan_table_4

        plan, originals = plan_table_4(run, options.from_noise, options.config)
        made = f"{options.from_noise} images from noise, {len(plan.todo)} of them still to be generated,"
        against = f"{len(originals.files)} {options.config.split} images of {originals.folder}"
        return f"{made} against {against}", originals.ignored
    methods = methods_of(run)
    photos = ImageSet.read(options.photos, "photos") if options.photos else None
    if photos is not None and options.labels is None:
        find_whole_photos(run, photos.folder, options.config.limit)
    elif photos is not None:
        read_labels(str(options.labels), sorted(photos.files)[: options.config.limit])
    else:
        require_data(run, measured_stage(run), options.config.split)
    for stage in (stage for stages in methods.values() for stage in stages):
        stage.check_weights()
        stage.schedule(options.config.schedule)
    ignored = photos.ignored if photos is not None else IgnoredFiles()
    on = options.photos or options.config.split
    return f"nearest, bicubic, {', '.join(methods)} of {location} on {on} images", ignored


def _checked_folders(options: Options) -> "tuple[str, IgnoredFiles]":
    """What is compared; lists and pairs the files, and checks that the result has a place."""
    from pipelines.evaluation.image_sets import ImageSet, check_pairs, named_folders
    from pipelines.evaluation.unpaired import check_sizes
    from pipelines.images.file_names import IgnoredFiles
    from pipelines.storage.writable import refuse_unwritable_file, refuse_unwritable_folder

    refuse_unwritable_file("out", options.out, ".json")
    if options.cache is not None:
        refuse_unwritable_folder(options.cache)
    methods = [ImageSet.read(folder, name) for name, folder in named_folders(options.outputs).items()]
    originals = ImageSet.read(str(options.references), "references", options.config.split if options.unpaired else None)
    others = [ImageSet.read(options.inputs, "inputs")] if options.inputs else []
    others += [ImageSet.read(folder, "samples") for folder in options.samples]
    if options.unpaired:
        check_sizes([*methods, originals])
    else:
        check_pairs(originals, [*methods, *others])
    ignored = IgnoredFiles()
    for images in (*methods, originals, *others):
        ignored.update(images.ignored)
    names = ", ".join(f"{images.name} ({len(images.files)} images)" for images in methods)
    return f"{names} against {len(originals.files)} references", ignored
