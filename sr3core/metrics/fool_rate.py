"""Fool rates of the 2AFC study (section 4.2.2), with intervals that account for repeated subjects and images.

Fifty answers of one person are correlated, and so are fifty answers about one image. An interval on pooled trials, such
as Wilson's, treats them as 2500 independent trials and is far too narrow. Here both subjects and images are resampled
with replacement (the pigeonhole bootstrap; Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from sr3core.errors import ConfigError, DataError
from sr3core.randomness import derive_seed

CONFIDENCE = 0.95
NUM_REPLICATES = 10_000
Z = 1.959963984540054
"""Normal quantile of CONFIDENCE."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Trials of one model; each list has one entry per trial."""

    subjects: Sequence[str]
    """The subject who answered."""
    images: Sequence[str]
    """The image that was shown."""
    fooled: Sequence[bool]
    """Whether the subject took the model's output for the original."""

    def __post_init__(self) -> None:
        if not len(self.subjects) == len(self.images) == len(self.fooled):
            raise DataError(
                f"{len(self.subjects)} subjects, {len(self.images)} images, {len(self.fooled)} answers: one per trial"
            )
        if not len(self.fooled):
            raise DataError("a fool rate needs at least one answer")


@dataclass(frozen=True, slots=True)
class Rate:
    """A fool rate with its interval; all three are fractions in [0, 1]."""

    rate: float
    low: float
    high: float
    num_trials: int
    num_subjects: int
    num_images: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Fool rate of the first model minus that of the second."""

    first: str
    second: str
    difference: float
    low: float
    high: float
    p_value: float
    """Two-sided p-value of the hypothesis that the two rates are equal."""
    p_adjusted: float
    """p_value after Holm's correction for the number of pairs."""


def fool_rate(answers: Answers) -> float:
    """The fool rate of section 4.2.2: fraction of trials in which the output was preferred to the original, in [0, 1].

    If all subjects saw the same number of images, it is the mean of the subjects' fool rates.
    """
    return float(np.mean(np.asarray(answers.fooled, dtype=np.float64)))


def rates_by(names: Sequence[str], fooled: Sequence[bool]) -> dict[str, tuple[float, int]]:
    """Fool rate and number of trials for each name (of an image or of a subject), in sorted order."""
    unique, index = np.unique(np.asarray(names), return_inverse=True)
    counts = np.bincount(index)
    sums = np.bincount(index, weights=np.asarray(fooled, dtype=np.float64))
    return {str(name): (float(s / c), int(c)) for name, s, c in zip(unique, sums, counts, strict=True)}


