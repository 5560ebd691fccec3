"""The order of training samples from several preparations: they alternate in a fixed pattern.

Each preparation is walked in the order that SampleOrder gives it by itself. The pattern is a sequence of preparations
that repeats, in which every beginning of N samples holds each to within one of its exact share of N. Row c of the
training order is the c-th sample of every lane; the pattern fills the rows one after another, so that whatever steps
are done hold exact shares too. How many samples of a preparation a lane has had is a closed form of c: resuming needs
only the step. After each repetition the columns of a row move on by one lane; without that a pattern of two would give
some lanes one preparation alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import gcd

import numpy as np

from pipelines.ingest.sample_order import Place, SampleOrder


def pattern_of(shares: Sequence[int]) -> np.ndarray:
    """A sequence of sum(shares) numbers, number p shares[p] times, as evenly as can be; (period,) int.

    Of every beginning of N, p has its share of N to within less than one. The next one is always that whose turn must
    come first of those whose turn may come: deadline scheduling, which never fails here.
    """
    period, counts = sum(shares), [0] * len(shares)
    pattern = np.empty(period, np.int64)
    for slot in range(period):
        ready = (part for part, share in enumerate(shares) if counts[part] * period // share <= slot)
        chosen = min(ready, key=lambda part: -(-(counts[part] + 1) * period // shares[part]))
        pattern[slot] = chosen
        counts[chosen] += 1
    return pattern


@dataclass(frozen=True)
class MixedOrder:
    """The order in which a training run sees the samples of one preparation or of several."""

    orders: tuple[SampleOrder, ...]
    """The order of each preparation by itself; all of the same batch size and number of lanes."""
    shares: tuple[int, ...] = (1,)
    """Samples of each preparation in a period of the pattern."""

    @property
    def num_samples(self) -> int:
        """Samples of all preparations."""
        return sum(order.num_samples for order in self.orders)

    @property
    def samples_per_lane(self) -> int:
        """Samples that a global batch takes from each lane."""
        return self.orders[0].samples_per_lane

    def lanes_of(self, rank: int, world_size: int) -> range:
        """The lanes that a worker serves; see SampleOrder.

        Raises:
            ConfigError: there are more workers than lanes.
        """
        return self.orders[0].lanes_of(rank, world_size)

    def with_window(self, window: int) -> "MixedOrder":
        """The order with another shuffle window."""
        return replace(self, orders=tuple(replace(order, window=window) for order in self.orders))

    @cached_property
    def first_shards(self) -> tuple[int, ...]:
        """Number of each preparation's first shard, if the shards of all are counted through."""
        return tuple(np.cumsum([0, *(len(order.shard_sizes) for order in self.orders)])[:-1].tolist())

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> list[Place]:
        """The samples of a worker at a step, in order of their positions in the global batch.

        Shards are counted through all preparations.
        """
        lanes = np.array(self.lanes_of(rank, world_size))
        within = np.arange(self.samples_per_lane)
        rows = np.tile(step * self.samples_per_lane + within, len(lanes))
        positions = (lanes[:, None] * self.samples_per_lane + within).ravel()
        lanes = np.repeat(lanes, len(within))
        parts, counts = self.parts_at(lanes, rows), self.counts_before(lanes, rows)
        shards, indices = np.empty_like(rows), np.empty_like(rows)
        for part, (order, first) in enumerate(zip(self.orders, self.first_shards, strict=True)):
            mine = parts == part
            if mine.any():
                found, indices[mine] = order.samples(lanes[mine], counts[mine, part])
                shards[mine] = first + found
        return [Place(*row) for row in zip(positions.tolist(), shards.tolist(), indices.tolist(), strict=True)]

    def parts_at(self, lanes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Number of the preparation that lanes take a sample from in their rows; (N,) each."""
        turns, row = np.divmod(rows, self._num_rows)
        return self._parts[(lanes + turns) % self._num_lanes, row]

    def counts_before(self, lanes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Samples that lanes (N,) have taken from each preparation before their rows (N,); (N, preparations)."""
        turns, row = np.divmod(rows, self._num_rows)
        rounds, moved = np.divmod(turns, self._num_lanes)
        columns = lanes + moved
        done = rounds[:, None] * self._by_columns[self._num_lanes] + self._by_columns[columns] - self._by_columns[lanes]
        return done + self._before[columns % self._num_lanes, row]

    @property
    def _num_lanes(self) -> int:
        return self.orders[0].num_lanes

    @cached_property
    def _num_rows(self) -> int:
        """Rows after which the pattern begins at the start of a row again."""
        period = sum(self.shares)
        return period // gcd(period, self._num_lanes)

    @cached_property
    def _parts(self) -> np.ndarray:
        """Preparation in each column and row until the pattern repeats; (lanes, rows)."""
        slots = np.arange(self._num_lanes)[:, None] + self._num_lanes * np.arange(self._num_rows)
        return pattern_of(self.shares)[slots % sum(self.shares)]

    @cached_property
    def _before(self) -> np.ndarray:
        """Samples of each preparation above each row of a column, and in all of it; (lanes, rows + 1, preparations)."""
        chosen = self._parts[..., None] == np.arange(len(self.shares))
        return np.concatenate([np.zeros_like(chosen[:, :1], np.int64), np.cumsum(chosen, axis=1)], axis=1)

    @cached_property
    def _by_columns(self) -> np.ndarray:
        """Samples of each preparation in the columns before each one, twice around; (2 lanes + 1, preparations)."""
        columns = np.tile(self._before[:, -1], (2, 1))
        return np.concatenate([np.zeros_like(columns[:1]), np.cumsum(columns, axis=0)])
