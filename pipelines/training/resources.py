"""The resources of a stage's workers: wait for them where nodes can join, refuse where none can; a GPU's memory."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.settings.train import PlacementConfig, TrainConfig
from sr3core.errors import ConfigError

if TYPE_CHECKING:
    from sr3core.networks.memory import MemoryBudget

POLL_SECONDS = 2.0
"""Interval between two checks of the cluster's resources."""


def resources_per_worker(placement: PlacementConfig) -> dict[str, float]:
    """What Ray reserves for each worker: resource name -> amount."""
    return {"CPU": placement.cpus_per_worker, **({"GPU": 1} if placement.use_gpu else {}), **placement.resources}


def fewest_workers(placement: PlacementConfig) -> int:
    """The smallest number of workers with which a stage can start."""
    return placement.min_workers or placement.num_workers


def workers_on_a_node(placement: PlacementConfig) -> int:
    """The most workers of a stage that one of the cluster's nodes can take, at least 1."""
    if placement.num_workers <= 1:
        return 1
    import ray

    wanted = resources_per_worker(placement)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = [min(node.get(kind, 0) // amount for kind, amount in wanted.items()) for node in nodes]
    return max(1, min(placement.num_workers, int(max(fitting, default=0))))


def check_resources(config: TrainConfig) -> None:
    """Refuse what this command's own Ray can never provide, since Ray would wait for it forever.

    A cluster that was joined may still gain nodes, by its autoscaler or by hand; for those training waits.

    Raises:
        ConfigError: names what is missing.
    """
    import ray._private.worker

    node = ray._private.worker._global_node
    if node is None or not node.is_head():
        return
    missing = lacking(config.placement)
    if missing:
        raise ConfigError(
            f"{config.name}: placement asks for {missing}; lower num_workers or cpus_per_worker, set use_gpu to False"
            " where there is no GPU, or join a cluster (--address)"
        )


def lacking(placement: PlacementConfig) -> str:
    """What all nodes together lack even when idle; empty if they lack nothing."""
    import ray

    total = ray.cluster_resources()
    wanted = {kind: fewest_workers(placement) * amount for kind, amount in resources_per_worker(placement).items()}
    return " and ".join(
        f"{amount:g} {kind} (the cluster has {total.get(kind, 0):g})"
        for kind, amount in wanted.items()
        if amount > total.get(kind, 0)
    )


def wait_for_resources(name: str, placement: PlacementConfig, say: Callable[[str], None]) -> None:
    """Wait until all workers of a stage fit, and meanwhile ask the autoscaler for nodes.

    Args:
        name: the stage's.
        placement: of its workers.
        say: called with what the stage waits for: immediately if nodes are missing, and every few seconds.

    Raises:
        ConfigError: missing nodes did not join within placement.wait_seconds. Waiting for resources that other
            jobs occupy has no limit.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    started = time.monotonic()
    # A group of the trainer's own shape, pending, is what the autoscaler acts on; Ray Train then makes its own.
    group = placement_group([resources_per_worker(placement)] * fewest_workers(placement), strategy="PACK")
    try:
        if missing := lacking(placement):
            say(describe_wait(placement, missing, 0))
        while not group.wait(POLL_SECONDS):
            waited, missing = time.monotonic() - started, lacking(placement)
            if missing and waited > placement.wait_seconds:
                raise ConfigError(
                    f"{name}: placement asks for {missing}, and in placement.wait_seconds ="
                    f" {placement.wait_seconds:g} no nodes joined; see the autoscaler's log, or lower num_workers"
                )
            say(describe_wait(placement, missing, waited))
    finally:
        remove_placement_group(group)


def describe_wait(placement: PlacementConfig, missing: str, waited: float) -> str:
    """`waits for nodes: it needs 8 GPU (the cluster has 0), 45 s of at most 1800 s`."""
    if missing:
        return f"waits for nodes: it needs {missing}, {waited:.0f} s of at most {placement.wait_seconds:g} s"
    import ray

    free = ray.available_resources()
    needed = ", ".join(
        f"{fewest_workers(placement) * amount:g} {kind} ({free.get(kind, 0):g} are free)"
        for kind, amount in resources_per_worker(placement).items()
    )
    return f"waits for resources that others use: it needs {needed}, {waited:.0f} s"


def memory_of(config: TrainConfig) -> "MemoryBudget":
    """What a training step of a stage needs on each of its GPUs, uncompiled."""
    from sr3core.networks.memory import training_memory

    return training_memory(
        config.model,
        config.precision,
        num_images=-(-config.batch_size // max(config.placement.num_workers, 1)),
        num_micro_batches=config.num_micro_batches,
        averages=config.optimizer.ema_decay > 0,
        recomputes=config.placement.recompute_activations,
    )


def describe_memory(config: TrainConfig, gpu_gigabytes: float) -> str:
    """`a step needs 60.8 of 80 GB on each GPU: 38.3 activations, ...`, and what helps if it does not fit."""
    budget = memory_of(config)
    at_once = -(-config.batch_size // max(config.placement.num_workers, 1) // config.num_micro_batches)
    parts = {
        f"activations of {at_once} images at a time": budget.saved,
        "weights, average, moments and gradients": budget.state,
        "images and noise": budget.images,
        "workspace": budget.workspace,
    }
    told = ", ".join(f"{size / 1e9:.1f} {part}" for part, size in parts.items())
    said = f"a step needs {budget.total / 1e9:.1f} of {gpu_gigabytes:g} GB on each GPU: {told}"
    if budget.total <= gpu_gigabytes * 1e9:
        return said
    return (
        f"{said}; it does not fit: raise num_micro_batches, set placement.recompute_activations, or precision bfloat16"
    )
