"""The images that outputs are compared with: others than the inputs' originals, or these where they are enough."""

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import ray

from pipelines.ingest.split_reader import load_split
from pipelines.runs.run_folder import StageRun
from pipelines.runtime.tasks import watch
from pipelines.settings.mixtures import describe_data
from pipelines.storage.local_files import replacing
from sr3core.config import fingerprint_of
from sr3core.errors import DataError
from sr3core.features.extractors import FeatureNetwork
from tune.search.objective.evaluator import extract
from tune.search.objective.held_out_images import MIN_IMAGES
from tune.search.objective.measurements import Task
from tune.search.settings import SearchConfig, TrialResources


def with_references(task: Task, stage: StageRun, config: SearchConfig, confirm: bool = False) -> Task:
    """The task with the features of what outputs are compared with, extracted once on the cluster and cached.

    The other images are the stage's training images: real ones of the same kind, and there are many. The search and
    the confirmation take every second one each.

    Raises:
        DataError: there are too few other images.
    """
    if task.fields is not None:
        return task  # the truth is in the samples
    if task.paired:
        return replace(task, references=_features(task, task.keys, task.high, config))
    limit = 2 * config.num_references
    others = load_split(stage.data, stage.config.data_stage, "train", limit, rank=int(confirm), world_size=2)
    if len(others.keys) < MIN_IMAGES:
        raise DataError(
            f"stage {stage.config.data_stage} of {describe_data(stage.data)} holds too few training images to compare"
            " outputs with:"
            f" {len(others.keys)} of every second one, and {MIN_IMAGES} are needed; prepare more images"
        )
    return replace(task, references=_features(task, others.keys, others.high, config))


def _features(task: Task, keys: tuple[str, ...], images: np.ndarray, config: SearchConfig) -> np.ndarray:
    return cached_features(task.feature_network, keys, images, task.cache, config.trial_resources, task.batch_size)


def cached_features(
    network: FeatureNetwork,
    keys: tuple[str, ...],
    images: np.ndarray,
    cache: Path,
    resources: TrialResources,
    batch_size: int,
) -> np.ndarray:
    """Features of images, (M, D), extracted on the cluster unless a folder below the cache has them.

    Args:
        network: gives the features.
        keys: of the images.
        images: (M, H, W, 3) uint8.
        cache: folder that is kept.
        resources: of each task.
        batch_size: images per forward pass.
    """
    identity = fingerprint_of([network.name, keys, zlib.crc32(images.tobytes())])
    path = cache / "references" / f"{identity}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    remote = ray.remote(extract).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    shared = ray.put(network)
    size = max(batch_size, -(-len(images) // 16))
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    jobs = [remote.remote(shared, part, batch_size, resources.gpus) for part in parts]
    watch(jobs, "features to compare with", "parts")
    features = np.concatenate(ray.get(jobs))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, features)
    return features
