"""`sr3 doctor`: the checks of cluster/health/checks.py on this machine, or on every node of a cluster."""

import secrets
import time
from contextlib import suppress
from dataclasses import asdict

from cluster.health.checks import Check, Places, State, examine
from cluster.session import OBJECT_STORE_BYTES
from pipelines.storage.uris import absolute, delete, join, write_atomic
from sr3core.errors import StorageError

NODE_SECONDS = 180
"""Time that a node has to answer; its first task waits for a worker process."""
SKEW_WARN_SECONDS, SKEW_FAIL_SECONDS = 2.0, 300.0
"""Differences between clocks: beyond the first, logs get out of order; a little beyond the second, S3 and TLS refuse
requests."""


def examine_here(data: str | None, out: str | None) -> dict[str, list[Check]]:
    """Check this machine."""
    return {"this machine": examine(Places(data, out, object_store_bytes=OBJECT_STORE_BYTES))}


def examine_cluster(data: str | None, out: str | None) -> dict[str, list[Check]]:
    """Check every node of the cluster that this process has joined, each in a Ray task of its own.

    Returns:
        Node -> its checks.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    probe, unwritable = _probe(out)
    task = ray.remote(num_cpus=0, max_retries=0)(_examine_node)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            store = int(node["Resources"].get("object_store_memory", 0))
            places = Places(data and absolute(data), out and absolute(out), probe, store, ray_runs=True)
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            head = " (head)" if "node:__internal_head__" in node["Resources"] else ""
            name = f"node {node['NodeManagerAddress']}:{node['NodeManagerPort']}{head}"
            asked[name] = (task.options(scheduling_strategy=strategy).remote(asdict(places)), time.time())
    found = {name: _answer(reference, sent) for name, (reference, sent) in asked.items()}
    if probe is not None:
        with suppress(StorageError):
            delete(probe)
    return {"driver": [unwritable], **found} if unwritable else found


def _probe(out: str | None) -> tuple[str | None, Check | None]:
    """A file for every node to find, or the reason why there is none."""
    if out is None:
        return None, None
    probe = join(absolute(out), f".sr3-doctor-{secrets.token_hex(4)}")
    try:
        write_atomic(probe, b"sr3 doctor")
    except StorageError as error:
        return None, Check("out", "fail", str(error), "give the driver permission to write there")
    return probe, None


def _examine_node(places: dict) -> tuple[list[dict], float]:
    checks = [asdict(check) for check in examine(Places(**places))]
    return checks, time.time()


def _answer(reference: object, sent: float) -> list[Check]:
    import ray
    import ray.exceptions

    try:
        checks, clock = ray.get(reference, timeout=NODE_SECONDS)  # type: ignore[call-overload]
    except (ray.exceptions.GetTimeoutError, ray.exceptions.RayError) as error:
        reason = str(error).splitlines()[0]
        return [
            Check(
                "node",
                "fail",
                f"no answer: {reason}",
                "read the node's log: it has left the cluster, or its image lacks sr3",
            )
        ]
    return [*(Check(**check) for check in checks), check_skew(clock, sent, time.time())]


def check_skew(clock: float, sent: float, received: float) -> Check:
    """Compare a node's clock with the driver's; the time between sending and receiving is not skew.

    Args:
        clock: the node's, when it answered, seconds.
        sent: the driver's, when it asked.
        received: the driver's, when it had the answer.
    """
    skew = max(sent - clock, clock - received, 0.0)
    states: list[tuple[float, State]] = [(SKEW_FAIL_SECONDS, "fail"), (SKEW_WARN_SECONDS, "warn")]
    for limit, state in states:
        if skew > limit:
            return Check("clock skew", state, f"{skew:.0f} s from the driver's", "run chrony or ntpd on every node")
    return Check("clock skew", "ok", f"within {max(skew, SKEW_WARN_SECONDS):.0f} s of the driver's")


def describe(found: dict[str, list[Check]]) -> str:
    """All findings by machine, and the numbers of failures and warnings."""
    lines = []
    for machine, checks in found.items():
        lines += [f"{machine}:", *(f"  {check.line()}" for check in checks)]
    every = [check for checks in found.values() for check in checks]
    failed, warned = (sum(check.state == state for check in every) for state in ("fail", "warn"))
    return "\n".join([*lines, f"{len(every)} checks, {failed} failed, {warned} warnings"])


def has_failed(found: dict[str, list[Check]]) -> bool:
    """Whether any check failed."""
    return any(check.state == "fail" for checks in found.values() for check in checks)
