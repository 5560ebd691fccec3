"""What `sr3 status` reports of a stalled run: how long it has been silent, and the time that it would still need."""

import json
import time

import pytest
import torch

from pipelines.registry.registry import Registry
from pipelines.report.status import describe, status_of
from pipelines.runs.run_folder import create_run, open_run
from pipelines.runs.stage_run import StageRun
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.storage.leases.folder_lease import working_in
from pipelines.training.bad_steps import write_incidents
from pipelines.training.outcome import write_outcome
from pipelines.training.parallel_stages import describe_what_is_kept
from pipelines.training.pulse import PERIOD_SECONDS, Pulse, Signal, clear
from pipelines.training.stage_progress import SILENT_SECONDS, progress_of
from pipelines.training.worker_group import Team
from sr3core.errors import DataError

LINE = {
    **{"step": 20, "kind": "train", "learning_rate": 0.001, "loss": 0.5, "gradient_norm": 0.25},
    **{"images_per_second": 8.0, "data_wait": 0.0, "memory_bytes": 1e9, "world_size": 1, "seconds": 40.0},
}


def a_stage(path, **more) -> StageRun:
    """One that has trained for 20 steps."""
    stage = small_stage(8, 16, base_channels=8, num_steps=100_020, num_workers=1)
    (found,) = create_run(path, RunConfig(name="one", stages=(stage,)), "data", {}, fresh=False).stages
    found.path.mkdir(parents=True, exist_ok=True)
    found.metrics.write_text(json.dumps({**LINE, **more}) + "\n")
    return found


def told(path, **more) -> str:
    a_stage(path, **more)
    with working_in(str(path), "training"):
        return describe(status_of(str(path)))


def test_a_run_that_nobody_trains_is_not_running(tmp_path):
    """Its command was killed: nothing was written at its end."""
    stage = a_stage(tmp_path, written=time.time())
    assert "8-16: not running, step 20/100020, loss 0.5000" in describe(status_of(str(tmp_path)))
    write_outcome(stage, None)
    assert "8-16: not running, step 0/100020" in describe(status_of(str(tmp_path)))
    with working_in(str(tmp_path), "training"):
        assert "8-16: starting for 0:00" in describe(status_of(str(tmp_path)))


def test_a_run_that_is_silent_says_for_how_long(tmp_path):
    text = told(tmp_path, written=time.time() - 7500)
    assert max(map(len, text.splitlines())) <= 80
    assert "2:05:0" in text.partition("last sign of life ")[2]
    assert "last sign of life 0:00 ago" in told(tmp_path, written=time.time() + 60)  # another machine's clock
    assert "sign of life" not in told(tmp_path)  # a run from before this time was recorded


def test_the_time_left_is_in_days_and_hours(tmp_path):
    assert "8-16: 2 d 7:33:20 left, step 20/100020, loss 0.5000, 8 images/s" in told(tmp_path)


def test_why_a_stage_failed_and_which_steps_were_bad_is_told_from_the_files(tmp_path):
    stage = a_stage(tmp_path)
    assert "FAILED" not in describe(status_of(str(tmp_path)))
    assert "bad step" not in describe(status_of(str(tmp_path)))
    write_outcome(stage, "DataError: the shards are gone")
    write_incidents(stage.incidents, [{"step": step, "worker": worker} for step in (7, 12) for worker in (0, 1)])
    assert describe(status_of(str(tmp_path))).splitlines()[-3:-1] == [
        "  2 bad steps skipped, the last at 12; incidents.jsonl names their samples",
        "  FAILED: DataError: the shards are gone",
    ]
    write_outcome(stage, None)
    assert "FAILED" not in describe(status_of(str(tmp_path)))


def test_a_stage_that_no_command_trains_is_not_called_starting(tmp_path):
    stage = small_stage(8, 16, base_channels=8, num_steps=100, num_workers=1)
    (found,) = create_run(tmp_path, RunConfig(name="one", stages=(stage,)), "data", {}, fresh=False).stages
    assert progress_of(found).line() == "8-16: not started, step 0/100"
    write_outcome(found, None)
    assert progress_of(found).line() == "8-16: starting for 0:00, step 0/100"
    content = json.loads((found.path / "outcome.json").read_text())
    (found.path / "outcome.json").write_text(json.dumps({**content, "written": time.time() - 900}))
    assert progress_of(found).line() == "8-16: has not begun for 15:00, step 0/100", "its command may have been killed"
    write_outcome(found, None, stopped=True)
    assert progress_of(found).line() == "8-16: stopped, step 0/100"
    assert describe_what_is_kept(found) == "8-16: had not begun"


def test_what_an_earlier_training_reached_is_not_shown_as_where_this_one_is(tmp_path):
    """It was killed at step 20, without a checkpoint, and starts over."""
    stage = a_stage(tmp_path, written=time.time() - 10)
    clear(stage)
    write_outcome(stage, None)
    assert progress_of(stage).line() == "8-16: starting for 0:00, step 0/100020"


def test_the_pulse_of_a_training_shows_steps_before_their_metrics(tmp_path, monkeypatch):
    stage = a_stage(tmp_path)
    stage.metrics.unlink()
    write_outcome(stage, None)
    clock = iter([0.0, 10.0, 18.0])
    monkeypatch.setattr("pipelines.training.pulse.time.monotonic", lambda: next(clock))
    pulse = Pulse(stage, Team(0, 1, torch.device("cpu")), lambda path: None)
    pulse.beat(0)
    assert progress_of(stage).line() == "8-16: ? left, step 0/100020"
    pulse.beat(16)  # half a second a step: the next look is due after PERIOD_SECONDS
    assert progress_of(stage).line() == "8-16: 13:53:22 left, step 16/100020, 32 images/s"
    assert pulse.beat(15 + int(PERIOD_SECONDS / 0.5)) == Signal(), "no look at the clock before"
    assert describe_what_is_kept(stage) == "8-16: no checkpoint could be saved; 16 steps are lost, training starts over"
    content = json.loads((stage.path / "pulse.json").read_text())
    (stage.path / "pulse.json").write_text(json.dumps({**content, "written": time.time() - 1000}))
    assert SILENT_SECONDS < 1000
    assert "silent for 16:40" in progress_of(stage).line()


def test_a_registry_is_told_from_a_run(tmp_path, cascade_run):
    Registry(str(tmp_path)).publish(open_run(cascade_run), "a", {}, {})
    with pytest.raises(DataError, match=f"is a registry: `sr3 models {tmp_path}`"):
        status_of(str(tmp_path))
