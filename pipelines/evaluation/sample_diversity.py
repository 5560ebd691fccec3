"""How much a method's samples of one input differ (section 5), over folders of the same images, one per seed."""

from collections.abc import Sequence

import numpy as np

from pipelines.evaluation.image_sets import ImageSet
from pipelines.evaluation.measurer import Measured, Measurer, MeasuringSetup, read_pixels
from pipelines.evaluation.metric_intervals import Numbers, mean_with_interval
from pipelines.settings.evaluate import MeasureConfig
from sr3core.errors import ConfigError, DataError
from sr3core.features.extractors import FeatureNetwork
from sr3core.metrics.diversity import feature_diversity, pixel_diversity


def measure_diversity(
    samples: Sequence[ImageSet], names: Sequence[str], network: FeatureNetwork, setup: MeasuringSetup
) -> tuple[Numbers, dict[str, str]]:
    """Measure how much sets of samples of the same inputs differ, one set per seed. Needs a running Ray.

    Returns:
        the numbers by metric, and each metric's variant in words.
    """
    measurer = Measurer(setup.cache, setup.config, [network])
    features = [measurer.features(each, names, network) for each in samples]
    measurer.run(setup.num_actors)
    return diversity_numbers(samples, features, names, setup.config), diversity_variants(network, len(samples))


def diversity_numbers(
    samples: Sequence[ImageSet], features: Sequence[Measured], names: Sequence[str], config: MeasureConfig
) -> Numbers:
    """Mean over inputs of the mean distance between all pairs of an input's samples, in pixels and in features.

    Raises:
        ConfigError: there is only one folder of samples.
        DataError: an input's samples differ in size; names it.
    """
    if len(samples) < 2:
        raise ConfigError(f"--samples needs at least two folders, one per seed, got {samples[0].folder}")
    by_pixels = []
    for name in names:
        pictures = [read_pixels(each.files[name]) for each in samples]
        if len({picture.shape for picture in pictures}) > 1:
            raise DataError(f"--samples: the samples of {name} differ in size")
        by_pixels.append(pixel_diversity(np.stack(pictures)))
    vectors = np.stack([measured.features() for measured in features], axis=1)  # (inputs, samples, D)
    by_features = [feature_diversity(each) for each in vectors]
    return {
        "pixel_diversity": mean_with_interval(np.array(by_pixels), config),
        "feature_diversity": mean_with_interval(np.array(by_features), config),
    }


def diversity_variants(network: FeatureNetwork, num_samples: int) -> dict[str, str]:
    """Both metrics' variants in words."""
    pairs = f"all pairs of {num_samples} samples per input, mean over inputs"
    return {
        "pixel_diversity": f"diversity, RMS difference in grey levels ({pairs})",
        "feature_diversity": f"diversity, distance of features ({network.description}, {pairs})",
    }
