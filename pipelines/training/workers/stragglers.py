"""Which worker the others wait for. They all take a step in the same time, since each waits for the slowest one.

What tells them apart is the time that no other worker can prolong: waiting for data, and the forward pass.
"""

import logging
import time
from collections.abc import Callable
from contextlib import contextmanager
from statistics import median_low
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipelines.training.worker_group import Team

if TYPE_CHECKING:
    from collections.abc import Iterator

FACTOR = 1.5
"""A worker is a straggler when its own time is this many times the median worker's."""
INTERVALS = 3
"""In so many intervals between metrics in a row, which chance rarely does."""
log = logging.getLogger(__name__)


class OwnTimes:
    """One worker's own seconds since they were last compared.

    Args:
        team: the workers.
        name: the stage's.
    """

    def __init__(self, team: Team, name: str) -> None:
        self._team, self._name = team, name
        self._waited = self._computed = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._suspect, self._seen = -1, 0
        self.a_step = (0.0, 0.0)
        """This worker's seconds a step at the last comparison: waiting for data, and of its own with that."""

    @contextmanager
    def waiting(self) -> "Iterator[None]":
        """Context whose duration counts as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def timed(self, forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The same network; the time of its forward passes counts."""

        def call(*inputs: Any, **named: Any) -> Tensor:
            with self._on_gpu() if self._team.device.type == "cuda" else self._on_cpu():
                return forward(*inputs, **named)

        return call

    @contextmanager
    def _on_cpu(self) -> "Iterator[None]":
        start = time.perf_counter()
        yield
        self._computed += time.perf_counter() - start

    @contextmanager
    def _on_gpu(self) -> "Iterator[None]":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        yield
        end.record()
        self._events.append((start, end))

    def compare(self, steps: int, seconds: float) -> float:
        """Compare the workers' own times, all of them together, and begin anew.

        The device must have finished the steps.

        Args:
            steps: training steps since the last call.
            seconds: of wall-clock time since then.

        Returns:
            The largest fraction of that time which a worker waited for data.
        """
        self._computed += sum(start.elapsed_time(end) for start, end in self._events) / 1000
        found = self._team.gather((self._waited, self._computed))
        self.a_step = (self._waited / steps, (self._waited + self._computed) / steps)
        self._waited, self._computed, self._events = 0.0, 0.0, []
        self._look([(waited / steps, (waited + computed) / steps) for waited, computed in found])
        return max(waited for waited, _ in found) / seconds

    def _look(self, per_step: list[tuple[float, float]]) -> None:
        """Log a straggler once, from worker 0; per_step holds seconds of waiting and of its own, a worker."""
        own = [total for _, total in per_step]
        slowest, typical = max(range(len(own)), key=own.__getitem__), median_low(own)
        lags = own[slowest] > FACTOR * typical
        self._seen = self._seen + 1 if lags and slowest == self._suspect else int(lags)
        self._suspect = slowest if lags else -1
        if self._seen == INTERVALS and self._team.rank == 0:
            log.warning(
                "%s: the other workers wait for worker %d%s: its own part of a step takes %.2g s, %.2g of them waiting"
                " for data; the median worker's takes %.2g s",
                *(self._name, slowest, self._team.host_of(slowest), own[slowest], per_step[slowest][0], typical),
            )