def wilson_interval(num_fooled: float, num_trials: int) -> tuple[float, float]:
    """Wilson's 95% interval of a fraction, for *independent* trials, such as those of one image by different subjects.

    Raises:
        DataError: there is no trial.
    """
    if num_trials < 1:
        raise DataError("an interval needs at least one trial")
    share, spread = num_fooled / num_trials, Z**2 / num_trials
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * math.sqrt(share * (1 - share) / num_trials + spread / (4 * num_trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def compare_models(
    models: Mapping[str, Answers], seed: int, num_replicates: int = NUM_REPLICATES
) -> tuple[dict[str, Rate], list[Difference]]:
    """Fool rate of each model, and each pair's difference, with two-way (subject x image) bootstrap intervals.

    In a replicate, the number of copies of an image (or a subject) is the same for all models it was shown with, so
    that differences are paired by image.

    Args:
        models: the trials of each model, by name.
        seed: seed of the bootstrap replicates.
        num_replicates: number of bootstrap replicates, at least 100.

    Returns:
        The rates by model, and the differences of all pairs in the order of `models`.

    Raises:
        ConfigError: num_replicates is too small.
    """
    if num_replicates < 100:
        raise ConfigError(f"num_replicates: {num_replicates} is too few for a 95% interval; use at least 100")
    subject_copies = _copies({name for a in models.values() for name in a.subjects}, "subjects", seed, num_replicates)
    image_copies = _copies({name for a in models.values() for name in a.images}, "images", seed, num_replicates)
    replicates = {name: _replicates(answers, subject_copies, image_copies) for name, answers in models.items()}
    rates = {name: _rate(answers, replicates[name]) for name, answers in models.items()}
    pairs = [
        _difference(first, second, rates, replicates[first] - replicates[second])
        for first, second in combinations(models, 2)
    ]
    return rates, _holm(pairs)


def fool_rate_interval(answers: Answers, seed: int, num_replicates: int = NUM_REPLICATES) -> Rate:
    """Fool rate of one model with its two-way bootstrap interval; see `compare_models`."""
    return compare_models({"": answers}, seed, num_replicates)[0][""]


Copies = tuple[dict[str, int], np.ndarray]
"""Column of each name, and how often each name is drawn, (replicates, names)."""


def _copies(names: set[str], purpose: str, seed: int, num_replicates: int) -> Copies:
    order = sorted(names)
    generator = np.random.Generator(np.random.Philox(derive_seed(seed, "fool-rate", purpose)))
    drawn = generator.multinomial(len(order), np.full(len(order), 1 / len(order)), size=num_replicates)
    return {name: column for column, name in enumerate(order)}, drawn.astype(np.float64)


def _replicates(answers: Answers, subjects: Copies, images: Copies) -> np.ndarray:
    """The fool rate in each replicate, (replicates,); NaN if none of its trials was drawn."""
    rows = np.array([subjects[0][name] for name in answers.subjects])
    columns = np.array([images[0][name] for name in answers.images])
    counts = np.zeros((subjects[1].shape[1], images[1].shape[1]))
    sums = np.zeros_like(counts)
    np.add.at(counts, (rows, columns), 1.0)
    np.add.at(sums, (rows, columns), np.asarray(answers.fooled, dtype=np.float64))
    # R replicates, S subjects, I images: (R, S) @ (S, I) -> (R, I), weighted and summed over images -> (R,)
    weights = np.einsum("bi,bi->b", subjects[1] @ counts, images[1])
    fooled = np.einsum("bi,bi->b", subjects[1] @ sums, images[1])
    return np.divide(fooled, weights, out=np.full_like(fooled, np.nan), where=weights > 0)


def _rate(answers: Answers, replicates: np.ndarray) -> Rate:
    rate, num_trials = fool_rate(answers), len(answers.fooled)
    low, high = _percentiles(replicates)
    # Never narrower than for independent trials: replicates of unanimous answers do not vary at all.
    floor, ceiling = wilson_interval(rate * num_trials, num_trials)
    counts = num_trials, len(set(answers.subjects)), len(set(answers.images))
    return Rate(rate, min(low, floor), max(high, ceiling), *counts)


def _difference(first: str, second: str, rates: Mapping[str, Rate], replicates: np.ndarray) -> Difference:
    known = replicates[~np.isnan(replicates)]
    below, above = int((known <= 0).sum()), int((known >= 0).sum())
    p_value = min(1.0, 2 * (1 + min(below, above)) / (1 + len(known)))
    low, high = _percentiles(replicates)
    return Difference(first, second, rates[first].rate - rates[second].rate, low, high, p_value, p_value)


def _percentiles(replicates: np.ndarray) -> tuple[float, float]:
    known = replicates[~np.isnan(replicates)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _holm(pairs: list[Difference]) -> list[Difference]:
    """Holm's step-down correction: the smallest of m p-values times m, the next times m - 1, kept non-decreasing."""
    order = sorted(range(len(pairs)), key=lambda index: pairs[index].p_value)
    adjusted, largest = list(pairs), 0.0
    for rank, index in enumerate(order):
        pair = pairs[index]
        largest = max(largest, min(1.0, pair.p_value * (len(pairs) - rank)))
        numbers = pair.difference, pair.low, pair.high, pair.p_value
        adjusted[index] = Difference(pair.first, pair.second, *numbers, largest)
    return adjusted
