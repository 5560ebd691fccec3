"""From the measurements of a schedule's images to the numbers of a trial, with their standard errors."""

import numpy as np

from sr3core.metrics.fid import Moments, frechet_distance, frechet_distance_from_features
from sr3core.metrics.fid_infinity import extrapolated_frechet_distance
from sr3core.metrics.kid import kernel_distance, kernel_distances_without
from tune.search.objective.measurements import Compared, Measurements, Task
from tune.search.objective.yardstick import FIELD_COLUMNS, SCORES, Estimate
from tune.search.settings import ObjectiveWeights

NUM_JACKKNIFE_GROUPS = 10


class DivergedError(ArithmeticError):
    """A schedule made the sampler diverge; the trial is recorded as failed, and the search continues."""


def summarise(measured: Measurements, task: Task, rung: int) -> dict[str, float]:
    """Summarise measurements as a trial's numbers.

    Args:
        measured: of the images of the rung, all of them.
        task: what they are compared with.
        rung: number of the rung; the last also has `standard_errors`.

    Raises:
        DivergedError: some images are not finite.
    """
    diverged = int((~np.isfinite(measured.features).all(1)).sum())
    if diverged:
        raise DivergedError(f"the sampler diverged: {diverged} of {len(measured.features)} images are not finite")
    references = task.references[: len(measured.features)] if task.paired else task.references
    numbers = values(measured, references, task, task.estimates[rung])
    last = rung == len(task.estimates) - 1
    return numbers | (standard_errors(measured, references, task) if last else {})


def values(
    measured: Measurements, references: np.ndarray, task: Task, estimate: Estimate, kid: float | None = None
) -> dict[str, float]:
    """distance, kid, psnr, ssim, consistency, seconds_per_image, objective; kid is computed unless it is given."""
    if estimate in SCORES:
        score = mean_score(measured, estimate)
        blank = dict.fromkeys(("kid", "psnr", "ssim", "consistency"), float("nan"))
        return {**blank, "distance": score, "objective": score, "seconds_per_image": float(measured.seconds.mean())}
    found = {
        "distance": distance(measured.features, references, task.paired),
        "kid": kernel_distance(measured.features, references) if kid is None else kid,
        **means_of(measured),
    }
    return found | {"objective": objective_value(found, estimate, task.weights)}


def objective_value(found: dict[str, float], estimate: Estimate, weights: ObjectiveWeights) -> float:
    """The value that the search minimises."""
    if estimate in ("fid", "fid-infinity"):
        return found["distance"]
    if estimate == "kid":
        return found["kid"]
    return (
        weights.fid * found["distance"]
        + weights.kid * found["kid"]
        - weights.psnr * found["psnr"]
        - weights.ssim * found["ssim"]
        + weights.consistency * found["consistency"]
        + weights.seconds * found["seconds_per_image"]
    )


def objective_of(measured: Measurements, references: np.ndarray, task: Compared, estimate: Estimate) -> float:
    """The value that the search minimises, alone: nothing is computed that it does not need."""
    if estimate in SCORES:
        return mean_score(measured, estimate)
    if estimate == "kid":
        return kernel_distance(measured.features, references)
    if estimate != "weighted":
        return distance(measured.features, references, task.paired)
    weights = task.weights
    found = dict.fromkeys(("distance", "kid"), 0.0)
    if weights.fid:
        found["distance"] = distance(measured.features, references, task.paired)
    if weights.kid:
        found["kid"] = kernel_distance(measured.features, references)
    return objective_value(found | means_of(measured), estimate, weights)


def mean_score(measured: Measurements, estimate: Estimate) -> float:
    """Mean of the score of ensembles over samples of fields."""
    return float(measured.features[:, FIELD_COLUMNS.index(estimate)].astype(np.float64).mean())


def means_of(measured: Measurements) -> dict[str, float]:
    """psnr, ssim, consistency and seconds_per_image: means over images."""
    return {
        "psnr": float(measured.psnr.mean()),
        "ssim": float(measured.ssim.mean()),
        "consistency": float(measured.consistency.mean()),
        "seconds_per_image": float(measured.seconds.mean()),
    }


def distance(features: np.ndarray, references: np.ndarray, paired: bool) -> float:
    """The Fréchet distance of many images, or of fewer, extrapolated.

    Two to three images, which no line goes through, are not extrapolated.
    """
    if not paired and min(len(features), len(references)) >= 4:
        return extrapolated_frechet_distance(features, references)
    if max(len(features), len(references)) < references.shape[1]:
        return frechet_distance_from_features(features, references)
    return frechet_distance(Moments.from_features(features), Moments.from_features(references))


def standard_errors(measured: Measurements, references: np.ndarray, task: Task) -> dict[str, float]:
    """Standard errors over the choice of images: the jackknife with groups of outputs and references left out.

    Paired references are left out with their outputs, others in groups of their own. Every value has the same numbers
    of images, so that the distance's bias in them cancels.

    Returns:
        standard_error of distance, kid_error and objective_error; NaN for fewer than four images.
    """
    names = {"standard_error": "distance", "kid_error": "kid", "objective_error": "objective"}
    if task.groups is not None:
        return _score_errors(measured, task.groups[: len(measured.features)], task.estimates[-1], names)
    num_images = len(measured.features)
    num_groups = min(NUM_JACKKNIFE_GROUPS, num_images // 2)
    if num_groups < 2:
        return dict.fromkeys(names, float("nan"))
    groups, theirs = np.arange(num_images) % num_groups, np.arange(len(references)) % num_groups
    kids = kernel_distances_without(measured.features, references, groups, theirs)
    left = [
        values(measured.where(groups != n), references[theirs != n], task, task.estimates[-1], float(kid))
        for n, kid in enumerate(kids)
    ]
    return {error: _jackknife([one[name] for one in left]) for error, name in names.items()}


def _score_errors(
    measured: Measurements, groups: np.ndarray, estimate: Estimate, names: dict[str, str]
) -> dict[str, float]:
    """The same for a mean over samples of fields: whole blocks of time are left out, since neighbours are alike."""
    found = dict.fromkeys(names, float("nan"))
    numbers = np.unique(groups)
    if len(numbers) >= 2:
        error = _jackknife([mean_score(measured.where(groups != number), estimate) for number in numbers])
        found |= {"standard_error": error, "objective_error": error}
    return found


def _jackknife(replicates: list[float]) -> float:
    return float(np.sqrt((len(replicates) - 1) * np.var(replicates)))
