"""Rows through Ray Data, a task for each, when a row is minutes of work and its process may die over it."""

import itertools
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

log = logging.getLogger(__name__)

Row = dict[str, Any]

_MIN_WINDOW = 1000
_ROWS_PER_CPU = 16
"""Rows of a window for each CPU: at its end, at most a row's time is idle."""


def map_rows(
    function: Callable[[Row], Row], rows: Iterable[Row], memory: int = 0, limit: int | None = None
) -> Iterator[Row]:
    """Yield what a function makes of each row, as tasks end; nothing for a row whose process or node is lost.

    Ray Data keeps about 0.1 MB of each task in this process. So the rows go through it in windows of 1,000, or of 16 a
    CPU of the cluster where that is more.

    Args:
        function: of a module, or a partial of one; it raises nothing.
        rows: of columns that Arrow knows.
        memory: bytes that a task claims of its node.
        limit: tasks that run at once; None for as many as fit.
    """
    import ray
    import ray.exceptions

    remaining = iter(rows)
    while True:
        size = max(_MIN_WINDOW, _ROWS_PER_CPU * int(ray.cluster_resources().get("CPU", 1)))
        window = list(itertools.islice(remaining, size))
        if not window:
            return
        try:
            yield from _run(function, window, memory, limit)
        except ray.exceptions.ObjectLostError:
            log.warning("a node was lost with what its tasks had returned")


def _run(function: Callable[[Row], Row], rows: list[Row], memory: int, limit: int | None) -> Iterator[Row]:
    import ray.data

    # Without a bound all tasks wait in Ray's own queues, where a worker finds its next one in milliseconds. With one,
    # Ray Data hands out a task when it has seen another end, and looks for that ten times a second.
    with warnings.catch_warnings():
        # Ray means to name such arguments, but this one has no name yet.
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            function,
            num_cpus=1,
            memory=memory,
            compute=None if limit is None else ray.data.TaskPoolStrategy(min(limit, len(rows))),
            max_retries=0,  # by itself Ray Data starts a task again whose process died, without end
        )
    # Reserving half of the CPUs for an output that is one line a row would leave them idle.
    dataset.context.op_resource_reservation_enabled = False
    dataset.context.enable_progress_bars = False
    dataset.context.max_errored_blocks = -1  # a process that dies costs its own row, and no other
    logging.getLogger("ray.data._internal.execution.streaming_executor_state").setLevel(logging.CRITICAL)
    return iter(dataset.iter_rows())
