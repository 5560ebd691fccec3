"""Requests in threads: the results in order, an error at its place, and no more at once than are taken."""

import itertools

import pytest

from pipelines.runtime.threads import NUM_REQUESTS, map_in_threads


def test_results_are_in_order() -> None:
    assert list(map_in_threads(lambda number: number * number, range(500))) == [n * n for n in range(500)]
    assert list(map_in_threads(str, [])) == []


def test_results_that_nobody_takes_are_few() -> None:
    begun = itertools.count()
    found = map_in_threads(lambda _: next(begun), itertools.count())
    for _ in range(10):
        next(found)
    assert next(begun) <= 2 * NUM_REQUESTS + 10


def test_an_error_is_raised_at_its_place() -> None:
    found = map_in_threads(lambda number: 1 // (number - 3), range(1000))
    assert list(itertools.islice(found, 3)) == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError):
        next(found)
