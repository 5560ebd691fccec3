"""From measurements to a table's numbers, each with its interval and its variant in words."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.runtime.text_table import text_table
from pipelines.settings.evaluate import MeasureConfig
from sr3core.errors import ConfigError
from sr3core.features.extractors import FeatureNetwork, distance_label
from sr3core.metrics.bootstrap import (
    PairedGram,
    bootstrap_mean,
    bootstrap_values,
    bootstrap_values_of_two,
    normal_interval,
)
from sr3core.metrics.classification import top_k_errors
from sr3core.metrics.fid import Moments, frechet_distance, frechet_distance_from_features
from sr3core.metrics.inception_score import inception_score
from sr3core.metrics.kid import kernel_distance, kernel_distance_of_subsets
from sr3core.metrics.manifold import NUM_NEIGHBOURS, manifold_hits
from sr3core.randomness import derive_seed

MAX_GRAM_IMAGES = 4096
"""Largest set whose n x n inner products are held in memory, 8 bytes each; KID of larger sets uses subsets."""
MAX_FEATURES = 50_000
"""Images of a set whose features are held in memory; of a larger one so many are drawn at random. The Fréchet distance
is that of all images in any case: its moments are merged part by part."""
MIN_SET = 2
"""Smallest set with a distance to another: one image has no covariance."""
Numbers = dict[str, dict[str, float]]
Resampled = Mapping[str, np.ndarray]
"""Metric -> its value on each resample of the images."""


def sampled_rows(count: int) -> np.ndarray | None:
    """Which images stand for a set of so many where every pair is compared, in order; None for all of them."""
    if count <= MAX_FEATURES:
        return None
    generator = np.random.default_rng(derive_seed(0, "features-of-large-sets"))
    return np.sort(generator.choice(count, MAX_FEATURES, replace=False))


def sampling_label(count: int) -> str:
    """How images of a larger set were drawn, in words; "" if all of them are compared."""
    return "" if count <= MAX_FEATURES else f", of {MAX_FEATURES} images drawn with seed 0 from each larger set"


@dataclass(frozen=True, slots=True)
class Embedded:
    """A set's features, of `sampled_rows` if it is large, and the moments of all, merged from its parts."""

    features: np.ndarray
    moments: Moments


def pixelwise_numbers(values: dict[str, np.ndarray], config: MeasureConfig) -> Numbers:
    """PSNR, SSIM and consistency: means over images."""
    return {name: mean_with_interval(array, config) for name, array in values.items()}


