"""Fetching shards into the cache before a lane comes to them."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from pipelines.ingest.decoding import FetchJob
from pipelines.ingest.mixed_order import MixedOrder
from pipelines.shards.manifest import ShardEntry
from sr3core.errors import Sr3Error

log = logging.getLogger(__name__)


class ShardPrefetch:
    """Fetches, for each of a worker's lanes, the shards of its block and of its next one, in each preparation.

    A shard that cannot be fetched is no error: its records are then read from the bucket. The first one is reported.

    Args:
        order: the order of samples.
        lanes: the worker's.
        shards: of the split, by preparations.
        submit: starts a download in the background.
    """

    def __init__(
        self,
        order: MixedOrder,
        lanes: Sequence[int],
        shards: Sequence[tuple[ShardEntry, ...]],
        submit: Callable[[FetchJob], Future[None]],
    ) -> None:
        self._order, self._lanes, self._shards, self._submit = order, np.array(lanes), shards, submit
        self._ends = np.zeros((len(self._lanes), len(shards)), np.int64)  # of the blocks, in samples of the lane
        self._started = self._warned = False

    def advance(self, step: int) -> None:
        """Fetch what the lanes that are in another block at `step` than before will need next."""
        rows = np.full_like(self._lanes, step * self._order.samples_per_lane)
        counts = self._order.counts_before(self._lanes, rows)
        coming: list[tuple[int, int]] = []
        for place, part in np.argwhere(counts >= self._ends).tolist():
            order, lane = self._order.orders[part], int(self._lanes[place])
            block, end = order.block(lane, int(counts[place, part]))
            following, _ = order.block(lane, end)
            self._ends[place, part] = end
            if not self._started:
                self._fetch([(part, number) for number in order.shards_in(block)])
            coming += [(part, number) for number in order.shards_in(following)]
        self._fetch(coming)
        self._started = True

    def _fetch(self, places: list[tuple[int, int]]) -> None:
        for part, number in dict.fromkeys(places):
            self._submit(FetchJob(self._shards[part][number], part)).add_done_callback(self._look)

    def _look(self, download: Future[None]) -> None:
        error = None if download.cancelled() else download.exception()
        if isinstance(error, Sr3Error) and not self._warned:
            self._warned = True
            log.warning("%s; its records, and those of other such shards, are read one by one from the bucket", error)
