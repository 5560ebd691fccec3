"""The images that outputs are compared with: others than the inputs' originals, or these where they are enough."""

import zlib
from dataclasses import replace

import numpy as np
import ray

from pipelines.ingest.split_reader import load_split
from pipelines.runs.run_folder import StageRun
from pipelines.storage.local_files import replacing
from sr3core.config import fingerprint_of
from sr3core.errors import DataError
from tune.search.objective.evaluator import extract
from tune.search.objective.measurements import Task
from tune.search.objective.yardstick import ENOUGH_FOR_KID
from tune.search.settings import SearchConfig


def with_references(task: Task, stage: StageRun, config: SearchConfig, confirm: bool = False) -> Task:
    """The task with the features of what outputs are compared with, extracted once on the cluster and cached.

    The other images are the stage's training images: real ones of the same kind, and there are many. The search and
    the confirmation take every second one each.

    Raises:
        DataError: there are too few other images.
    """
    if task.paired:
        return replace(task, references=_features(task, task.keys, task.high, config))
    limit = 2 * config.num_references
    others = load_split(stage.data, stage.config.data_stage, "train", limit, rank=int(confirm), world_size=2)
    if len(others.keys) < ENOUGH_FOR_KID:
        raise DataError(
            f"{stage.data}/{stage.config.data_stage} holds too few training images to compare outputs with:"
            f" {len(others.keys)} of every second one, and {ENOUGH_FOR_KID} are needed; prepare more images"
        )
    return replace(task, references=_features(task, others.keys, others.high, config))


def _features(task: Task, keys: tuple[str, ...], images: np.ndarray, config: SearchConfig) -> np.ndarray:
    identity = fingerprint_of([task.feature_network.name, keys, zlib.crc32(images.tobytes())])
    path = task.cache / "references" / f"{identity}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    resources = config.trial_resources
    remote = ray.remote(extract).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    network = ray.put(task.feature_network)
    size = max(task.batch_size, -(-len(images) // 16))
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    features = np.concatenate(
        ray.get([remote.remote(network, part, task.batch_size, resources.gpus) for part in parts])
    )
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, features)
    return features
