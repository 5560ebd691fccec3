"""Evaluation: Tables 1-4's metrics for any folders of images, and for every method of a run, side by side."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.evaluation.image_sets import ImageSet, check_pairs, named_folders, read_labels
from pipelines.evaluation.measurer import MeasuringSetup
from pipelines.evaluation.networks import feature_network
from pipelines.evaluation.paired import PairedSets, measure_pairs
from pipelines.evaluation.sample_diversity import measure_diversity
from pipelines.evaluation.unpaired import measure_sets
from pipelines.runs.run_folder import local_path, open_run, write_atomic
from pipelines.runtime.provenance import provenance
from pipelines.sampling.held_out import NUM_REPEATED, Samples, measured_stage, upscale_split
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from pipelines.shards.mixtures import operator_of
from pipelines.storage.leases.folder_lease import working_in
from pipelines.storage.versioned_json import JsonFormat, read_object
from sr3core import strict_json
from sr3core.config import scientific, to_dict

EVALUATION = JsonFormat(
    title="file of `sr3 evaluate`",
    version=1,
    name="sr3-evaluation",
    if_damaged="name a file that `sr3 evaluate` wrote",
    if_other_version="measure again with `sr3 evaluate`",
)
NO_OPERATOR = "consistency is not measured: no one operator that is known made the low-resolution images"
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Folders:
    """Folders of images to measure; in each, an image is named by its file name without the extension."""

    outputs: Sequence[str]
    """One folder per method, each as DIR or NAME=DIR; outputs of any program."""
    references: str
    """The originals: a folder, or unpaired also a stage that `sr3 prepare` wrote, such as DATA/64-256."""
    inputs: str | None = None
    """The low-resolution inputs; adds consistency."""
    labels: str | None = None
    """CSV of ImageNet classes; adds classification errors."""
    samples: Sequence[str] = ()
    """One method's outputs for the same inputs, one folder per seed; adds their diversity."""
    paired: bool = True
    """Compare images of equal names. False compares whole sets of any sizes, without inputs, labels and samples."""
    split: str = "test"
    """The split to read if references is a prepared stage."""


def evaluate_folders(
    folders: Folders,
    out: str,
    config: MeasureConfig | None = None,
    num_actors: int | None = None,
    cache: str | None = None,
    setting: str | None = None,
) -> dict[str, Any]:
    """Measure folders of images against a folder of references and write the numbers. Needs a running Ray.

    Args:
        folders: the images to measure.
        out: JSON file to write.
        config: the metrics' variants.
        num_actors: processes that measure in parallel; None takes one per GPU of the cluster, or one. The numbers do
            not depend on it.
        cache: folder for measurements, keyed by content; OUT.measured by default.
        setting: how the images were made, in words for the table.

    Raises:
        ConfigError: two outputs have the same name, or labels need a classifier that is not installed.
        DataError: a folder is missing or empty, an image cannot be read, or, paired, names, sizes or labels do not
            match; names the files.
    """
    path = local_path(out)
    store = local_path(cache) if cache is not None else path.with_name(f"{path.name}.measured")
    setup = MeasuringSetup(config or MeasureConfig(), store, num_actors)
    found = _measure_pairs(folders, setup) if folders.paired else _measure_sets(folders, setup)
    return write_evaluation(path, {"setting": setting, **found}, provenance(setup.config) | asdict(folders))


def _measure_pairs(folders: Folders, setup: MeasuringSetup) -> dict[str, Any]:
    methods = [ImageSet.read(folder, name) for name, folder in named_folders(folders.outputs).items()]
    references = ImageSet.read(folders.references, "references")
    inputs = ImageSet.read(folders.inputs, "inputs") if folders.inputs is not None else None
    seeds = [ImageSet.read(folder, "samples") for folder in folders.samples]
    names = check_pairs(references, [*methods, *seeds, *([inputs] if inputs else [])])
    labels = read_labels(folders.labels, names) if folders.labels is not None else None
    sets = PairedSets(names=names, methods=methods, references=references, inputs=inputs, labels=labels)
    found = {"num_images": len(names), **measure_pairs(sets, setup)}
    if seeds:
        numbers, words = measure_diversity(seeds, names, feature_network(), setup)
        found["methods"].append({"name": "samples", **numbers})
        found["variants"] |= words
    return found


