"""Many short requests at once: a bucket answers each after tens of milliseconds, and hundreds a second."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")

NUM_REQUESTS = 32
"""Requests under way at once; the connections that pipelines.storage.buckets.s3 keeps open are more."""


def map_in_threads(function: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Yield the result for each item, in their order; an error stops what has not begun, and is raised."""
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        yield from pool.map(function, items)
