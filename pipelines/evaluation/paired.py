"""Sets of images of the same names: pixelwise metrics, distances and paired differences (Tables 1-3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.evaluation.external_metrics import external_values, external_words
from pipelines.evaluation.image_sets import ImageSet
from pipelines.evaluation.measurer import MeasuringSetup
from pipelines.evaluation.metric_intervals import (
    distance_numbers,
    interval_label,
    pixelwise_numbers,
    rank_warning,
    resampled_distances,
    variants,
)
from pipelines.evaluation.networks import Networks, feature_network, find_judge
from pipelines.evaluation.paired_differences import Compared, difference
from pipelines.settings.evaluate import MeasureConfig
from sr3core.features.extractors import FeatureNetwork, distance_label
from sr3core.metrics.fid import rank_deficient


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedSets:
    """Each method's images and the images they are compared with; every set holds all of `names`."""

    names: Sequence[str]
    """Names of the images, in the order in which sets are split into parts."""
    methods: Sequence[ImageSet]
    references: ImageSet
    inputs: ImageSet | None = None
    """The low-resolution inputs; they add consistency."""
    labels: Sequence[int] | None = None
    """ImageNet class of each image; they add classification errors."""
    patches: "PairedSets | None" = None
    """Parts of the images, from whose features the distances are computed; None for the images' own."""


def measure_pairs(sets: PairedSets, setup: MeasuringSetup, network: FeatureNetwork | None = None) -> dict[str, Any]:
    """Measure every method against the references. Needs a running Ray.

    Args:
        sets: the images.
        setup: the metrics' variants, the cache, the number of actors.
        network: gives the features for the distances; None uses `feature_network`.

    Returns:
        distance (its label), variants (each metric's variant in words), intervals, warnings, methods and references
        (numbers by metric: mean, n and, where there is one, the interval), differences (of each method minus the last,
        paired).
    """
    config = setup.config
    networks = Networks(network or feature_network(), find_judge(config, needed=sets.labels is not None))
    measurer = networks.measurer(setup)
    pixelwise = [measurer.pixelwise(method, sets.references, sets.inputs, sets.names) for method in sets.methods]
    shown = sets.patches or sets
    requested = [networks.request(measurer, images, shown.names) for images in (*shown.methods, shown.references)]
    measurer.run(setup.num_actors)

    theirs = requested[-1].embedded()
    rows, compared = [], []
    for method, images, pixels in zip(sets.methods, requested[:-1], pixelwise, strict=True):
        ours = images.embedded()
        values = pixels.values() | external_values(method, sets.names, config, setup.cache)
        resampled = resampled_distances(ours.features, theirs.features, config)
        numbers = pixelwise_numbers(values, config) | distance_numbers(ours, theirs, resampled, config)
        rows.append({"name": images.name, **numbers, **networks.judge(images, sets.labels, config)})
        means = {name: numbers[name]["mean"] for name in ("distance", "kid") if name in numbers}
        compared.append(Compared(values, means, resampled))
    of_originals = external_values(sets.references, sets.names, config, setup.cache)
    count, features = len(shown.names), networks.features
    judge = networks.classifier.description if networks.classifier and sets.labels is not None else None
    return {
        "distance": {
            "label": distance_label(features, count),
            "network": features.name,
            "is_fid": features.is_fid,
        },
        "variants": variants(features, count, config, networks.scoring, judge) | external_words(config),
        "intervals": interval_label(config),
        "warnings": [rank_warning(count, features.dim)] if rank_deficient(theirs.moments) else [],
        "methods": rows,
        "differences": _differences_from_last([row["name"] for row in rows], compared, config),
        "references": networks.judge(requested[-1], sets.labels, config) | pixelwise_numbers(of_originals, config),
    }


def _differences_from_last(names: Sequence[str], compared: Sequence[Compared], config: MeasureConfig) -> dict[str, Any]:
    """Each method minus the last one, metric by metric."""
    return {
        name: {"than": names[-1]} | difference([one], [compared[-1]], config)
        for name, one in zip(names[:-1], compared[:-1], strict=True)
    }
