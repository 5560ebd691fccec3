"""Table 5: the effect of single changes. Arms are stages of one run, compared on the same images and noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.evaluation.evaluate import evaluate_run
from pipelines.evaluation.image_sets import ImageSet
from pipelines.evaluation.measurer import Measurer
from pipelines.evaluation.metric_intervals import Numbers, resampled_distances
from pipelines.evaluation.networks import feature_network
from pipelines.evaluation.paired_differences import Compared, average, difference
from pipelines.runs.run_folder import Run, open_run, write_atomic
from pipelines.sampling.held_out import Samples, is_ablation, upscale_split
from pipelines.settings.evaluate import EvaluateConfig, MeasureConfig
from sr3core import strict_json
from sr3core.config import differences, scientific
from sr3core.errors import ConfigError

ABLATION_FORMAT_VERSION = 1
SIGNS = {"psnr": 1, "ssim": 1, "consistency": -1}
DISTANCES = ("distance", "kid")


@dataclass(frozen=True, slots=True)
class Arm:
    """Trainings that differ only in their seeds."""

    stages: tuple[str, ...]
    seeds: tuple[int, ...]
    changes: tuple[str, ...]
    """How its configuration differs from the first arm's, as `augmentation.blur_probability: 0.5 -> 0.0`."""


def arms_of(run: Run) -> list[Arm]:
    """The arms of an ablation; all others are compared with the first.

    Raises:
        ConfigError: the run is not an ablation.
    """
    if not is_ablation(run):
        raise ConfigError(f"{run.location} is not an ablation: it must have several SR3 stages, all of the same sizes")
    groups: dict[str, list[Any]] = {}
    for stage in run.cascade():
        content = {key: value for key, value in scientific(stage.config).items() if key not in ("name", "seed")}
        groups.setdefault(strict_json.dumps(content, sort_keys=True), []).append(stage)
    if len(groups) < 2:
        raise ConfigError(f"{run.location} is not an ablation: its stages differ only in their seeds")
    first = strict_json.loads(next(iter(groups)))
    return [
        Arm(
            tuple(stage.name for stage in stages),
            tuple(stage.config.seed for stage in stages),
            tuple(differences(first, strict_json.loads(content))),
        )
        for content, stages in groups.items()
    ]


def compare_arms(run: str, config: EvaluateConfig, variant: MeasureConfig) -> dict[str, Any]:
    """Measure every arm on held-out images and compare it with the first. Needs a running Ray.

    Differences are paired: the same resamples of images for both arms, so that what makes an image hard cancels.
    Writes RUN/evaluation.json and RUN/ablation.json.

    Raises:
        ConfigError: the run is not an ablation.
    """
    opened = open_run(run)
    arms = arms_of(opened)
    evaluation = evaluate_run(run, config, variant)
    samples = upscale_split(run, config)
    measured = _measured(evaluation, samples, variant)
    rows = {row["name"]: row for row in evaluation["methods"]}
    trainings = [[measured[stage] for stage in arm.stages] for arm in arms]
    first = trainings[0]
    result = {
        "format": "sr3-ablation",
        "format_version": ABLATION_FORMAT_VERSION,
        "identity": evaluation["identity"],
        "num_images": evaluation["num_images"],
        "split": evaluation["split"],
        "distance": evaluation["distance"],
        "variants": evaluation["variants"],
        "intervals": f"paired, {evaluation['intervals']}; the variation between trainings shows only between seeds",
        "arms": [
            _row(arm, difference(chosen, first, variant) if chosen is not first else {}, arms[0], rows)
            | {"numbers": average(chosen, variant)}
            for arm, chosen in zip(arms, trainings, strict=True)
        ],
        "provenance": evaluation["provenance"],
    }
    write_atomic(opened.path / "ablation.json", strict_json.dumps(result, indent=1))
    opened.publish()
    return result


def _row(arm: Arm, differences: Numbers, first: Arm, rows: Mapping[str, Any]) -> dict[str, Any]:
    """An arm's entry: its differences from the first arm, and each training's own numbers."""

    def by_seed(each: Arm, metric: str) -> list[float]:
        return [rows[stage][metric]["mean"] for stage in each.stages]

    metrics = [name for name in (*SIGNS, *DISTANCES) if name in rows[arm.stages[0]]]
    verdicts = {name: verdict(name, gap, by_seed(arm, name), by_seed(first, name)) for name, gap in differences.items()}
    return {
        "name": arm.stages[0],
        "stages": arm.stages,
        "seeds": arm.seeds,
        "changes": arm.changes,
        "by_seed": {name: by_seed(arm, name) for name in metrics},
        "differences": differences,
        "verdicts": verdicts,
    }


def verdict(metric: str, gap: Mapping[str, float], ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The verdict on a difference: it may be significant over images while another training shows the opposite.

    Args:
        metric: the metric.
        gap: the difference, with its interval over images.
        ours, theirs: the metric of each training, seed by seed.
    """
    if "low" not in gap or gap["low"] <= 0 <= gap["high"]:
        return "undecided"
    signs = {a > b for a, b in zip(ours, theirs, strict=True)}
    if len(signs) > 1:
        return "undecided: the seeds disagree"
    found = "better" if gap["mean"] * SIGNS.get(metric, -1) > 0 else "worse"
    return found if len(ours) > 1 else f"{found}, in one training"


def _measured(evaluation: Mapping[str, Any], samples: Samples, variant: MeasureConfig) -> dict[str, Compared]:
    """Every training's measurements, image by image, from the cache that evaluate_run has filled."""
    network = feature_network()
    measurer = Measurer(samples.folder.parent / "measured", variant, [network])
    reference, low = (ImageSet.of_samples(samples.folder, name, samples.keys) for name in ("reference", "low"))
    inputs = low if "consistency" in evaluation["variants"] else None
    theirs = measurer.features(reference, samples.keys, network).features()
    found = {}
    for row in evaluation["methods"]:
        images = ImageSet.of_samples(samples.folder, row["name"], samples.keys)
        pixels = measurer.pixelwise(images, reference, inputs, samples.keys).values()
        features = measurer.features(images, samples.keys, network).features()
        resampled = resampled_distances(features, theirs, variant)
        found[row["name"]] = Compared(pixels, {name: row[name]["mean"] for name in DISTANCES if name in row}, resampled)
    return found


def tabulate_ablation(ablation: Mapping[str, Any]) -> str:
    """Each arm's means and differences from the first arm, with intervals."""
    lines = [f"{ablation['num_images']} {ablation['split']} images; {ablation['intervals']}"]
    for arm in ablation["arms"]:
        seeds = f", seeds {', '.join(map(str, arm['seeds']))}" if len(arm["seeds"]) > 1 else ""
        lines += [
            "",
            f"{arm['name']}{seeds}: {'; '.join(arm['changes']) or 'the arm to which the others are compared'}",
        ]
        for metric, numbers in arm["numbers"].items():
            gap = arm["differences"].get(metric)
            line = f"  {ablation['variants'][metric].partition(' (')[0]:<24} {numbers['mean']:10.4g}"
            if gap:
                line += f"   difference {gap['mean']:+.4g}"
                line += f" [{gap['low']:+.4g}, {gap['high']:+.4g}]" if "low" in gap else ""
                line += f"  {arm['verdicts'][metric]}"
            lines.append(line)
    return "\n".join(lines)
