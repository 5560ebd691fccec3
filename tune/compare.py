"""A new model against the promoted one on the same held-out images with the same noise: which is better, how surely."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import EvaluateConfig
from pipelines.image_sets import ImageSet
from pipelines.measure import Measured, Measurer
from pipelines.measure_config import MeasureConfig
from pipelines.runs import write_atomic
from pipelines.sample import Samples, upscale_split
from pipelines.summary import MAX_GRAM_IMAGES
from sr3core.config import fingerprint_of, from_dict, override, to_dict
from sr3core.errors import ConfigError
from sr3core.features import FeatureNetwork, distance_label
from sr3core.metrics.bootstrap import Interval, PairedGram, bootstrap_mean, bootstrap_values, normal_interval
from sr3core.metrics.fid import frechet_distance_from_features
from tune.retrain_config import HIGHER_IS_BETTER, PromotionConfig
from tune.task import feature_network

NUM_RESAMPLES_OF_MEANS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How a model was measured, and against which."""

    identity: str
    """Of the images and outputs that were compared, and the way."""
    label: str
    """What the objective is, in words."""
    num_images: int
    split: str
    candidate: dict[str, float]
    """Metric -> value."""
    promoted: dict[str, float] | None = None
    """The same of the model in force; None where there is none."""
    improvement: float | None = None
    """In the objective, positive where the candidate is better."""
    low: float | None = None
    """Lower end of the improvement's interval over images."""
    high: float | None = None
    level: float = 0.95
    """Of the interval."""

    @property
    def is_better(self) -> bool:
        """Whether the candidate is better beyond the error bars; so is the first of all."""
        return self.promoted is None or (self.low is not None and self.low > 0)

    def describe(self, objective: str, against: str | None) -> str:
        """The numbers in a sentence."""
        ours = f"{self.label}: {self.candidate[objective]:.4g}"
        if self.promoted is None or self.improvement is None:
            return f"{ours} on {self.num_images} held-out images ({self.split}); no model to compare with"
        return (
            f"{ours} against {self.promoted[objective]:.4g} of {against} on the same {self.num_images} held-out images"
            f" ({self.split}): improved by {self.improvement:.4g}, {self.level:.0%} interval [{self.low:.4g},"
            f" {self.high:.4g}]"
        )


def compare(
    candidate: str,
    promoted: str | None,
    data: str,
    evaluate: EvaluateConfig,
    promotion: PromotionConfig,
    folder: Path,
) -> Comparison:
    """Sample held-out images with both models, measure them, and bootstrap the difference over images.

    Needs a running Ray. What an earlier call in the same folder has sampled and measured is used again.

    Args:
        candidate: run folder of the new model.
        promoted: that of the model in force; None where there is none.
        data: prepared folder with the held-out images.
        evaluate: which of them, and how they are sampled.
        promotion: what is compared.
        folder: for the images and measurements.
    """
    places = {"candidate": candidate} | ({"promoted": promoted} if promoted is not None else {})
    once = override(evaluate, num_seeds=1)  # repeats with other noise are for a report
    samples = {name: upscale_split(place, once, folder / name, data) for name, place in places.items()}
    network = feature_network(promotion.features)
    identity = fingerprint_of([[s.fingerprint for s in samples.values()], network.name, to_dict(promotion)])
    path = folder / "comparison.json"
    if path.is_file() and (known := json.loads(path.read_text()))["identity"] == identity:
        return from_dict(Comparison, known)
    found = _measure(samples, network, evaluate, promotion, folder, identity)
    write_atomic(path, json.dumps(to_dict(found), indent=1))
    return found


