"""Distances between unpaired sets of images of any sizes, such as Table 4's images from noise."""

from collections.abc import Sequence
from typing import Any

from pipelines.evaluation.external_metrics import external_values, external_words
from pipelines.evaluation.image_sets import ImageSet
from pipelines.evaluation.measurer import MeasuringSetup
from pipelines.evaluation.metric_intervals import (
    MIN_SET,
    Embedded,
    Numbers,
    distance_numbers,
    interval_label,
    pixelwise_numbers,
    rank_warning,
    resampled_set_distances,
    sampling_label,
    variants,
)
from pipelines.evaluation.networks import Networks, feature_network, find_judge
from pipelines.settings.evaluate import MeasureConfig
from sr3core.errors import DataError
from sr3core.features.extractors import FeatureNetwork
from sr3core.metrics.fid import rank_deficient

FID_50K = 50_000


def measure_sets(methods: Sequence[ImageSet], references: ImageSet, setup: MeasuringSetup) -> dict[str, Any]:
    """Measure sets against any number of references: FID-50k if there are 50,000 outputs. Needs a running Ray.

    A set's measurements are cached by its images' content, so a reference set is embedded once for everything that is
    ever compared with it.

    Args:
        methods: each method's images, such as those that `sr3 sample` wrote.
        references: real images.
        setup: the metrics' variants, the cache, the number of actors.

    Returns:
        what `measure_pairs` returns, without pixelwise metrics and differences, and the numbers of images.

    Raises:
        DataError: a set is a single image, or an image cannot be read; names it.
    """
    check_sizes([*methods, references])
    config = setup.config
    networks = Networks(feature_network(), find_judge(config, needed=False))
    measurer = networks.measurer(setup)
    requested = [networks.request(measurer, images, sorted(images.files)) for images in (*methods, references)]
    measurer.run(setup.num_actors)

    embedded = [images.embedded() for images in requested]
    counts, num_references = [images.count for images in requested[:-1]], requested[-1].count
    features = networks.features
    label = set_label(features, counts, num_references)
    largest = max(*counts, num_references)
    return {
        "num_images": min(*counts, num_references),
        "num_references": num_references,
        "setting": f"unpaired sets: {num_references} references{_sampling(largest)}",
        "distance": {"label": label, "network": features.name, "is_fid": features.is_fid},
        "variants": variants(features, largest, config, networks.scoring, None)
        | {"distance": label}
        | external_words(config),
        "intervals": interval_label(config),
        "warnings": [
            rank_warning(one.moments.count, features.dim, f"images of {images.name}")
            for images, one in zip(requested, embedded, strict=True)
            if rank_deficient(one.moments)
        ],
        "methods": [
            {
                "name": images.name,
                **set_numbers(ours, embedded[-1], config),
                **networks.judge(images, None, config),
                **_external(method, setup),
            }
            for method, images, ours in zip(methods, requested[:-1], embedded[:-1], strict=True)
        ],
        "references": networks.judge(requested[-1], None, config) | _external(references, setup),
    }


def _external(images: ImageSet, setup: MeasuringSetup) -> Numbers:
    """A set's numbers by other programs."""
    return pixelwise_numbers(external_values(images, sorted(images.files), setup.config, setup.cache), setup.config)


def _sampling(count: int) -> str:
    label = sampling_label(count)
    return (
        f"; the distance is that of all images, its resamples and all else are{label.replace(',', '', 1)}"
        if label
        else ""
    )


def check_sizes(sets: Sequence[ImageSet]) -> None:
    """Refuse sets that have no distance, before anything is measured.

    Raises:
        DataError: one is a single image.
    """
    for images in sets:
        if len(images.files) < MIN_SET:
            raise DataError(
                f"{images.folder} holds a single image; a distance between sets needs at least {MIN_SET} in each: add"
                " images, or compare pairs of equal names without --unpaired"
            )


def set_label(network: FeatureNetwork, counts: Sequence[int], num_references: int) -> str:
    """Name a distance by its network and the sets' sizes; FID-50k is that of 50,000 outputs on Inception."""
    numbers = "/".join(str(count) for count in sorted(set(counts)))
    title = "FID-50k" if network.is_fid and set(counts) == {FID_50K} else "FID" if network.is_fid else None
    sizes = f"n={numbers} against {num_references} references"
    if title is None:
        return f"Fréchet distance on {network.description} (not FID), {sizes}"
    return f"{title} ({network.description}, {sizes})"


def set_numbers(ours: Embedded, theirs: Embedded, config: MeasureConfig) -> Numbers:
    """Distances, precision, recall, density and coverage, their intervals from resamples of both sets."""
    resampled = resampled_set_distances(ours.features, theirs.features, config)
    return distance_numbers(ours, theirs, resampled, config)
