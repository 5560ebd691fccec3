"""Waiting for resources that a cluster lacks: an autoscaler's nodes are minutes away, another job may hold the rest."""

import time
from collections.abc import Callable, Mapping

from sr3core.errors import ConfigError

POLL_SECONDS = 2.0
"""Interval between two checks of the cluster's resources."""

WAIT_SECONDS = 1800.0
"""How long to wait for an autoscaler to add missing nodes."""

Bundle = Mapping[str, float]
"""What one process needs on one node: resource -> amount."""


def can_gain_nodes() -> bool:
    """Whether this is a cluster that was joined: a Ray that the command has started itself gets no other nodes."""
    import ray._private.worker

    node = ray._private.worker._global_node
    return node is None or not node.is_head()


def lacking(bundle: Bundle, count: int) -> str:
    """What all nodes together lack for the bundles even when idle: `1 GPU (the cluster has 0)`; empty for nothing."""
    import ray

    total = ray.cluster_resources()
    return " and ".join(
        f"{count * amount:g} {kind} (the cluster has {total.get(kind, 0):g})"
        for kind, amount in bundle.items()
        if count * amount > total.get(kind, 0)
    )


def wait_for_bundles(
    bundle: Bundle, count: int, seconds: float, say: Callable[[str], None], too_late: Callable[[str], str]
) -> None:
    """Wait until `count` bundles fit on the cluster's nodes, and meanwhile ask its autoscaler for nodes.

    Args:
        bundle: what each process needs.
        count: how many have to fit.
        seconds: the longest wait for missing nodes. Waiting for resources that other jobs hold has no limit.
        say: called with what is waited for: immediately if nodes are missing, and every few seconds.
        too_late: makes the error's text from what is missing.

    Raises:
        ConfigError: missing nodes did not join in time.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    started = time.monotonic()
    # A group that is pending is what the autoscaler acts on; whoever waits then reserves the same for itself.
    group = placement_group([dict(bundle)] * count, strategy="PACK")
    try:
        if missing := lacking(bundle, count):
            say(describe_wait(bundle, count, missing, 0, seconds))
        while not group.wait(POLL_SECONDS):
            waited, missing = time.monotonic() - started, lacking(bundle, count)
            if missing and waited > seconds:
                raise ConfigError(too_late(missing))
            say(describe_wait(bundle, count, missing, waited, seconds))
    finally:
        remove_placement_group(group)


def describe_wait(bundle: Bundle, count: int, missing: str, waited: float, seconds: float) -> str:
    """`waits for nodes: it needs 8 GPU (the cluster has 0), 45 s of at most 1800 s`."""
    if missing:
        return f"waits for nodes: it needs {missing}, {waited:.0f} s of at most {seconds:g} s"
    import ray

    free = ray.available_resources()
    needed = ", ".join(f"{count * amount:g} {kind} ({free.get(kind, 0):g} are free)" for kind, amount in bundle.items())
    return f"waits for resources that others use: it needs {needed}, {waited:.0f} s"
