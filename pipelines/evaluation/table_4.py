"""Table 4 for a run's cascade: images from noise, cycling through the classes, against originals of its data."""

from itertools import islice
from pathlib import Path
from typing import Any

from pipelines.evaluation.evaluate import write_evaluation
from pipelines.evaluation.image_sets import ImageSet
from pipelines.evaluation.measurer import MeasuringSetup
from pipelines.evaluation.unpaired import measure_sets
from pipelines.runs.run_folder import Run, open_run
from pipelines.runtime.provenance import provenance
from pipelines.sampling.generate import image_name, sample_images
from pipelines.sampling.generation_plan import Plan, plan_samples
from pipelines.sampling.held_out import check_files_reach_all
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from pipelines.settings.mixtures import parts_of
from pipelines.settings.sample import SampleConfig
from pipelines.storage.uris import join
from sr3core.config import fingerprint_of


def evaluate_table_4(run: str, num_images: int, config: EvaluateConfig, variant: MeasureConfig) -> dict[str, Any]:
    """Draw images with a run's cascade and measure how far they are from originals: FID-50k with 50,000. Needs a
    running Ray.

    Writes RUN/table-4.json; the images stay in RUN/generated, in a folder for each way of drawing them. The
    same command again, or one for more images, draws only the missing ones.

    Args:
        run: run folder with a base model.
        num_images: how many; they cycle through the classes.
        config: the split of the originals, their largest number, the schedules, seed and number of actors.
        variant: the metrics' variants.

    Raises:
        ConfigError, CheckpointError: no images can be drawn with the run.
        DataError: the split is empty.
    """
    opened = open_run(run)
    check_files_reach_all(opened.bucket)
    plan, originals = plan_table_4(opened, num_images, config)
    folder = _folder(opened.path, plan)
    sample_images(run, folder, _wanted(num_images, config))
    names = [image_name(number) for number in range(num_images)]
    drawn = ImageSet("sr3", folder, {name: join(folder, name) for name in names})
    setup = MeasuringSetup(variant, opened.path / "measured", config.num_actors)
    origin = provenance(variant) | {"outputs": [folder], "references": originals.folder}
    result = write_evaluation(opened.path / "table-4.json", measure_sets([drawn], originals, setup), origin)
    opened.publish()
    return result


def plan_table_4(run: Run, num_images: int, config: EvaluateConfig) -> tuple[Plan, ImageSet]:
    """The images to draw and the originals; checks everything that `evaluate_table_4` needs."""
    wanted = _wanted(num_images, config)
    plan = plan_samples(run, _folder(run.path, plan_samples(run, None, wanted)), wanted)
    return plan, _originals(run, plan.stages[-1].config.data_stage, config)


def _originals(run: Run, stage: str, config: EvaluateConfig) -> ImageSet:
    """The originals of a split; with a limit, the first ones by their keys, of a mixture the same number of each."""
    folders = [join(part.folder, stage) for part in parts_of(run.data)]
    sets = [ImageSet.read(folder, "references", config.split) for folder in folders]
    each = None if config.limit is None else -(-config.limit // len(sets))
    files = [item for images in sets for item in islice(sorted(images.files.items()), each)]
    shards = {path: digest for images in sets for path, digest in images.shards.items()}
    return ImageSet("references", " and ".join(folders), dict(files[: config.limit]), shards=shards)


def _wanted(num_images: int, config: EvaluateConfig) -> SampleConfig:
    return SampleConfig(
        num_images=num_images,
        schedule=config.schedule,
        seed=config.seed,
        num_actors=config.num_actors,
        inference=config.inference,
    )


def _folder(run: Path, plan: Plan) -> str:
    return str(run / "generated" / fingerprint_of(plan.content))
