"""A training that has cost --max-dollars saves a checkpoint and ends, and resumes with a higher limit."""

from dataclasses import dataclass
from typing import Any

import pytest

from pipelines.runs.run_folder import Run
from pipelines.training.checkpoints import steps_done
from pipelines.training.parallel_stages import train_run
from pipelines.training.pulse import read_pulse
from pipelines.training.spending import Prices, read_cost
from sr3core.errors import OverBudgetError
from tests.faults.fault_runs import start
from tests.preparing import prepared


@dataclass(frozen=True, kw_only=True)
class DearOnceItTrains(Prices):
    """Nodes that cost nothing until a step is done, and a fortune from then on."""

    run: Run

    def an_hour(self, nodes: Any) -> float:
        pulse = read_pulse(self.run.stages[0].path)
        return 1e9 if pulse is not None and pulse.step >= 1 else 0.0


def test_what_is_done_is_saved_when_the_money_is_spent(ray_session, photos, tmp_path):
    data = prepared(photos, tmp_path, 40, "8-16")
    run = start(tmp_path / "run", data, num_steps=1_000_000, checkpoint_every=1_000_000, validation_every=1_000_000)
    with pytest.raises(OverBudgetError, match="the same command with a higher limit resumes"):
        train_run(run, (), DearOnceItTrains(run=run, cpu_dollars=1.0, max_dollars=5.0))
    (stage,) = run.stages
    assert steps_done(stage) >= 1
    assert read_cost(run.path).dollars >= 5.0