def _measure_sets(folders: Folders, setup: MeasuringSetup) -> dict[str, Any]:
    methods = [ImageSet.read(folder, name) for name, folder in named_folders(folders.outputs).items()]
    return measure_sets(methods, ImageSet.read(folders.references, "references", folders.split), setup)


def write_evaluation(path: Path, found: dict[str, Any], origin: dict[str, Any]) -> dict[str, Any]:
    """Write the measurements with their provenance, and return what was written."""
    result = {**EVALUATION.header, **found, "provenance": origin}
    write_atomic(path, strict_json.dumps(result, indent=1))
    return result


def evaluate_run(run: str, config: EvaluateConfig, variant: MeasureConfig | None = None) -> dict[str, Any]:
    """Upscale held-out images by every method of a run and measure each. Needs a running Ray.

    Writes RUN/evaluation.json; the images stay in RUN/samples.

    Raises:
        StorageError: another process evaluates the run.
    """
    with working_in(run, "evaluating"):
        return _evaluate_run(run, config, variant or MeasureConfig())


def _evaluate_run(run: str, config: EvaluateConfig, variant: MeasureConfig) -> dict[str, Any]:
    samples = upscale_split(run, config)
    identity = [samples.fingerprint, feature_network().name, scientific(variant), list(samples.repeats)]
    path = samples.folder.parent / "evaluation.json"
    known = read_object(path)
    if known.get("identity") == identity:
        log.info("evaluation: %s is up to date", path)
        return known
    # The cache outlives the samples: references are embedded once.
    setup = MeasuringSetup(variant, samples.folder.parent / "measured", config.num_actors)
    about = {
        "identity": identity,
        "samples": samples.fingerprint,
        "split": samples.split,
        "num_images": len(samples.keys),
        "keys": list(samples.keys),
        "schedules": samples.schedules,
        "repeats": samples.repeats,
        "seed": samples.seed,
    }
    origin = provenance(config) | {"measure": to_dict(variant)}
    opened = open_run(run)
    is_random = opened.cascade()[0].config.degradation.order > 0
    operator = None if is_random else operator_of(opened.data, measured_stage(opened))
    result = write_evaluation(path, about | measure_samples(samples, setup, operator), origin)
    opened.publish()
    return result


def measure_samples(samples: Samples, setup: MeasuringSetup, operator: str | None) -> dict[str, Any]:
    """Measure a run's methods, and the diversity of SR3's samples if there are several per input.

    Args:
        samples: the images.
        setup: the metrics' variants, the cache, the number of actors.
        operator: what made the inputs; None if it is not known, or no one operator did, and consistency with them
            cannot be measured.
    """
    sets = PairedSets(
        names=samples.keys,
        methods=[ImageSet.of_samples(samples.folder, name, samples.keys) for name in samples.methods],
        references=ImageSet.of_samples(samples.folder, "reference", samples.keys),
        inputs=ImageSet.of_samples(samples.folder, "low", samples.keys) if operator else None,
    )
    found = measure_pairs(sets, setup)
    if operator is None:
        found["variants"].pop("consistency")
        found["warnings"].append(NO_OPERATOR)
    if samples.repeats:
        keys = samples.keys[:NUM_REPEATED]
        seeds = [ImageSet.of_samples(samples.folder, name, keys) for name in ("sr3", *samples.repeats)]
        numbers, words = measure_diversity(seeds, keys, feature_network(), setup)
        next(row for row in found["methods"] if row["name"] == "sr3").update(numbers)
        found["variants"] |= words
    return found
