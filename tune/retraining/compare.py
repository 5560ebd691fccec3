"""Comparing a new model with the promoted one on the same held-out images and noise, with confidence intervals."""

from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.evaluation.image_sets import ImageSet
from pipelines.evaluation.measurer import MeasuringSetup
from pipelines.evaluation.metric_intervals import MAX_GRAM_IMAGES
from pipelines.evaluation.paired import PairedSets, measure_pairs
from pipelines.runs.run_folder import write_atomic
from pipelines.sampling.held_out import Samples, upscale_split
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from pipelines.storage.versioned_json import read_object
from sr3core import strict_json
from sr3core.config import fingerprint_of, from_dict, override, to_dict
from sr3core.errors import ConfigError
from sr3core.features.extractors import FeatureNetwork
from tune.retraining.settings import HIGHER_IS_BETTER, PromotionConfig, PromotionObjective
from tune.search.objective.task import feature_network

METRICS: dict[PromotionObjective, str] = {
    "fid": "distance",
    "kid": "kid",
    "psnr": "psnr",
    "ssim": "ssim",
    "consistency": "consistency",
}
"""Promotion objective -> its metric's name in an evaluation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """A model's measurements, and its comparison with another model."""

    identity: str
    """Identity of the compared images and outputs, and of the method of comparison."""
    label: str
    """The objective in words."""
    num_images: int
    split: str
    candidate: dict[str, float]
    """Metric -> value."""
    promoted: dict[str, float] | None = None
    """The same for the promoted model; None if there is none."""
    improvement: float | None = None
    """Improvement in the objective; positive if the candidate is better."""
    low: float | None = None
    """Lower end of the improvement's interval over images."""
    high: float | None = None
    level: float = 0.95
    """Confidence level of the interval."""

    @property
    def is_better(self) -> bool:
        """Whether the candidate is better beyond the error bars; the very first model counts as better."""
        return self.promoted is None or (self.low is not None and self.low > 0)

    def describe(self, objective: str, against: str | None) -> str:
        """The numbers as a sentence."""
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

    Needs a running Ray. Samples and measurements of an earlier call in the same folder are reused.

    Args:
        candidate: run folder of the new model.
        promoted: run folder of the promoted model; None if there is none.
        data: prepared folder with the held-out images.
        evaluate: which of these images are used, and how they are sampled.
        promotion: what is compared.
        folder: for the images and measurements.
    """
    places = {"candidate": candidate} | ({"promoted": promoted} if promoted is not None else {})
    once = override(evaluate, num_seeds=1)  # repeats with other noise serve only a report
    samples = {name: upscale_split(place, once, folder / name, data) for name, place in places.items()}
    network = feature_network(promotion.features)
    identity = fingerprint_of([[s.fingerprint for s in samples.values()], network.name, to_dict(promotion)])
    path = folder / "comparison.json"
    if (known := read_object(path)).get("identity") == identity:
        return from_dict(Comparison, known)
    found = _measure(samples, network, evaluate, promotion, folder, identity)
    write_atomic(path, strict_json.dumps(to_dict(found), indent=1))
    return found


def _measure(
    samples: dict[str, Samples],
    network: FeatureNetwork,
    evaluate: EvaluateConfig,
    promotion: PromotionConfig,
    folder: Path,
    identity: str,
) -> Comparison:
    """Measure the candidate and, where there is one, the promoted model, as `sr3 evaluate` does.

    Raises:
        ConfigError: too few images for an interval, or more than kid can be resampled for.
    """
    keys = samples["candidate"].keys
    if len(keys) < 3:
        raise ConfigError(
            f"evaluate.split: {evaluate.split} gives {len(keys)} images, too few to decide which is better"
        )
    if promotion.objective == "kid" and len(keys) > MAX_GRAM_IMAGES:
        raise ConfigError(f"evaluate.limit: kid takes at most {MAX_GRAM_IMAGES} images; set a limit, or use fid")
    originals, low = (_images(samples["candidate"], method, method) for method in ("reference", "low"))
    models = [_images(made, "sr3", name) for name, made in samples.items()]
    config = MeasureConfig(level=promotion.level, num_distance_resamples=promotion.num_resamples)
    sets = PairedSets(names=keys, methods=models, references=originals, inputs=low)
    measured = measure_pairs(sets, MeasuringSetup(config, folder / "measured", evaluate.num_actors), network)
    values = {
        row["name"]: {objective: row[metric]["mean"] for objective, metric in METRICS.items()}
        for row in measured["methods"]
    }
    metric = METRICS[promotion.objective]
    found = Comparison(
        identity=identity,
        label=measured["variants"][metric],
        num_images=len(keys),
        split=evaluate.split,
        candidate=values["candidate"],
        promoted=values.get("promoted"),
        level=promotion.level,
    )
    if "promoted" not in values:
        return found
    gap = measured["differences"]["candidate"][metric]
    sign = 1 if promotion.objective in HIGHER_IS_BETTER else -1
    low_end, high_end = sorted((sign * gap["low"], sign * gap["high"]))
    return replace(found, improvement=sign * gap["mean"], low=low_end, high=high_end)


def _images(samples: Samples, method: str, name: str) -> ImageSet:
    folder = samples.folder / method
    return ImageSet(name, str(folder), {key: str(folder / f"{key}.png") for key in samples.keys})
