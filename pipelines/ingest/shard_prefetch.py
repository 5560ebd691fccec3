"""Fetching shards into the cache before a lane comes to them."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from pipelines.ingest.decoding import FetchJob
from pipelines.ingest.sample_order import SampleOrder
from pipelines.shards.manifest import ShardEntry
from sr3core.errors import Sr3Error

log = logging.getLogger(__name__)


class ShardPrefetch:
    """Fetches, for each of a worker's lanes, the shards of its block and of its next one.

    A shard that cannot be fetched is no error: its records are then read from the bucket. The first one is reported.

    Args:
        order: the order of samples.
        lanes: the worker's.
        shards: of the split.
        submit: starts a download in the background.
    """

    def __init__(
        self,
        order: SampleOrder,
        lanes: Sequence[int],
        shards: tuple[ShardEntry, ...],
        submit: Callable[[FetchJob], Future[None]],
    ) -> None:
        self._order, self._shards, self._submit = order, shards, submit
        self._ends = dict.fromkeys(lanes, 0)
        self._started = self._warned = False

    def advance(self, step: int) -> None:
        """Fetch what the lanes that are in another block at `step` than before will need next."""
        count = step * self._order.samples_per_lane
        changed = [lane for lane, end in self._ends.items() if count >= end]
        coming: list[int] = []
        for lane in changed:
            block, self._ends[lane] = self._order.block(lane, count)
            following, _ = self._order.block(lane, self._ends[lane])
            if not self._started:
                self._fetch(self._order.shards_in(block))
            coming += self._order.shards_in(following)
        self._fetch(coming)
        self._started = True

    def _fetch(self, numbers: list[int]) -> None:
        for number in dict.fromkeys(numbers):
            self._submit(FetchJob(self._shards[number])).add_done_callback(self._look)

    def _look(self, download: Future[None]) -> None:
        error = None if download.cancelled() else download.exception()
        if isinstance(error, Sr3Error) and not self._warned:
            self._warned = True
            log.warning("%s; its records, and those of other such shards, are read one by one from the bucket", error)
