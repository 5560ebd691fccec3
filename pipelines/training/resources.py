"""The resources of a stage's workers: wait for them where nodes can join, refuse where none can; a GPU's memory."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pipelines.runtime.node_waiting import can_gain_nodes, lacking, wait_for_bundles
from pipelines.settings.train import PlacementConfig, TrainConfig
from sr3core.errors import ConfigError

if TYPE_CHECKING:
    from sr3core.networks.memory import MemoryBudget


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
    if can_gain_nodes():
        return
    missing = lacking(resources_per_worker(config.placement), fewest_workers(config.placement))
    if missing:
        raise ConfigError(
            f"{config.name}: placement asks for {missing}; lower num_workers or cpus_per_worker, set use_gpu to False"
            " where there is no GPU, or join a cluster (--address)"
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

    def too_late(missing: str) -> str:
        return (
            f"{name}: placement asks for {missing}, and in placement.wait_seconds ="
            f" {placement.wait_seconds:g} no nodes joined; see the autoscaler's log, or lower num_workers"
        )

    workers = resources_per_worker(placement), fewest_workers(placement)
    wait_for_bundles(*workers, placement.wait_seconds, say, too_late)


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
