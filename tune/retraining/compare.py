"""Comparing a new model with the promoted one on the same held-out images and noise, with confidence intervals."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.image_sets import ImageSet
from pipelines.evaluation.measurer import MeasuringSetup
from pipelines.evaluation.networks import Networks
from pipelines.evaluation.paired import PairedSets, measure_pairs
from pipelines.ingest.split_reader import load_split
from pipelines.runs.run_folder import write_atomic
from pipelines.sampling.held_out import Samples, upscale_split
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from pipelines.storage.versioned_json import read_object
from sr3core import strict_json
from sr3core.config import fingerprint_of, from_dict, override, to_dict
from sr3core.errors import ConfigError
from sr3core.features.extractors import FeatureNetwork
from tune.retraining.decision import Yardstick, decide, yardstick_of
from tune.retraining.settings import MIN_COMPARED, PromotionConfig, PromotionObjective
from tune.retraining.spending import Parts, Turn, parts_of
from tune.search.objective.measurements import Measurements
from tune.search.objective.references import cached_features
from tune.search.objective.task import feature_network
from tune.search.objective.yardstick import label_of
from tune.search.settings import TrialResources

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
    """Held-out images."""
    split: str
    candidate: dict[str, float]
    """Metric -> value, over all held-out images."""
    promoted: dict[str, float] | None = None
    """The same for the promoted model; None if there is none."""
    against: str | None = None
    """The promoted version; None in comparisons from before it was recorded."""
    turn: int = 1
    """Which comparison with that version this is."""
    num_deciding: int = 0
    """Images that decide: without the sealed ones, and those that this comparison leaves out."""
    improvement: float | None = None
    """Improvement in the objective; positive if the candidate is better."""
    low: float | None = None
    """Lower end of the improvement's interval over images."""
    high: float | None = None
    level: float = 0.95
    """Confidence level of the interval."""
    sealed: float | None = None
    """The improvement on the sealed images, which are looked at only if the others would promote."""

    @property
    def is_better(self) -> bool:
        """Whether the candidate is better beyond the error bars; the very first model counts as better."""
        if self.promoted is None:
            return True
        return self.low is not None and self.low > 0 and (self.sealed is None or self.sealed > 0)

    def describe(self, objective: str) -> str:
        """The numbers as a sentence."""
        if self.promoted is None or self.improvement is None:
            ours = f"{self.label}: {self.candidate[objective]:.4g}"
            return f"{ours} on {self.num_images} held-out images ({self.split}); no model to compare with"
        sealed = "" if self.sealed is None else f"; on the sealed images by {self.sealed:.4g}"
        return (
            f"{self.label}: better than {self.against} by {self.improvement:.4g} on {self.num_deciding} of"
            f" {self.num_images} held-out images ({self.split}), {100 * self.level:.4g}% interval [{self.low:.4g},"
            f" {self.high:.4g}] of comparison {self.turn}{sealed}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is compared, on which images, and by what."""

    candidate: str
    """Run folder of the new model."""
    promoted: str | None
    """Run folder of the promoted model; None if there is none."""
    against: str | None
    """That model's name."""
    turn: Turn
    """Which comparison with it this is."""
    data: str
    """Prepared folder with the held-out images."""
    stage: str
    """Prepared stage of the comparison, end to end."""
    evaluate: EvaluateConfig
    """Which held-out images are used, and how they are sampled."""
    promotion: PromotionConfig
    folder: Path
    """For the images and measurements."""


def compare(question: Question) -> Comparison:
    """Sample held-out images with both models, measure them, and decide which is better.

    Needs a running Ray. Samples and measurements of an earlier call in the same folder are reused.
    """
    places = {"candidate": question.candidate}
    if question.promoted is not None:
        places["promoted"] = question.promoted
    once = override(question.evaluate, num_seeds=1)  # repeats with other noise serve only a report
    folder = question.folder
    samples = {name: upscale_split(place, once, folder / name, question.data) for name, place in places.items()}
    network = feature_network(question.promotion.features)
    fingerprints = [one.fingerprint for one in samples.values()]
    identity = fingerprint_of([fingerprints, network.name, to_dict(question.promotion), question.turn.number])
    path = folder / "comparison.json"
    if (known := read_object(path)).get("identity") == identity:
        return from_dict(Comparison, known)
    found = _compare(question, samples, network, identity)
    write_atomic(path, strict_json.dumps(to_dict(found), indent=1))
    return found


def _compare(question: Question, samples: dict[str, Samples], network: FeatureNetwork, identity: str) -> Comparison:
    """Measure the candidate and, where there is one, the promoted model, as `sr3 evaluate` does, and decide.

    Raises:
        ConfigError: too few images for an interval.
    """
    keys, promotion = samples["candidate"].keys, question.promotion
    if len(keys) < MIN_COMPARED:
        raise ConfigError(
            f"evaluate.split: {question.evaluate.split} gives {len(keys)} images, too few to decide which is better"
        )
    measured, models = measure_models(samples, network, question)
    values = {
        row["name"]: {objective: row[metric]["mean"] for objective, metric in METRICS.items()}
        for row in measured["methods"]
    }
    found = Comparison(
        identity=identity,
        label=measured["variants"][METRICS[promotion.objective]],
        num_images=len(keys),
        split=question.evaluate.split,
        candidate=values["candidate"],
        promoted=values.get("promoted"),
        against=question.against,
        turn=question.turn.number,
    )
    if "promoted" not in models:
        return found
    parts = parts_of(keys, question.turn)
    yardstick, words = _yardstick(question, network, parts)
    made = decide(models["candidate"], models["promoted"], yardstick, parts, question.turn, promotion)
    return replace(
        found,
        label=words or found.label,
        num_deciding=made.num_images,
        improvement=made.improvement.value,
        low=made.improvement.low,
        high=made.improvement.high,
        level=made.level,
        sealed=made.sealed,
    )


def measure_models(
    samples: dict[str, Samples], network: FeatureNetwork, question: Question
) -> tuple[dict[str, Any], dict[str, Measurements]]:
    """What `measure_pairs` returns of the models, and each one's measurements image by image."""
    keys, folder = samples["candidate"].keys, question.folder
    originals, low = (_images(samples["candidate"], method, method) for method in ("reference", "low"))
    models = [_images(made, "sr3", name) for name, made in samples.items()]
    setup = MeasuringSetup(MeasureConfig(num_distance_resamples=0), folder / "measured", question.evaluate.num_actors)
    measured = measure_pairs(PairedSets(names=keys, methods=models, references=originals, inputs=low), setup, network)
    measurer = Networks(network).measurer(setup)
    asked = {
        model.name: (measurer.features(model, keys, network), measurer.pixelwise(model, originals, low, keys))
        for model in models
    }
    measurer.run(setup.num_actors)  # finds all of it in the cache
    return measured, {
        name: Measurements(features=features.features(), **pixels.values(), seconds=np.zeros(len(keys)))
        for name, (features, pixels) in asked.items()
    }


def _yardstick(question: Question, network: FeatureNetwork, parts: Parts) -> tuple[Yardstick, str | None]:
    """What decides, and its name in words where that is not the metric itself."""
    estimate, weights, paired = yardstick_of(question.promotion.objective, parts)
    if estimate == "weighted":
        return Yardstick(estimate, weights, np.zeros((len(parts.deciding) + len(parts.sealed), 1)), True), None
    split, limit = "train", question.promotion.num_references
    if paired:  # the originals, in the order of the outputs
        split, limit = question.evaluate.split, question.evaluate.limit
    images = load_split(question.data, question.stage, split, limit)
    cache = question.folder.parent.parent
    resources = TrialResources(cpus=1, gpus=0, max_retries=1)
    references = cached_features(network, images.keys, images.high, cache, resources, batch_size=32)
    words = kernel_label(network) if estimate == "kid" else label_of(network, len(parts.deciding), len(references))
    return Yardstick(estimate, weights, references, paired), words


def kernel_label(network: FeatureNetwork) -> str:
    """The kernel distance in words."""
    return f"{'KID' if network.is_fid else 'kernel distance (not KID)'} ({network.description}, other images)"


def _images(samples: Samples, method: str, name: str) -> ImageSet:
    folder = samples.folder / method
    return ImageSet(name, str(folder), {key: str(folder / f"{key}.png") for key in samples.keys})
