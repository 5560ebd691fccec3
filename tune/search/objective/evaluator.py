"""The held-out objective of section 2.4's search, by which every schedule is judged alike.

Inputs, noise and references are the same for all trials. A schedule's measurements are stored per rung, so that a
search that is resumed, or tries a schedule again, measures nothing twice.
"""

import time
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from pipelines.storage.local_files import replacing
from sr3core.cascade import Stage, upscale
from sr3core.config import fingerprint_of
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.features.extractors import FeatureNetwork, extract_features
from sr3core.hyperparameters import ModelConfig
from sr3core.images.pixels import to_float, to_uint8
from sr3core.metrics.consistency import consistency
from sr3core.metrics.fid import Moments, frechet_distance, frechet_distance_from_features
from sr3core.metrics.kid import kernel_distance, kernel_distances_without
from sr3core.metrics.psnr import psnr
from sr3core.metrics.ssim import ssim
from sr3core.networks.unet import UNet
from sr3core.randomness import derive_seed
from tune.search.settings import Objective, ObjectiveWeights

NUM_JACKKNIFE_GROUPS = 10


class DivergedError(ArithmeticError):
    """A schedule made the sampler diverge; the trial is recorded as failed, and the search continues."""


@dataclass(frozen=True, eq=False, slots=True)
class Task:
    """Everything that a trial needs; stored in the object store once, loaded once per actor."""

    model: ModelConfig
    network: UNet
    """Weights to sample with, on the CPU."""
    mean: UNet | None
    """The regression that the chain starts from, on the CPU; None without one."""
    feature_network: FeatureNetwork
    keys: tuple[str, ...]
    """Of the held-out images."""
    low: np.ndarray
    """(N, h, w, 3) uint8."""
    high: np.ndarray
    """(N, H, W, 3) uint8."""
    references: np.ndarray
    """Features of high, (N, D): computed once."""
    identity: str
    """Fingerprint of everything but the schedule that a measurement depends on."""
    cache: Path
    """Folder of measurements."""
    purpose: str
    """Names the noise: "search", or "confirmation" for fresh noise."""
    seed: int
    rungs: tuple[int, ...]
    objective: Objective
    weights: ObjectiveWeights
    batch_size: int


