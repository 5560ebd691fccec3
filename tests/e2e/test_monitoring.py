"""A real Prometheus scrapes a real head on which a training runs: the dashboard shows it, and an alert fires."""

import json
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT, clean_environment
from tests.processes import wait_for
from tests.ray_head import free_port, ray_head

MONITORING = ROOT / "cluster" / "monitoring"
ONLY_ON_GPUS = "Model FLOP utilisation"


class Prometheus:
    """Its HTTP API."""

    def __init__(self, port: int) -> None:
        self._root = f"http://127.0.0.1:{port}/api/v1"

    def ask(self, path: str, **parameters: str) -> Any:
        with urllib.request.urlopen(f"{self._root}/{path}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return self.ask("query", query=expression)["result"]

    def value(self, expression: str) -> float:
        """Of a query with one result; 0 while there is none, since a busy head may miss a scrape."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0


@contextmanager
def prometheus(folder: Path, discovery: Path) -> Iterator[Prometheus]:
    """A Prometheus with the shipped rules, which wait for nothing and find every checkpoint too old."""
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed")
    rules = re.sub(r"for: \w+", "for: 0s", (MONITORING / "alerts.yaml").read_text())
    (folder / "alerts.yaml").write_text(rules.replace("> 2 * 3600", "> -1"))
    settings = (MONITORING / "prometheus.yaml").read_text().replace("15s", "1s")
    settings = settings.replace("/tmp/ray/prom_metrics_service_discovery.json", str(discovery))
    (folder / "prometheus.yaml").write_text(settings)
    port = free_port()
    command = ["prometheus", "--config.file=prometheus.yaml", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [*command, f"--storage.tsdb.path={folder}/series"], cwd=folder, stdout=log, stderr=log
        )
    server = Prometheus(port)

    def answers() -> bool:
        assert process.poll() is None, (folder / "prometheus.log").read_text()
        try:
            return bool(server.ask("status/buildinfo"))
        except OSError:
            return False

    try:
        wait_for(answers)
        yield server
    finally:
        process.kill()
        process.wait()


@contextmanager
def training(gcs: int, photos: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    script = ROOT / "tests" / "e2e" / "exporting_training.py"
    environment = {**clean_environment(), "PYTHONPATH": str(ROOT)}
    with (folder / "training.log").open("w") as log:
        command = [sys.executable, str(script), f"127.0.0.1:{gcs}", str(photos), str(folder)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_dashboard_shows_a_training_and_an_alert_fires(photos, tmp_path):
    gcs = free_port()
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = {
        panel["title"]: panel["targets"][0]["expr"].replace("$run", ".*")
        for panel in dashboard["panels"]
        if panel["title"] != ONLY_ON_GPUS
    }
    options = ("--num-cpus=2", f"--metrics-export-port={free_port()}")
    discovery = Path(f"/tmp/sr3-{gcs}/prom_metrics_service_discovery.json")
    interval = {"RAY_metrics_report_interval_ms": "1000", "RAY_PROMETHEUS_DISCOVERY_INTERVAL": "1"}
    with (
        ray_head(tmp_path, *options, gcs_port=gcs, **interval),
        training(gcs, photos, tmp_path) as trains,
        prometheus(tmp_path, discovery) as server,
    ):
        shown: dict[str, Any] = {}

        def answered() -> bool:
            assert trains.poll() is None, (tmp_path / "training.log").read_text()
            shown.update({title: found for title, query in panels.items() if (found := server.query(query))})
            return shown.keys() == panels.keys()

        wait_for(answered)
        samples = (
            "count_over_time(ray_sr3_train_{}[10m])"  # the number of steps is set once, the step every two seconds
        )
        wait_for(lambda: server.value(samples.format("step")) >= 40, lambda: trains.poll() is None)
        assert server.value(samples.format("num_steps")) >= 20, "a number that is set once stays"
        first = wait_for(lambda: server.value("max(ray_sr3_train_step)"))
        wait_for(lambda: server.value("max(ray_sr3_train_step)") > first, lambda: trains.poll() is None)
        wait_for(
            lambda: "Sr3CheckpointTooOld" in {alert["labels"]["alertname"] for alert in server.ask("alerts")["alerts"]}
        )
        (alert,) = (a for a in server.ask("alerts")["alerts"] if a["labels"]["alertname"] == "Sr3CheckpointTooOld")
    assert alert["state"] == "firing"
    assert alert["labels"]["run"] == "watched"
    assert alert["labels"]["stage"] == "8-16"
    assert "the newest checkpoint of watched 8-16 is" in alert["annotations"]["summary"]
    assert 0 <= float(shown["Data wait"][0]["value"][1]) <= 1
    assert shown["Own seconds a step, each worker"][0]["metric"]["rank"] == "0"
    assert shown["Preparation: rejects"][0]["metric"]["out"] == "shards"
