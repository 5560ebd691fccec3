"""`sr3 status` ends with the next command, of which each is one that the state calls for."""

from pathlib import Path

import pytest

from cluster.cli import main
from pipelines.prepare.finished.status import PrepareStatus, StageStatus
from pipelines.report import next_commands
from pipelines.report.status import describe, status_of
from pipelines.runs.run_folder import Run, open_run
from pipelines.storage.leases.folder_lease import working_in
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.diffusion.schedules import default_schedule
from sr3core.training import create_state
from tests.cluster.drive import good_places


@pytest.fixture
def places(tmp_path: Path, photos: Path) -> Path:
    good_places.make(tmp_path, photos)
    return tmp_path


def told(path: Path) -> str:
    """The last line of `sr3 status`."""
    return describe(status_of(str(path))).splitlines()[-1]


def trained(run: Run) -> None:
    """End its trainings: checkpoints of the last step, of networks that are random."""
    for stage in run.stages:
        state = create_state(stage.model, stage.config.optimizer, seed=0)
        state.step = stage.config.num_steps
        save_checkpoint(stage.checkpoints, take_snapshot(state), {})


def test_prepared_data_are_trained_on(places, capsys):
    assert told(places / "data") == f"next: sr3 train PRESET --data {places}/data --out RUN"
    assert main(["status", str(places / "data")]) == 0
    assert capsys.readouterr().out.endswith("--out RUN\n")


def test_a_preparation_that_stopped_is_repeated_and_one_at_work_is_left_alone():
    stage = StageStatus("16-64", False, 4, 2, 100, 0)
    stopped = PrepareStatus("data", 200, 0, "flat", (stage,), "", 0.0)
    assert next_commands.of_preparation(stopped, False) == [
        "next: repeat its `sr3 prepare` command, which goes on from here"
    ]
    assert next_commands.of_preparation(stopped, True) == []


def test_a_run_goes_from_training_to_the_report(places):
    path = places / "run"
    again = f"next: sr3 train --config {path}/config.json --data {places}/data --out {path}    "
    assert told(path) == f"{again}(begins at step 0: no checkpoint)"
    with working_in(str(path), "training"):
        assert "next:" not in describe(status_of(str(path)))
    run = open_run(path)
    trained(run)
    assert f"next: sr3 search --run {path} --stage 8-16\n  or: sr3 upscale" in describe(status_of(str(path)))
    (stage,) = run.stages
    stage.schedules.mkdir()
    best = default_schedule(stage.config.model.noise_schedule, 2)
    (stage.schedules / "best-2.json").write_text(best.to_json())
    assert told(path) == f"next: sr3 evaluate --run {path}"
    (path / "evaluation.json").write_text("{}")
    assert told(path) == f"next: sr3 report {path}"
    (path / "report.html").touch()
    assert told(path) == f"next: sr3 upscale PHOTOS --run {path} --out DIR"


def test_the_command_that_goes_on_is_one_that_trains_this_run(places, capsys):
    words = told(places / "run").removeprefix("next: sr3 ").partition("    ")[0].split()
    assert main([*words, "--dry-run"]) == 0
    assert "would train 8-16" in capsys.readouterr().out


def test_a_cascade_from_noise_is_drawn_from(places):
    trained(open_run(places / "cascade"))
    assert told(places / "cascade") == f"next: sr3 sample --run {places}/cascade --out DIR"