def mean_with_interval(values: np.ndarray, config: MeasureConfig) -> dict[str, float]:
    """Mean and n; of more than one image also the standard error and percentile interval."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) == 1:
        return {"mean": float(array[0]), "n": 1}
    with np.errstate(invalid="ignore"):  # an image equal to its reference has a PSNR of inf
        error = float(array.std(ddof=1) / np.sqrt(len(array)))
    low, high = bootstrap_mean(array, num_resamples=config.num_resamples, level=config.level)
    return {"mean": float(array.mean()), "standard_error": error, "low": low, "high": high, "n": len(array)}


def distance_numbers(ours: Embedded, theirs: Embedded, resampled: Resampled, config: MeasureConfig) -> Numbers:
    """Fréchet and kernel distance, precision, recall, density and coverage of two sets; n is the first one's size.

    A single image has none of them.

    Args:
        ours, theirs: the sets, paired or of any sizes.
        resampled: the distances on resamples, for their intervals: of `resampled_distances` for paired sets, of
            `resampled_set_distances` for others.
        config: the metrics' variants.
    """
    a, b = ours.features, theirs.features
    count, largest, dim = ours.moments.count, max(ours.moments.count, theirs.moments.count), a.shape[1]
    if min(count, theirs.moments.count) < MIN_SET:
        return {}
    by_features = max(len(a), len(b)) == largest <= dim  # all of them, and more precise than by moments
    frechet = frechet_distance_from_features(a, b) if by_features else frechet_distance(ours.moments, theirs.moments)
    numbers = {"distance": with_interval(frechet, resampled.get("distance"), count, config)}
    if largest <= MAX_GRAM_IMAGES:
        numbers["kid"] = with_interval(kernel_distance(a, b), resampled.get("kid"), count, config)
    else:
        numbers["kid"] = subset_kernel_distance(a, b)
    return numbers | manifold_numbers(a, b, config)


def resampled_distances(a: np.ndarray, b: np.ndarray, config: MeasureConfig) -> Resampled:
    """Fréchet and kernel distance of resamples of paired features; no kernel distance of large sets."""
    count, dim = a.shape
    if not config.num_distance_resamples or count <= 2:
        return {}
    statistics: dict[str, Callable[[np.ndarray], float]] = {
        "distance": lambda indices: frechet_distance_from_features(a[indices], b[indices])
    }
    if count <= MAX_GRAM_IMAGES:
        gram = PairedGram(a, b)
        statistics["kid"] = gram.kernel_distance
        if count <= dim:
            statistics["distance"] = gram.frechet_distance
    return {
        name: bootstrap_values(statistic, count, num_resamples=config.num_distance_resamples)
        for name, statistic in statistics.items()
    }


def resampled_set_distances(a: np.ndarray, b: np.ndarray, config: MeasureConfig) -> Resampled:
    """Fréchet and kernel distance of resamples of both sets, independently; no kernel distance of large sets."""
    few = config.num_distance_resamples
    if not few or min(len(a), len(b)) <= 2:
        return {}
    distances: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {"distance": frechet_distance_from_features}
    if max(len(a), len(b)) <= MAX_GRAM_IMAGES:
        distances["kid"] = kernel_distance
    return {name: _resampled_sets(distance, a, b, few) for name, distance in distances.items()}


def _resampled_sets(
    distance: Callable[[np.ndarray, np.ndarray], float], a: np.ndarray, b: np.ndarray, num_resamples: int
) -> np.ndarray:
    return bootstrap_values_of_two(lambda i, j: distance(a[i], b[j]), (len(a), len(b)), num_resamples=num_resamples)


def subset_kernel_distance(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """KID as reported for large sets: the mean over subsets, and the standard deviation of one subset."""
    subsets = kernel_distance_of_subsets(a, b, np.random.default_rng(derive_seed(0, "kid-subsets")))
    return {"mean": subsets.mean, "std_of_subsets": subsets.std, "n": len(a)}


def manifold_numbers(a: np.ndarray, b: np.ndarray, config: MeasureConfig) -> Numbers:
    """Precision, recall, density and coverage; empty for sets of too few images."""
    if min(len(a), len(b)) <= NUM_NEIGHBOURS:
        return {}
    hits = manifold_hits(a, b)
    return {name: mean_with_interval(getattr(hits, name), config) for name in hits._fields}


def score_numbers(logits: np.ndarray, config: MeasureConfig) -> Numbers:
    """Inception Score."""
    splits = min(config.num_splits, len(logits))

    def score(indices: np.ndarray) -> float:
        return inception_score(logits[indices], splits).mean

    found = inception_score(logits, splits)
    few = config.num_distance_resamples
    values = bootstrap_values(score, len(logits), num_resamples=few) if few and len(logits) > 2 else None
    numbers = with_interval(found.mean, values, len(logits), config)
    return {"inception_score": {**numbers, "std_of_parts": found.std}}


def classification_numbers(logits: np.ndarray, labels: Sequence[int], config: MeasureConfig) -> Numbers:
    """Top-1 and top-5 error."""
    return {f"top_{k}_error": mean_with_interval(top_k_errors(logits, np.asarray(labels), k), config) for k in (1, 5)}


def variants(
    network: FeatureNetwork, count: int, config: MeasureConfig, scored: FeatureNetwork | None, judge: str | None
) -> dict[str, str]:
    """Each metric's variant in words; metrics that cannot be measured are omitted.

    Args:
        network: gives the features for the distances.
        count: number of images.
        config: everything else that affects a number.
        scored: the network of the Inception Score; None without one.
        judge: the classifier in words; None without labels.
    """
    channels = "BT.601 luma" if config.y_channel else "RGB"
    pixels = f"{channels}, {config.crop_border} pixels cut off each side, mean over images"
    title = "KID" if network.is_fid else "kernel distance (not KID)"
    kernel = "all images" if count <= MAX_GRAM_IMAGES else f"100 subsets of 1000{sampling_label(count)}"
    manifold = f"{NUM_NEIGHBOURS} neighbours on {network.description}{sampling_label(count)}"
    found = {
        "psnr": f"PSNR dB ({pixels})",
        "ssim": f"SSIM (11x11 Gaussian window of sigma 1.5, {pixels})",
        "consistency": "consistency x1e-5 (MSE of [0, 1] RGB after antialiased bicubic, mean over images)",
        "distance": distance_label(network, count),
        "kid": f"{title} ({network.description}, unbiased, {kernel})",
        "precision": f"precision ({manifold})",
        "recall": f"recall ({manifold})",
        "density": f"density ({manifold})",
        "coverage": f"coverage ({manifold})",
    }
    if config.lpips is not None:
        found["lpips"] = "LPIPS (AlexNet, version 0.1, whole image, mean over images)"
    if scored is not None:
        title = "Inception Score" if scored.is_fid else "exp(E KL), not the paper's Inception Score"
        found["inception_score"] = f"{title} ({scored.description}, {min(config.num_splits, count)} parts)"
    if judge is not None:
        found |= {f"top_{k}_error": f"top-{k} error ({judge})" for k in (1, 5)}
    return found


def rank_warning(count: int, dim: int, what: str = "images") -> str:
    """A warning about a distance computed from fewer images than features, or from one, which has none."""
    if count < MIN_SET:
        return f"a single image has no distance between sets: FID and KID need at least {MIN_SET} {what}"
    return (
        f"{count} {what} are no more than the {dim} features: covariances have a rank of at most {count - 1}, and"
        f" the distance is far too high; compare it only with others of n={count} on the same references"
    )


def interval_label(config: MeasureConfig) -> str:
    """How the intervals are computed, in words."""
    few = config.num_distance_resamples
    sets = f"those of sets ± {few} resamples' deviation, normal" if few else "none for distances between sets"
    return f"{config.level:.0%} bootstrap intervals over images: {config.num_resamples} resamples, percentile; {sets}"


def has_logits(network: FeatureNetwork) -> bool:
    """Whether a network has logits; not every weight file of Inception does."""
    try:
        network.head_weights()
    except ConfigError:
        return False
    return True


def with_interval(estimate: float, resampled: np.ndarray | None, count: int, config: MeasureConfig) -> dict[str, float]:
    """A set's statistic, with standard error and interval if its values on resamples are given."""
    numbers: dict[str, float] = {"mean": estimate, "n": count}
    if resampled is not None:
        error = float(np.std(resampled, ddof=1))
        low, high = normal_interval(estimate, error, config.level)
        numbers |= {"standard_error": error, "low": low, "high": high}
    return numbers


def tabulate(evaluation: dict[str, Any]) -> str:
    """Each metric with its variant in words, and below it a line per method; nothing is wider than 80 columns."""
    columns = {method["name"]: method for method in evaluation["methods"]}
    if evaluation.get("references"):
        columns["references"] = evaluation["references"]
    notes = [f"{evaluation['num_images']} images; {evaluation['intervals']}"]
    notes += [evaluation["setting"]] if evaluation.get("setting") else []
    notes += [f"warning: {text}" for text in evaluation["warnings"]]
    lines = [line for note in notes for line in textwrap.wrap(note, 80, subsequent_indent="  ")]
    for metric, words in evaluation["variants"].items():
        rows = [(f"  {name}", _cell(method[metric])) for name, method in columns.items() if metric in method]
        lines += [*textwrap.wrap(words, 80, subsequent_indent="    "), *text_table(rows)] if rows else []
    return "\n".join(lines)


def _cell(numbers: dict[str, Any]) -> str:
    interval = f" [{numbers['low']:.4g}, {numbers['high']:.4g}]" if "low" in numbers else ""
    return f"{numbers['mean']:.4g}{interval}"
