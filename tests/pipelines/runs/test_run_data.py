"""A run finds its data after they were moved, and says before anything starts what it lacks."""

import shutil

import pytest

from cluster.cli import main
from cluster.exits import DONE, FAILURE, USAGE_ERROR
from pipelines.runs.run_data import require_data, with_data
from pipelines.runs.run_folder import create_run, data_fingerprints, open_run
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.errors import DataError
from sr3core.training import create_state
from tests.preparing import manifest_alone

CONFIG = RunConfig(name="tiny", stages=(small_stage(8, 16, 8, num_steps=10, num_workers=1),))
SPLITS = {"train": 20, "validation": 4, "test": 4}


@pytest.fixture
def run(tmp_path):
    """A trained run whose data are in tmp_path/data."""
    data = manifest_alone(tmp_path / "data", "8-16", "a", **SPLITS)
    run = create_run(tmp_path / "run", CONFIG, str(data), data_fingerprints(str(data), CONFIG), fresh=False)
    (stage,) = run.stages
    state = create_state(stage.config.model, stage.config.optimizer, seed=0)
    save_checkpoint(stage.checkpoints, take_snapshot(state), {})
    return run


@pytest.mark.parametrize("command", ["evaluate --run {run}", "search --run {run} --stage 8-16"])
def test_moved_data_are_named_once_and_remembered(command, run, tmp_path, capsys):
    wanted = command.format(run=run.path).split()
    assert main([*wanted, "--dry-run"]) == DONE
    shutil.move(tmp_path / "data", tmp_path / "moved")
    assert main([*wanted, "--dry-run"]) == FAILURE
    told = capsys.readouterr().err
    assert f"was trained on {tmp_path / 'data'}, which does not exist" in told
    assert "repeat the command with `--data NEW_FOLDER`" in told
    assert main([*wanted, "--data", str(tmp_path / "moved"), "--dry-run"]) == DONE
    assert open_run(run.path).data == str(tmp_path / "data"), "a rehearsal changes nothing"


def test_every_command_finds_data_where_one_found_them(run, tmp_path, monkeypatch):
    shutil.move(tmp_path / "data", tmp_path / "moved")
    monkeypatch.setattr("cluster.commands.evaluate.ray_session", _no_ray)
    with pytest.raises(NotStartedError):
        main(["evaluate", "--run", str(run.path), "--data", str(tmp_path / "moved")])
    found = open_run(run.path)
    assert found.data == found.stages[0].data == str(tmp_path / "moved")
    assert found.data_fingerprints == {"8-16": "a"}
    with pytest.raises(NotStartedError):
        main(["evaluate", "--run", str(run.path)])


class NotStartedError(Exception):
    """Raised where Ray would start."""


def _no_ray(address):
    raise NotStartedError


def test_other_data_are_refused(run, tmp_path):
    other = manifest_alone(tmp_path / "other", "8-16", "b", **SPLITS)
    with pytest.raises(DataError, match=r"does not hold what .*run was trained on \(data.8-16: 'a' -> 'b'\)"):
        with_data(run, str(other))
    with pytest.raises(DataError, match=r"data.8-16: 'a' -> None"):
        with_data(run, str(tmp_path / "nowhere"))


def test_a_stage_or_images_that_are_missing_are_named_with_the_remedy(run, tmp_path):
    with pytest.raises(DataError, match=r"no complete stage 8-32.*with `--stages 8-16,8-32` into another --out"):
        require_data(run, "8-32", "test")
    with pytest.raises(DataError, match=r"4 test images of 28 in all, and 9 are needed: .* larger --test-fraction"):
        require_data(run, "8-16", "test", 9)
    require_data(run, "8-16", "test", 4)


@pytest.mark.parametrize("rehearsal", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("command", "splits", "told"),
    [
        ("train small-16-64", {"train": 5}, "holds no validation images of 5 in all, and one is needed at least"),
        ("train small-16-64", {"validation": 5}, "holds no train images of 5 in all"),
        ("ablate small-16-64", {"train": 5, "validation": 1}, "holds no test images of 6 in all"),
    ],
)
def test_a_split_that_training_needs_is_missed_before_anything_starts(
    command, splits, told, rehearsal, tmp_path, capsys
):
    data = manifest_alone(tmp_path / "data", "16-64", "a", **splits)
    arguments = [*command.split(), "--data", str(data), "--out", str(tmp_path / "run"), *rehearsal]
    assert main(arguments) == FAILURE
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rehearsal", [(), ("--dry-run",)])
@pytest.mark.parametrize("command", ["train small-16-64", "ablate small-16-64"])
def test_an_out_that_is_a_file_is_refused_before_anything_starts(command, rehearsal, tmp_path, capsys):
    data = manifest_alone(tmp_path / "data", "16-64", **SPLITS)
    (tmp_path / "file").write_text("")
    arguments = [*command.split(), "--data", str(data), "--out", str(tmp_path / "file"), *rehearsal]
    assert main(arguments) == USAGE_ERROR
    assert f"{tmp_path / 'file'} is a file; choose a folder" in capsys.readouterr().err
