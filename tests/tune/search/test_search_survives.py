"""A search whose process or trials are killed, on Ray Tune."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

from sr3core.config import from_dict
from sr3core.hyperparameters import NoiseScheduleConfig
from sr3core.networks.unet import UNet
from tests.commands import ROOT
from tests.tune.search.tiny_search import make_config
from tune.search.proposals.defaults import defaults
from tune.search.records.search_report import TrialRecord, find_searches
from tune.search.results.table import format_table
from tune.search.schedule_search import search

DRIVER = Path(__file__).with_name("search_driver.py")


def stopped_at(trial: int, run: Any, stop: signal.Signals) -> dict[Path, int]:
    """Search in a process that gets a signal when it has reported a trial; what it measured, and when."""
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), run.path, ray.get_runtime_context().gcs_address],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith(f"trial {trial}/"):
            break
    process.send_signal(stop)
    assert process.wait() != 0, "an interrupted search does not take what it has for the end"
    assert not find_searches(run.stage.path)
    return {path: path.stat().st_mtime_ns for path in run.stage.path.rglob("*.npz")}


def test_a_search_that_is_interrupted_and_then_killed_goes_on_where_it_was(tiny_run: Any, ray_session: None) -> None:
    interrupted = stopped_at(3, tiny_run, signal.SIGINT)
    measured = stopped_at(6, tiny_run, signal.SIGKILL)
    assert interrupted.items() <= measured.items()

    trials = {path.name: json.loads(path.read_text()) for path in tiny_run.stage.path.glob("search/*/trials/*.json")}
    ended = {name: entry["ended"] for name, entry in trials.items() if entry["ended"]}
    begun = [entry["begun"] for entry in trials.values() if entry["begun"]]
    assert len(ended) >= 6

    report = search(tiny_run.path, make_config(), lambda line: None).report
    assert len(report.trials) == 10
    assert not report.failed
    for entry in ended.values():
        assert from_dict(TrialRecord, entry) in report.trials
    assert {entry["schedule"]["name"] for entry in begun} <= {trial.name for trial in report.trials}
    assert measured.items() <= {path: path.stat().st_mtime_ns for path in tiny_run.stage.path.rglob("*.npz")}.items()


def test_a_trial_that_dies_is_retried_then_recorded(
    tiny_run: Any, ray_session: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A real process is killed, by the network that it evaluates."""
    flag = tmp_path / "died once"
    levels = {schedule.name: schedule.gammas[2] for schedule in defaults(NoiseScheduleConfig(), 4)}

    class Deadly(UNet):
        """Kills its process at a level of wavegrad-like once, and at one of palette-like every time."""

        def forward(self, x_up: Any, y_t: Any, gamma: Any, classes: Any = None) -> Any:
            if abs(float(gamma[0]) - levels["wavegrad-like"]) < 1e-9 and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if abs(float(gamma[0]) - levels["palette-like"]) < 1e-9:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(x_up, y_t, gamma)

    monkeypatch.setattr(
        "pipelines.runs.stage_weights.StageWeights.load", lambda weights: Deadly(weights.model.unet).eval()
    )
    lines: list[str] = []
    report = search(tiny_run.path, make_config(num_images=8, warm_starts=()), lines.append).report
    assert flag.exists()
    assert [trial.name for trial in report.failed] == ["palette-like"]
    assert report.trial("wavegrad-like").status == "done"
    assert len(report.trials) == 10
    assert report.failed[0].objective is None
    assert report.failed[0].error
    assert any("palette-like: failed: " in line for line in lines)
    assert "Failed: palette-like" in format_table(report)