@dataclass(frozen=True, eq=False, slots=True)
class Measurements:
    """Measurements of some images with one schedule, in the order of the images."""

    features: np.ndarray
    """(n, D) float32."""
    psnr: np.ndarray
    """(n,) dB."""
    ssim: np.ndarray
    """(n,)."""
    consistency: np.ndarray
    """(n,) in units of 1e-5."""
    seconds: np.ndarray
    """(n,) sampling time in seconds: a batch's, divided by its size."""

    @classmethod
    def join(cls, parts: "list[Measurements]") -> "Measurements":
        """Concatenate parts in order."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def where(self, chosen: np.ndarray) -> "Measurements":
        """Those of the images where chosen, (n,) bool, is true."""
        return Measurements(*(getattr(self, field.name)[chosen] for field in fields(self)))


class Evaluator:
    """Judges schedules on a task. Expensive to construct (it moves networks to the device): one per actor."""

    def __init__(self, task: Task, device: str = "cpu") -> None:
        self.task, self.device = task, device
        self._network = task.network.to(device).eval()
        # On a CPU channels-last is 1.2 times as fast.
        self._network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._mean = None if task.mean is None else task.mean.to(device).eval()
        self._features = task.feature_network.to(device)

    def evaluate(self, schedule: InferenceSchedule, num_images: int) -> dict[str, float]:
        """Judge a schedule on the first num_images images; num_images is one of the task's rungs.

        Returns:
            distance, kid, psnr, ssim, consistency, seconds_per_image, objective; and at the last rung what
            `standard_errors` returns.
        """
        boundaries = [0, *self.task.rungs[: self.task.rungs.index(num_images) + 1]]
        measured = Measurements.join([self._measured(schedule, first, last) for first, last in pairwise(boundaries)])
        return summarise(measured, self.task, with_error=num_images == self.task.rungs[-1])

    def _measured(self, schedule: InferenceSchedule, first: int, last: int) -> Measurements:
        path = measurement_path(self.task, schedule, first, last)
        if path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                return Measurements(**{field.name: stored[field.name] for field in fields(Measurements)})
        found = self.measure(schedule, first, last)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{field.name: getattr(found, field.name) for field in fields(found)})
        return found

    def measure(self, schedule: InferenceSchedule, first: int, last: int) -> Measurements:
        """Upscale images first..last-1 with a schedule and measure them."""
        size = self.task.batch_size
        batches = [range(start, min(start + size, last)) for start in range(first, last, size)]
        return Measurements.join([self._measure_batch(schedule, batch) for batch in batches])

    def _measure_batch(self, schedule: InferenceSchedule, batch: range) -> Measurements:
        task, part = self.task, slice(batch.start, batch.stop)
        name = f"{task.model.low_size}-{task.model.high_size}"
        stage = Stage(name, task.model, self._network, schedule, self._mean)
        seeds = [derive_seed(task.seed, task.purpose, key) for key in task.keys[part]]
        low = task.low[part].copy()  # the object store's arrays are read-only, which torch warns about
        started = time.perf_counter()
        high = upscale(stage, to_float(low).to(self.device), seeds).cpu()  # .cpu() waits for a GPU
        seconds = (time.perf_counter() - started) / len(batch)
        images = to_uint8(high.nan_to_num())
        features = extract_features(self._features, images, task.batch_size).astype(np.float32)
        features[~high.isfinite().flatten(1).all(1).numpy()] = np.nan  # a sampler that diverged must not look like one
        return Measurements(
            features=features,
            psnr=psnr(images, task.high[part].copy()),
            ssim=ssim(images, task.high[part].copy()),
            consistency=consistency(images, low),
            seconds=np.full(len(batch), seconds),
        )


def summarise(measured: Measurements, task: Task, with_error: bool) -> dict[str, float]:
    """Summarise measurements as a trial's numbers.

    Raises:
        DivergedError: some images are not finite.
    """
    diverged = int((~np.isfinite(measured.features).all(1)).sum())
    if diverged:
        raise DivergedError(f"the sampler diverged: {diverged} of {len(measured.features)} images are not finite")
    values = _values(measured, task.references, kernel_distance(measured.features, task.references), task)
    return values | (standard_errors(measured, task) if with_error else {})


def _values(measured: Measurements, references: np.ndarray, kid: float, task: Task) -> dict[str, float]:
    values = {
        "distance": distance(measured.features, references),
        "kid": kid,
        "psnr": float(measured.psnr.mean()),
        "ssim": float(measured.ssim.mean()),
        "consistency": float(measured.consistency.mean()),
        "seconds_per_image": float(measured.seconds.mean()),
    }
    return values | {"objective": objective_value(values, task.objective, task.weights)}


def objective_value(values: dict[str, float], objective: Objective, weights: ObjectiveWeights) -> float:
    """The value that the search minimises."""
    if objective == "fid":
        return values["distance"]
    if objective == "kid":
        return values["kid"]
    return (
        weights.fid * values["distance"]
        + weights.kid * values["kid"]
        - weights.psnr * values["psnr"]
        - weights.ssim * values["ssim"]
        + weights.consistency * values["consistency"]
        + weights.seconds * values["seconds_per_image"]
    )


def distance(features: np.ndarray, references: np.ndarray) -> float:
    """The Fréchet distance, by the algorithm that is faster for this many images; both agree."""
    if max(len(features), len(references)) < references.shape[1]:
        return frechet_distance_from_features(features, references)
    return frechet_distance(Moments.from_features(features), Moments.from_features(references))


def standard_errors(measured: Measurements, task: Task) -> dict[str, float]:
    """Standard errors over the choice of images: the jackknife with groups of images left out.

    An image's output and its reference are left out together. Every value has the same number of images, so that the
    distance's bias in that number cancels.

    Returns:
        standard_error of distance, kid_error and objective_error; NaN for fewer than four images.
    """
    names = {"standard_error": "distance", "kid_error": "kid", "objective_error": "objective"}
    num_images = len(measured.features)
    num_groups = min(NUM_JACKKNIFE_GROUPS, num_images // 2)
    if num_groups < 2:
        return dict.fromkeys(names, float("nan"))
    groups = np.arange(num_images) % num_groups
    kids = kernel_distances_without(measured.features, task.references, groups)
    left = [
        _values(measured.where(groups != group), task.references[groups != group], float(kid), task)
        for group, kid in enumerate(kids)
    ]
    return {error: _jackknife([values[name] for values in left]) for error, name in names.items()}


def _jackknife(values: list[float]) -> float:
    return float(np.sqrt((len(values) - 1) * np.var(values)))


def measurement_path(task: Task, schedule: InferenceSchedule, first: int, last: int) -> Path:
    """File for measurements of images first..last-1."""
    return task.cache / task.identity / f"{schedule_fingerprint(schedule)}-{first}-{last}.npz"


def schedule_fingerprint(schedule: InferenceSchedule) -> str:
    """Identity of what a schedule does, regardless of its name and provenance."""
    return fingerprint_of({"gammas": list(schedule.gammas), "sampler": asdict(schedule.sampler)})


def extract(network: FeatureNetwork, images: np.ndarray, batch_size: int, gpus: float) -> np.ndarray:
    """Features of images, as a Ray task."""
    return extract_features(network.to(pick_device(gpus)), images.copy(), batch_size)


def judge(task: Task, schedule: InferenceSchedule, cpus: float, gpus: float) -> dict[str, float]:
    """Judge one schedule on all images, as a Ray task."""
    torch.set_num_threads(max(1, int(cpus)))
    return Evaluator(task, pick_device(gpus)).evaluate(schedule, task.rungs[-1])


def pick_device(gpus: float) -> str:
    """A trial's device, by what it reserved, not by what the machine has: a task without GPUs can see them all."""
    return "cuda" if gpus > 0 and torch.cuda.is_available() else "cpu"
