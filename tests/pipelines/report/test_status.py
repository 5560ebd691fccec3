"""What `sr3 status` reports of a stalled run: how long it has been silent, and the time that it would still need."""

import json
import time

from pipelines.report.status import describe, status_of
from pipelines.runs.run_folder import create_run
from pipelines.runs.stage_run import StageRun
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.bad_steps import write_incidents
from pipelines.training.outcome import write_outcome

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
    return describe(status_of(str(path)))


def test_a_run_that_is_silent_says_for_how_long(tmp_path):
    text = told(tmp_path, written=time.time() - 7500)
    assert "2:05:0" in text.partition("last sign of life ")[2]
    assert "last sign of life 0:00 ago" in told(tmp_path, written=time.time() + 60)  # another machine's clock
    assert "sign of life" not in told(tmp_path)  # a run from before this time was recorded


def test_the_time_left_is_in_days_and_hours(tmp_path):
    assert "8-16 20/100020 loss 0.5000 8 images/s, 2 d 7:33:20 left" in told(tmp_path)


def test_why_a_stage_failed_and_which_steps_were_bad_is_told_from_the_files(tmp_path):
    stage = a_stage(tmp_path)
    assert "FAILED" not in describe(status_of(str(tmp_path)))
    assert "bad step" not in describe(status_of(str(tmp_path)))
    write_outcome(stage, "DataError: the shards are gone")
    write_incidents(stage.incidents, [{"step": step, "worker": worker} for step in (7, 12) for worker in (0, 1)])
    assert describe(status_of(str(tmp_path))).splitlines()[-2:] == [
        "  2 bad steps skipped, the last at 12; incidents.jsonl names their samples",
        "  FAILED: DataError: the shards are gone",
    ]
    write_outcome(stage, None)
    assert "FAILED" not in describe(status_of(str(tmp_path)))