def _measure(
    samples: dict[str, Samples],
    network: FeatureNetwork,
    evaluate: EvaluateConfig,
    promotion: PromotionConfig,
    folder: Path,
    identity: str,
) -> Comparison:
    keys = samples["candidate"].keys
    references, low = (_images(samples["candidate"], name) for name in ("reference", "low"))
    measurer = Measurer(folder / "measured", MeasureConfig(), [network])
    originals = measurer.features(references, keys, network)
    asked: dict[str, tuple[Measured, Measured]] = {}
    for name, made in samples.items():
        images = _images(made, "sr3")
        pixels = measurer.pixelwise(images, references, low, keys)
        asked[name] = (measurer.features(images, keys, network), pixels)
    measurer.run(evaluate.num_actors)
    models = {name: Judged.of(f.features(), originals.features(), p.values()) for name, (f, p) in asked.items()}
    values = {name: model.values() for name, model in models.items()}
    distances = {"fid": distance_label(network, len(keys)), "kid": f"kernel distance on {network.description}"}
    found = Comparison(
        identity=identity,
        label=distances.get(promotion.objective, promotion.objective),
        num_images=len(keys),
        split=evaluate.split,
        candidate=values["candidate"],
        promoted=values.get("promoted"),
        level=promotion.level,
    )
    if "promoted" not in models:
        return found
    sign = 1 if promotion.objective in HIGHER_IS_BETTER else -1
    improvement = sign * (values["candidate"][promotion.objective] - values["promoted"][promotion.objective])
    interval = improvement_interval(models["candidate"], models["promoted"], promotion)
    content: dict[str, Any] = to_dict(found) | {"improvement": improvement, "low": interval.low, "high": interval.high}
    return from_dict(Comparison, content)


@dataclass(frozen=True, slots=True)
class Judged:
    """What was measured of one model's outputs."""

    features: np.ndarray
    """(n, D)."""
    references: np.ndarray
    """(n, D), of the originals in the same order."""
    gram: PairedGram | None
    """Inner products of both; None where they are too many to keep."""
    pixelwise: dict[str, np.ndarray]
    """psnr, ssim, consistency -> (n,)."""

    @classmethod
    def of(cls, features: np.ndarray, references: np.ndarray, pixelwise: dict[str, np.ndarray]) -> "Judged":
        """Prepare for many resamples."""
        gram = PairedGram(features, references) if len(features) <= MAX_GRAM_IMAGES else None
        return cls(features, references, gram, pixelwise)

    def distance(self, objective: str, indices: np.ndarray) -> float:
        """fid or kid of some images.

        Raises:
            ConfigError: kid of more images than inner products are kept of.
        """
        if objective == "kid":
            if self.gram is None:
                raise ConfigError(
                    f"evaluate.limit: kid takes at most {MAX_GRAM_IMAGES} images; set a limit, or take fid"
                )
            return self.gram.kernel_distance(indices)
        if self.gram is not None and len(self.features) <= self.features.shape[1]:
            return self.gram.frechet_distance(indices)
        return frechet_distance_from_features(self.features[indices], self.references[indices])

    def values(self) -> dict[str, float]:
        """Metric -> value over all images."""
        everything = np.arange(len(self.features))
        distances = ("fid", "kid") if self.gram is not None else ("fid",)
        return {name: self.distance(name, everything) for name in distances} | {
            name: float(values.mean()) for name, values in self.pixelwise.items()
        }


def improvement_interval(candidate: Judged, promoted: Judged, promotion: PromotionConfig) -> Interval:
    """The interval of the candidate's improvement over the promoted model, by resampling images, the same for both.

    A resample's bias in its distance, see `bootstrap_values`, is alike in both models and cancels to first order; what
    images are easy or hard cancels too, which is why the difference is resampled and not each model alone.
    """
    objective, count = promotion.objective, len(candidate.features)
    sign = 1 if objective in HIGHER_IS_BETTER else -1
    if objective in candidate.pixelwise:
        differences = sign * (candidate.pixelwise[objective] - promoted.pixelwise[objective])
        return bootstrap_mean(differences, num_resamples=NUM_RESAMPLES_OF_MEANS, level=promotion.level)

    def improvement(indices: np.ndarray) -> float:
        return sign * (candidate.distance(objective, indices) - promoted.distance(objective, indices))

    resampled = bootstrap_values(improvement, count, num_resamples=promotion.num_resamples)
    return normal_interval(improvement(np.arange(count)), float(resampled.std(ddof=1)), promotion.level)


def _images(samples: Samples, method: str) -> ImageSet:
    folder = samples.folder / method
    return ImageSet(method, str(folder), {key: str(folder / f"{key}.png") for key in samples.keys})
