"""Sets of images that do not pair up, such as Table 4's images from noise: distances between them, of any sizes."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.evaluate import (
    EVALUATION_FORMAT_VERSION,
    feature_network,
    judged,
    needed_classifier,
    rank_warning,
)
from pipelines.evaluation.image_sets import ImageSet, named_folders
from pipelines.evaluation.measure import Measurer
from pipelines.evaluation.metric_intervals import (
    MAX_GRAM_IMAGES,
    Embedded,
    Numbers,
    has_logits,
    interval_label,
    manifold_numbers,
    subset_kernel_distance,
    variants,
    with_interval,
)
from pipelines.runs.run_folder import local_path, write_atomic
from pipelines.runtime.provenance import provenance
from pipelines.settings.evaluate import MeasureConfig
from sr3core.features.extractors import FeatureNetwork
from sr3core.metrics.bootstrap import bootstrap_values_of_two
from sr3core.metrics.fid import frechet_distance, frechet_distance_from_features, rank_deficient
from sr3core.metrics.kid import kernel_distance

FID_50K = 50_000


def evaluate_unpaired(
    outputs: Sequence[str],
    references: str,
    out: str,
    config: MeasureConfig | None = None,
    num_actors: int | None = None,
    cache: str | None = None,
    split: str = "test",
) -> dict[str, Any]:
    """Compare folders of images with references as sets: FID-50k where there are 50,000 outputs.

    What was measured of a set is kept by its images' content in `cache`, so a reference set is embedded once for
    all that is ever compared with it. Needs a running Ray.

    Args:
        outputs: folders of images, each DIR or NAME=DIR, such as `sr3 sample` wrote.
        references: real images, of any number: a folder, or a stage that `sr3 prepare` wrote, such as DATA/64-256.
        out: JSON file to write.
        config: the metrics' variants.
        num_actors: processes that measure side by side; None takes one a GPU, or one. The numbers do not depend on it.
        cache: folder for what was measured; OUT.measured by default.
        split: part of a prepared stage that is taken.

    Raises:
        ConfigError: two outputs have one name.
        DataError: a folder is missing or empty, or an image cannot be read; names them.
    """
    methods = [ImageSet.read(folder, name) for name, folder in named_folders(outputs).items()]
    path = local_path(out)
    store = local_path(cache) if cache is not None else path.with_name(f"{path.name}.measured")
    originals = ImageSet.read(references, "references", split)
    return compare_sets(methods, originals, path, store, config or MeasureConfig(), num_actors)


def compare_sets(
    methods: Sequence[ImageSet],
    originals: ImageSet,
    path: Path,
    store: Path,
    config: MeasureConfig,
    num_actors: int | None,
) -> dict[str, Any]:
    """Compare sets with references and write path; see `evaluate_unpaired`. `store` is its cache."""
    network, judge = feature_network(), needed_classifier(config, needed=False)
    scored = network if has_logits(network) else judge
    measurer = Measurer(store, config, [network, *([judge] if judge else [])])
    everything = [*methods, originals]
    names = [sorted(images.files) for images in everything]
    pairs = list(zip(everything, names, strict=True))
    features = [measurer.features(images, chosen, network) for images, chosen in pairs]
    views = [measurer.features(images, chosen, judge) if judge else None for images, chosen in pairs]
    measurer.run(num_actors)
    *ours, theirs = (Embedded(found.features(), found.moments()) for found in features)
    verdicts = [judged(found, view, network, judge, None, config) for found, view in zip(features, views, strict=True)]
    sets = [(images.name, one) for images, one in zip(methods, ours, strict=True)] + [("references", theirs)]
    warnings = [
        rank_warning(one.moments.count, network.dim, f"images of {name}")
        for name, one in sets
        if rank_deficient(one.moments)
    ]
    fewest = min(len(chosen) for chosen in names)
    label = set_label(network, [len(chosen) for chosen in names[:-1]], len(names[-1]))
    words = variants(network, max(map(len, names)), config, scored, None) | {"distance": label}
    result = {
        "format": "sr3-evaluation",
        "format_version": EVALUATION_FORMAT_VERSION,
        "num_images": fewest,
        "num_references": len(names[-1]),
        "setting": f"sets that do not pair up: {len(names[-1])} references",
        "distance": {"label": label, "network": network.name, "is_fid": network.is_fid},
        "variants": words,
        "intervals": interval_label(config),
        "warnings": warnings,
        "methods": [
            {"name": images.name, **set_numbers(one, theirs, config), **more}
            for images, one, more in zip(methods, ours, verdicts, strict=False)
        ],
        "references": verdicts[-1],
        "provenance": provenance(config)
        | {"outputs": [images.folder for images in methods], "references": originals.folder},
    }
    write_atomic(path, json.dumps(result, indent=1))
    return result


def set_label(network: FeatureNetwork, counts: Sequence[int], num_references: int) -> str:
    """Name a distance of so many outputs from so many references; FID-50k is that of 50,000 outputs on Inception."""
    numbers = "/".join(str(count) for count in sorted(set(counts)))
    title = "FID-50k" if network.is_fid and set(counts) == {FID_50K} else "FID" if network.is_fid else None
    sizes = f"n={numbers} against {num_references} references"
    if title is None:
        return f"Fréchet distance on {network.description} (not FID), {sizes}"
    return f"{title} ({network.description}, {sizes})"


def set_numbers(ours: Embedded, theirs: Embedded, config: MeasureConfig) -> Numbers:
    """Fréchet and kernel distance, precision, recall, density and coverage of sets that do not pair up."""
    a, b = ours.features, theirs.features
    counts = len(a), len(b)
    whole = max(counts) <= a.shape[1]
    frechet = frechet_distance_from_features(a, b) if whole else frechet_distance(ours.moments, theirs.moments)
    numbers = {"distance": _with_interval(frechet, a, b, frechet_distance_from_features, config)}
    if max(counts) <= MAX_GRAM_IMAGES:
        numbers["kid"] = _with_interval(kernel_distance(a, b), a, b, kernel_distance, config)
    else:
        numbers["kid"] = subset_kernel_distance(a, b)
    return numbers | manifold_numbers(a, b, config)


def _with_interval(
    estimate: float,
    a: np.ndarray,
    b: np.ndarray,
    distance: Callable[[np.ndarray, np.ndarray], float],
    config: MeasureConfig,
) -> dict[str, float]:
    """A distance with its interval, both sets resampled; n is the outputs' number."""
    few, values = config.num_distance_resamples, None
    if few and min(len(a), len(b)) > 2:
        values = bootstrap_values_of_two(lambda i, j: distance(a[i], b[j]), (len(a), len(b)), num_resamples=few)
    return with_interval(estimate, values, len(a), config)
