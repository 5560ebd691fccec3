"""Waiting until no node is gone unnoticed.

Ray takes a lost node for alive until several health checks have failed, 15 s or more by its defaults. What is started
meanwhile may be placed there, and fails at once: retries that follow one another are all spent on the same lost node.
"""

import time
from typing import Any

ANSWER_SECONDS = 60.0
"""Longest wait. A node that answers no task for so long, but passes Ray's health checks, is busy rather than gone."""


def wait_for_live_nodes(seconds: float = ANSWER_SECONDS) -> bool:
    """Wait until every node that Ray takes for alive has run a task. Needs a running Ray.

    Args:
        seconds: the longest wait.

    Returns:
        Whether all have answered.
    """
    import ray

    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        nodes = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        jobs = [_probe(node) for node in nodes]
        ended, waiting = ray.wait(jobs, num_returns=len(jobs), timeout=min(left, 5.0))
        if not waiting and all(_answered(job) for job in ended):
            return True
        for job in waiting:
            ray.cancel(job)
        time.sleep(0.2)
    return False


def _probe(node: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy: Any = NodeAffinitySchedulingStrategy(node, soft=False)
    remote: Any = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(_nothing)
    return remote.remote()


def _nothing() -> None:
    """That a task runs at all is the answer."""


def _answered(job: Any) -> bool:
    import ray
    import ray.exceptions

    try:
        ray.get(job)
        return True
    except ray.exceptions.RayError:  # the node is gone, and Ray knows it by now or will soon
        return False
