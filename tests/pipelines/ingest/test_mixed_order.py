"""Mixed preparations: exact shares of every beginning, each walked in its own order, at any number of workers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ingest.mixed_order import MixedOrder, pattern_of
from pipelines.ingest.sample_order import SampleOrder
from tests.pipelines.ingest.test_sample_order import orders


@st.composite
def mixtures(draw: st.DrawFn) -> MixedOrder:
    first = draw(orders())
    others = [
        SampleOrder(
            (*draw(st.lists(st.integers(0, 9), max_size=4)), first.num_lanes),
            first.batch_size,
            first.num_lanes,
            first.window,
            first.seed,
        )
        for _ in range(draw(st.integers(0, 3)))
    ]
    shares = draw(st.lists(st.integers(1, 40), min_size=1 + len(others), max_size=1 + len(others)))
    return MixedOrder((first, *others), tuple(shares))


def parts_of(order: MixedOrder, places: list) -> np.ndarray:
    """Number of the preparation that each place is in."""
    return np.searchsorted(order.first_shards, [place.shard for place in places], side="right") - 1


@given(shares=st.lists(st.integers(1, 99), min_size=1, max_size=7))
def test_every_beginning_of_the_pattern_has_exact_shares(shares: list[int]) -> None:
    pattern, period = pattern_of(shares), sum(shares)
    assert np.bincount(pattern, minlength=len(shares)).tolist() == shares
    for part, share in enumerate(shares):
        counts = np.cumsum(pattern == part)
        exact = [Fraction(share * (number + 1), period) for number in range(period)]
        assert all(abs(int(count) - wanted) < 1 for count, wanted in zip(counts, exact, strict=True))


@given(order=orders(), step=st.integers(0, 10**7))
def test_a_mixture_of_one_is_that_order(order: SampleOrder, step: int) -> None:
    mixed = MixedOrder((order,))
    assert mixed.batch(step) == order.batch(step)
    assert mixed.batch(step, order.num_lanes - 1, order.num_lanes) == order.batch(
        step, order.num_lanes - 1, order.num_lanes
    )
    assert mixed.lanes_of(0, 1) == order.lanes_of(0, 1)


@given(order=mixtures(), steps=st.integers(1, 60))
@settings(deadline=None)
def test_after_every_step_each_preparation_has_had_its_share_to_within_one_sample(
    order: MixedOrder, steps: int
) -> None:
    had = np.zeros(len(order.shares), np.int64)
    for step in range(steps):
        had += np.bincount(parts_of(order, order.batch(step)), minlength=len(had))
        for part, share in enumerate(order.shares):
            assert abs(int(had[part]) - Fraction(share * int(had.sum()), sum(order.shares))) < 1
    lanes = np.arange(order.orders[0].num_lanes)
    counts = order.counts_before(lanes, np.full_like(lanes, steps * order.samples_per_lane))
    assert counts.sum(axis=0).tolist() == had.tolist()


@given(order=mixtures(), step=st.integers(0, 10**7))
@settings(deadline=None)
def test_the_global_batch_is_the_same_at_every_world_size(order: MixedOrder, step: int) -> None:
    whole = order.batch(step)
    assert [place.position for place in whole] == list(range(order.orders[0].batch_size))
    world_size = 1
    while world_size <= order.orders[0].num_lanes:
        parts = [order.batch(step, rank, world_size) for rank in range(world_size)]
        assert sorted((place for part in parts for place in part), key=lambda place: place.position) == whole
        world_size *= 2


@given(order=mixtures(), steps=st.integers(1, 30))
@settings(deadline=None)
def test_each_lane_walks_each_preparation_in_its_own_order_without_a_gap(order: MixedOrder, steps: int) -> None:
    per_lane = order.samples_per_lane
    walked: dict[tuple[int, int], list] = {}
    for step in range(steps):
        places = order.batch(step)
        for place, part in zip(places, parts_of(order, places).tolist(), strict=True):
            found = (place.shard - order.first_shards[part], place.index)
            walked.setdefault((part, place.position // per_lane), []).append(found)
    for (part, lane), found in walked.items():
        shards, indices = order.orders[part].samples(np.full(len(found), lane), np.arange(len(found)))
        assert list(zip(shards.tolist(), indices.tolist(), strict=True)) == found


@pytest.mark.parametrize("shares", [(1, 1), (7, 3), (1, 3), (500, 501), (9999, 6385)])
def test_all_lanes_walk_a_preparation_at_nearly_the_same_pace(shares: tuple[int, ...]) -> None:
    """Or else a lane would be epochs ahead of another, and some samples be seen more often than others."""
    orders = tuple(SampleOrder((640, 640), 256, 64, 16, 0) for _ in shares)
    order, lanes = MixedOrder(orders, shares), np.arange(64)
    for row in (100, 1000, 12345, 10**6):
        counts = order.counts_before(lanes, np.full_like(lanes, row))
        assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 20


def test_at_step_a_billion_a_batch_is_found_as_fast_as_at_step_one() -> None:
    """By its counts: nothing is walked through."""
    order = MixedOrder(tuple(SampleOrder((50, 60), 64, 16, 8, 0) for _ in range(2)), (2, 1))
    lanes = np.arange(16)
    counts = order.counts_before(lanes, np.full_like(lanes, 3 * 10**9))
    assert counts.sum(axis=1).tolist() == [3 * 10**9] * 16
    assert counts.sum(axis=0).tolist() == [32 * 10**9, 16 * 10**9]
