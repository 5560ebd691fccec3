"""Many short requests at once: a bucket answers each after tens of milliseconds, and hundreds a second."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

NUM_REQUESTS = 32
"""Requests under way at once; the connections that pipelines.storage.buckets.s3 keeps open are more."""


def map_in_threads(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Yield the result for each item, in their order; an error stops what has not begun, and is raised.

    Results wait for who takes them: no more than twice as many as there are threads.
    """
    pending: deque[Future[B]] = deque()
    pool = ThreadPoolExecutor(NUM_REQUESTS)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) == 2 * NUM_REQUESTS:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
