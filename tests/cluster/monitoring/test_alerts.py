"""cluster/monitoring: the alert rules on time series of their own, by promtool; the names in the dashboard."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.runtime.exported_metrics import METRICS, PREPARATION

MONITORING = Path(__file__).resolve().parents[3] / "cluster" / "monitoring"
RULES = MONITORING / "alerts.yaml"
TRAINS = 'run="faces", stage="64-256"'
NAMES = [rule["alert"] for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]]
STEADY = {
    f'ray_sr3_train_step{{{TRAINS}, rank="0"}}': "0+10x480",
    f'ray_sr3_train_num_steps{{{TRAINS}, rank="0"}}': "1000000x480",
    f'ray_sr3_train_data_wait_ratio{{{TRAINS}, rank="0"}}': "0.02x480",
    f'ray_sr3_train_loss{{{TRAINS}, rank="0"}}': "0.3x480",
    f'ray_sr3_train_start_time_seconds{{{TRAINS}, rank="0", WorkerId="a"}}': "0x480",
    f'ray_sr3_train_checkpoint_time_seconds{{{TRAINS}, rank="0"}}': "0+30x480",
    'ray_sr3_prepare_images{out="data"}': "1000x480",
    'ray_sr3_prepare_rejects{out="data"}': "3x480",
}
"""Four hours of a training and a preparation that nobody has to be called for, a value every half minute."""
TROUBLE: dict[str, dict[str, str]] = {
    "Sr3DataStall": {f'ray_sr3_train_data_wait_ratio{{{TRAINS}, rank="1"}}': "0.6x480"},
    "Sr3NoProgress": {f'ray_sr3_train_step{{{TRAINS}, rank="0"}}': "0+10x300 3000x180"},
    "Sr3CheckpointTooOld": {f'ray_sr3_train_checkpoint_time_seconds{{{TRAINS}, rank="0"}}': "0x480"},
    "Sr3RepeatedFailures": {
        f'ray_sr3_train_start_time_seconds{{{TRAINS}, rank="0", WorkerId="{worker}"}}': f"_x{400 + 10 * i} {i}x20"
        for i, worker in enumerate("bcd")
    },
    "Sr3LossNotFinite": {f'ray_sr3_train_loss{{{TRAINS}, rank="0"}}': " ".join(["NaN"] * 480)},
    "Sr3ManyRejects": {'ray_sr3_prepare_rejects{out="data"}': "200x480"},
}


def firing(series: dict[str, str], folder: Path) -> set[str]:
    """The alerts that fire at the end, by `promtool test rules`: it expects none, and says what it got."""
    if shutil.which("promtool") is None:
        pytest.skip("Prometheus is not installed")
    shutil.copy(RULES, folder / "alerts.yaml")
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    test = {
        "interval": "30s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": query, "eval_time": "210m", "exp_samples": []}],
    }
    content = {"rule_files": ["alerts.yaml"], "evaluation_interval": "30s", "tests": [test]}
    (folder / "test.yaml").write_text(json.dumps(content))
    done = subprocess.run(["promtool", "test", "rules", "test.yaml"], cwd=folder, capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0 or "got:" in output, output
    return set(re.findall(r'alertname=\\?"(\w+)', output.partition("got:")[2]))


def test_nobody_is_called_for_a_steady_training(tmp_path):
    assert firing(STEADY, tmp_path) == set()


@pytest.mark.parametrize("name", NAMES)
def test_each_alert_fires_for_its_trouble_and_alone(name, tmp_path):
    assert firing({**STEADY, **TROUBLE[name]}, tmp_path) == {name}


def test_a_training_that_is_done_is_no_stall(tmp_path):
    ended = {
        f'ray_sr3_train_step{{{TRAINS}, rank="0"}}': "1000000x480",
        f'ray_sr3_train_num_steps{{{TRAINS}, rank="0"}}': "1000000x480",
    }
    assert firing({**STEADY, **ended}, tmp_path) == set()


def queries() -> list[str]:
    dashboard: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def test_rules_and_dashboard_name_what_is_exported_and_the_dashboard_shows_it_all():
    shown = set(re.findall(r"ray_(sr3_\w+)", "\n".join(queries())))
    asked = set(re.findall(r"ray_(sr3_\w+)", RULES.read_text()))
    assert shown | asked <= METRICS.keys()
    assert METRICS.keys() - shown <= {"sr3_prepare_images_planned"}
    assert all(re.match(r"sr3_(prepare|train)_[a-z_]+$", name) for name in METRICS)
    assert PREPARATION.keys() & shown


def test_each_alert_says_what_to_do():
    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        assert rule["annotations"].keys() == {"summary", "remedy"}
