"""The cost of a run by node hours, across restarts, and its limit."""

import pytest
import ray

from pipelines.training.spending import Cost, Prices, Spending, read_cost
from sr3core.errors import ConfigError, OverBudgetError

NODES = [
    {"Alive": True, "Resources": {"CPU": 192.0, "GPU": 8.0}},
    {"Alive": True, "Resources": {"CPU": 32.0}},
    {"Alive": True, "Resources": {"memory": 1.0}},  # a head without CPUs
    {"Alive": False, "Resources": {"GPU": 8.0}},
]


def test_a_gpu_pays_for_its_node_and_nodes_that_are_gone_cost_nothing():
    assert Prices(gpu_dollars=12.5, cpu_dollars=0.05).an_hour(NODES) == pytest.approx(8 * 12.5 + 32 * 0.05)


def test_the_cost_goes_on_after_a_restart_and_ends_at_its_limit(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("pipelines.training.spending.time.monotonic", lambda: now[0])
    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    prices = Prices(gpu_dollars=45.0, max_dollars=10.0)  # a tenth of a dollar a second
    first = Spending(tmp_path, prices)
    for _ in range(6):
        now[0] += 10
        first.look()
    assert read_cost(tmp_path).dollars == pytest.approx(6.0)
    again = Spending(tmp_path, prices)
    now[0] += 30
    again.look()
    now[0] += 20
    with pytest.raises(OverBudgetError, match=r"cost 11\.00 dollars, and may cost 10\.00 .*resumes"):
        again.look()
    cost = read_cost(tmp_path)
    assert (cost.dollars, cost.an_hour) == (pytest.approx(11.0), 360.0)


def test_a_machine_that_slept_is_not_billed_for_it(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pipelines.training.spending.time.monotonic", lambda: now[0])
    monkeypatch.setattr(ray, "nodes", lambda: NODES)
    spending = Spending(tmp_path, Prices(gpu_dollars=45.0))
    now[0] = 10 * 3600
    spending.look()
    assert read_cost(tmp_path).dollars == pytest.approx(6.0)


def test_without_prices_nothing_is_written(tmp_path):
    Spending(tmp_path, Prices()).look()
    assert read_cost(tmp_path) is None


@pytest.mark.parametrize(
    "values", [{"max_dollars": 5.0}, {"gpu_dollars": -1.0}, {"gpu_dollars": 1.0, "max_dollars": 0}]
)
def test_a_limit_without_prices_and_what_is_no_price_are_refused(values):
    with pytest.raises(ConfigError, match="dollars"):
        Prices(**values)


def test_the_line_says_what_is_to_come():
    assert Cost(12.4, 98.32).line(1800) == "cost: 12.40 dollars so far, 98.32 an hour; about 49.16 to come"
    assert Cost(12.4, 98.32).line(None).endswith("98.32 an hour")
