"""What a run's training has cost, by the hours of the cluster's nodes, and the limit at which it ends."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.runs.run_folder import write_atomic
from pipelines.storage.versioned_json import read_object
from sr3core import strict_json
from sr3core.config import from_dict
from sr3core.errors import ConfigError, OverBudgetError

_LONGEST_GAP = 60.0
"""Seconds between two looks that count as training; a machine that slept was not billed by this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """What nodes cost, and how much may be spent."""

    gpu_dollars: float = 0.0
    """Price of a GPU for an hour, with its share of the node: a node of 8 at 32 dollars has 4 each."""
    cpu_dollars: float = 0.0
    """Price of a CPU for an hour, on nodes without GPUs."""
    max_dollars: float | None = None
    """End the training, with a checkpoint and exit status 3, when the run has cost as much; None for no limit."""

    def __post_init__(self) -> None:
        if self.gpu_dollars < 0 or self.cpu_dollars < 0:
            raise ConfigError("gpu-dollars, cpu-dollars: a price is at least 0")
        if self.max_dollars is not None and not (self.gpu_dollars or self.cpu_dollars):
            raise ConfigError(
                "max-dollars: it needs prices; give --gpu-dollars, and --cpu-dollars for nodes without GPUs"
            )
        if self.max_dollars is not None and self.max_dollars <= 0:
            raise ConfigError("max-dollars: it is more than 0")

    def an_hour(self, nodes: Sequence[dict[str, Any]]) -> float:
        """Dollars an hour of Ray's nodes (`ray.nodes()`) that are alive, busy or not: they are billed alike."""
        resources = [node["Resources"] for node in nodes if node["Alive"]]
        return sum(
            node["GPU"] * self.gpu_dollars if node.get("GPU") else node.get("CPU", 0) * self.cpu_dollars
            for node in resources
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run has cost so far."""

    dollars: float
    an_hour: float
    """Of the nodes at the last look."""

    def line(self, seconds_left: float | None) -> str:
        """`cost: 12.40 dollars so far, 98.32 an hour; about 49.16 to come`."""
        to_come = "" if seconds_left is None else f"; about {self.an_hour * seconds_left / 3600:.2f} to come"
        return f"cost: {self.dollars:.2f} dollars so far, {self.an_hour:.2f} an hour{to_come}"


class Spending:
    """Adds up a run's cost while it trains, beyond restarts of the command, in RUN/cost.json."""

    def __init__(self, folder: Path, prices: Prices) -> None:
        """Go on from what the run has cost before.

        Args:
            folder: of the run.
            prices: of its nodes.
        """
        before = read_cost(folder)
        self._folder, self._prices = folder, prices
        self._dollars, self._since = before.dollars if before else 0.0, time.monotonic()

    def look(self) -> None:
        """Count the time since the last look; call it every few seconds.

        Raises:
            OverBudgetError: the limit is reached.
        """
        if not (self._prices.gpu_dollars or self._prices.cpu_dollars):
            return
        import ray

        now = time.monotonic()
        an_hour = self._prices.an_hour(ray.nodes())
        self._dollars += an_hour * min(now - self._since, _LONGEST_GAP) / 3600
        self._since = now
        write_atomic(self._folder / "cost.json", strict_json.dumps(asdict(Cost(self._dollars, an_hour))))
        limit = self._prices.max_dollars
        if limit is not None and self._dollars >= limit:
            raise OverBudgetError(
                f"the run has cost {self._dollars:.2f} dollars, and may cost {limit:.2f} (--max-dollars); the same"
                " command with a higher limit resumes. Nodes that stay are still billed: end them by `ray down`"
            )


def read_cost(folder: Path) -> Cost | None:
    """What a run has cost; None if nobody gave prices, or the file is damaged."""
    found = read_object(folder / "cost.json")
    try:
        return from_dict(Cost, found) if found else None
    except ConfigError:
        return None
