"""Table 5: what one change costs. Arms are the stages of one run, compared on the same images with the same noise."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.config import EvaluateConfig
from pipelines.evaluate import evaluate_run, feature_network
from pipelines.image_sets import ImageSet
from pipelines.measure import Measurer
from pipelines.measure_config import MeasureConfig
from pipelines.runs import Run, open_run, write_atomic
from pipelines.sample import Samples, is_ablation, upscale_split
from pipelines.summary import Numbers, distances_of_resamples, mean_with_interval
from sr3core.config import differences, scientific
from sr3core.errors import ConfigError
from sr3core.metrics.bootstrap import bootstrap_error, normal_interval

ABLATION_FORMAT_VERSION = 1
PIXELWISE = ("psnr", "ssim", "consistency")
DISTANCES = ("distance", "kid")


@dataclass(frozen=True, slots=True)
class Arm:
    """Trainings that differ in their seeds alone."""

    stages: tuple[str, ...]
    seeds: tuple[int, ...]
    changes: tuple[str, ...]
    """How its configuration differs from the first arm's, as `augmentation.blur_probability: 0.5 -> 0.0`."""


def arms_of(run: Run) -> list[Arm]:
    """The arms of an ablation; all others are compared with the first.

    Raises:
        ConfigError: the run is no ablation.
    """
    if not is_ablation(run):
        raise ConfigError(f"{run.location} is no ablation: its SR3 stages have to be several, all of the same sizes")
    groups: dict[str, list[Any]] = {}
    for stage in run.cascade():
        content = {key: value for key, value in scientific(stage.config).items() if key not in ("name", "seed")}
        groups.setdefault(json.dumps(content, sort_keys=True), []).append(stage)
    if len(groups) < 2:
        raise ConfigError(f"{run.location} is no ablation: its stages differ in nothing but their seeds")
    first = json.loads(next(iter(groups)))
    return [
        Arm(
            tuple(stage.name for stage in stages),
            tuple(stage.config.seed for stage in stages),
            tuple(differences(first, json.loads(content))),
        )
        for content, stages in groups.items()
    ]


def compare_arms(run: str, config: EvaluateConfig, variant: MeasureConfig) -> dict[str, Any]:
    """Measure every arm on held-out images and compare it with the first. Needs a running Ray.

    Differences are paired: the same resamples of images for both arms, so that what makes an image hard cancels.
    Writes RUN/evaluation.json and RUN/ablation.json.

    Raises:
        ConfigError: the run is no ablation.
    """
    opened = open_run(run)
    arms = arms_of(opened)
    evaluation = evaluate_run(run, config, variant)
    samples = upscale_split(run, config)
    measured = _measured(samples, arms, variant, config.num_actors)
    rows = {row["name"]: row for row in evaluation["methods"]}
    result = {
        "format": "sr3-ablation",
        "format_version": ABLATION_FORMAT_VERSION,
        "identity": evaluation["identity"],
        "num_images": evaluation["num_images"],
        "split": evaluation["split"],
        "distance": evaluation["distance"],
        "variants": evaluation["variants"],
        "intervals": f"paired, {evaluation['intervals']}; the chance in training shows between seeds alone",
        "arms": [
            {
                "name": arm.stages[0],
                "stages": arm.stages,
                "seeds": arm.seeds,
                "changes": arm.changes,
                "means": {name: float(np.mean(_by_seed(arm, rows, name))) for name in _metrics(rows, arm)},
                "by_seed": {name: _by_seed(arm, rows, name) for name in _metrics(rows, arm)},
                "differences": _compare(arm, arms[0], measured, variant) if arm is not arms[0] else {},
            }
            for arm in arms
        ],
        "provenance": evaluation["provenance"],
    }
    write_atomic(opened.path / "ablation.json", json.dumps(result, indent=1))
    return result


@dataclass(frozen=True, slots=True)
class _ArmMeasured:
    """What a training's images measured, image by image, and their distances by a resample's indices."""

    values: Mapping[str, np.ndarray]
    distances: Mapping[str, Callable[[np.ndarray], float]]


def _measured(samples: Samples, arms: list[Arm], variant: MeasureConfig, num_actors: int) -> dict[str, _ArmMeasured]:
    """Of every training. evaluate_run has measured it: this reads what it kept."""
    network = feature_network()
    measurer = Measurer(samples.folder / "measured", variant, [network])
    reference, low = (ImageSet.of_samples(samples.folder, name, samples.keys) for name in ("reference", "low"))
    originals = measurer.features(reference, samples.keys, network)
    asked = {}
    for name in (name for arm in arms for name in arm.stages):
        images = ImageSet.of_samples(samples.folder, name, samples.keys)
        pixels = measurer.pixelwise(images, reference, low, samples.keys)
        asked[name] = pixels, measurer.features(images, samples.keys, network)
    measurer.run(num_actors)
    theirs = originals.features()
    return {
        name: _ArmMeasured(pixels.values(), distances_of_resamples(features.features(), theirs))
        for name, (pixels, features) in asked.items()
    }


def _compare(arm: Arm, first: Arm, measured: Mapping[str, _ArmMeasured], variant: MeasureConfig) -> Numbers:
    """Arm minus first arm, by metric; each arm's value is the mean over its seeds."""
    ours, theirs = ([measured[name] for name in each.stages] for each in (arm, first))
    found: Numbers = {}
    for metric in PIXELWISE:
        gap = np.mean([one.values[metric] for one in ours], axis=0) - np.mean(
            [one.values[metric] for one in theirs], axis=0
        )
        found[metric] = mean_with_interval(gap, variant)
    count = len(ours[0].values["psnr"])
    for metric in (name for name in DISTANCES if name in ours[0].distances):

        def gap_of(indices: np.ndarray, metric: str = metric) -> float:
            a, b = (np.mean([one.distances[metric](indices) for one in each]) for each in (ours, theirs))
            return float(a - b)

        estimate = gap_of(np.arange(count))
        found[metric] = {"mean": estimate, "n": count}
        if variant.num_distance_resamples and count > 2:
            error = bootstrap_error(gap_of, count, num_resamples=variant.num_distance_resamples)
            low, high = normal_interval(estimate, error, variant.level)
            found[metric] |= {"standard_error": error, "low": low, "high": high}
    return found


def _metrics(rows: Mapping[str, Any], arm: Arm) -> list[str]:
    return [name for name in (*PIXELWISE, *DISTANCES) if name in rows[arm.stages[0]]]


def _by_seed(arm: Arm, rows: Mapping[str, Any], metric: str) -> list[float]:
    return [rows[stage][metric]["mean"] for stage in arm.stages]


def tabulate_ablation(ablation: Mapping[str, Any]) -> str:
    """Each arm's means, and how far it is from the first arm, with intervals."""
    lines = [f"{ablation['num_images']} {ablation['split']} images; {ablation['intervals']}"]
    for arm in ablation["arms"]:
        seeds = f", seeds {', '.join(map(str, arm['seeds']))}" if len(arm["seeds"]) > 1 else ""
        lines += ["", f"{arm['name']}{seeds}: {'; '.join(arm['changes']) or 'what the others are compared with'}"]
        for metric, mean in arm["means"].items():
            gap = arm["differences"].get(metric)
            line = f"  {ablation['variants'][metric].partition(' (')[0]:<24} {mean:10.4g}"
            if gap:
                line += f"   difference {gap['mean']:+.4g}"
                line += f" [{gap['low']:+.4g}, {gap['high']:+.4g}]" if "low" in gap else ""
            lines.append(line)
    return "\n".join(lines)
