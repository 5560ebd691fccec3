"""Judging schedules on held-out images (section 2.4), each alike.

Inputs, noise and references are the same for all trials. A schedule's measurements are stored per rung, so that a
search that is resumed, or tries a schedule again, measures nothing twice.
"""

import time
from dataclasses import fields
from itertools import pairwise

import numpy as np
import torch

from pipelines.settings.stages import stage_name
from pipelines.storage.local_files import replacing
from sr3core.diffusion.schedules import InferenceSchedule
from sr3core.features.extractors import FeatureNetwork, extract_features
from sr3core.images.pixels import to_float, to_uint8
from sr3core.metrics.consistency import consistency
from sr3core.metrics.psnr import psnr
from sr3core.metrics.ssim import ssim
from sr3core.randomness import derive_seed
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage
from tune.search.objective.estimates import summarise
from tune.search.objective.field_scores import measure_fields
from tune.search.objective.measurements import Measurements, Task, measurement_path


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
        return summarise(self.measured(schedule, num_images), self.task, self.task.rungs.index(num_images))

    def measured(self, schedule: InferenceSchedule, num_images: int) -> Measurements:
        """Measure the first num_images images, a rung, with a schedule; what was measured before is read."""
        boundaries = [0, *self.task.rungs[: self.task.rungs.index(num_images) + 1]]
        return Measurements.join([self._measured(schedule, first, last) for first, last in pairwise(boundaries)])

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
        if self.task.fields is not None:
            return measure_fields(self.task, self._network, self._mean, schedule, batch, self.device)
        task, part = self.task, slice(batch.start, batch.stop)
        name = stage_name(task.model.low_size, task.model.high_size)
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
