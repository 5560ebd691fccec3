"""The same function for many items: in Ray tasks where Ray runs, here where it does not."""

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from pipelines.runtime.progress_display import Counted, print_progress

A = TypeVar("A")
B = TypeVar("B")

_TASKS_PER_CPU = 2
"""Tasks under way for each CPU of the cluster: one works, one waits with its item at hand."""


def map_in_tasks(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Yield the result for each item, in their order; a window of items and results is in memory at once.

    A single item is worked on here, as all are where Ray does not run.

    Args:
        function: of a module, or a partial of one; it must be the same wherever it runs.
        items: each a few megabytes at most.

    Raises:
        Exception: what the function raises.
    """
    remaining = iter(items)
    start = list(itertools.islice(remaining, 2))
    ray: Any = sys.modules.get("ray")
    if len(start) < 2 or ray is None or not ray.is_initialized():
        yield from map(function, itertools.chain(start, remaining))
        return
    shared, task = ray.put(function), ray.remote(_call)
    window = _TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    pending: deque[Any] = deque()
    for item in itertools.chain(start, remaining):
        pending.append(task.remote(shared, item))
        if len(pending) == window:
            yield _result(ray, pending.popleft())
    while pending:
        yield _result(ray, pending.popleft())


def watch(jobs: Sequence[Any], title: str, unit: str) -> None:
    """Show the progress of Ray's tasks until all have ended, well or not.

    Args:
        jobs: their references.
        title: what they do, in a few words.
        unit: what each of them makes, in the plural.
    """
    import ray

    progress, display, left = Counted(title, len(jobs), unit), print_progress(), list(jobs)
    display(progress)
    while left:
        ended, left = ray.wait(left, num_returns=1, fetch_local=False)
        progress.done += len(ended)
        display(progress)


def _call(function: Callable[[A], B], item: A) -> B:
    return function(item)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
