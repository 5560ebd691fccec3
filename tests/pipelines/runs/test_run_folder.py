"""Run folders: which runs are not resumed."""

import json

import pytest

from pipelines.runs.run_folder import create_run
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from sr3core.config import override
from sr3core.errors import ConfigError, StorageError

STAGES = tuple(small_stage(low, 2 * low, 8, num_steps=10, num_workers=1) for low in (8, 16))


def start(path, *stages, fresh=False, data="0"):
    return create_run(path, RunConfig(name="two", stages=stages), "data", {"8-16": data}, fresh)


def train_a_little(run):
    """What the first steps of a stage leave behind."""
    run.stages[0].path.mkdir()
    run.stages[0].metrics.write_text('{"step": 1, "kind": "train", "loss": 1.0}\n')


def test_a_run_that_never_made_a_step_may_become_another(tmp_path):
    start(tmp_path, *STAGES)
    assert [stage.name for stage in start(tmp_path, STAGES[0], data="1").stages] == ["8-16"]
    assert json.loads((tmp_path / "config.json").read_text())["data_fingerprints"] == {"8-16": "1"}


def test_a_run_that_is_started_over_holds_no_result_of_the_one_before(tmp_path):
    train_a_little(start(tmp_path, *STAGES))
    (tmp_path / "samples" / "sr3").mkdir(parents=True)
    (tmp_path / "samples" / "sr3" / "a.png").write_bytes(b"old")
    for name in ("evaluation.json", "table-4.json", "report.html", "my-notes.txt"):
        (tmp_path / name).write_text("{}")
    start(tmp_path, *STAGES, fresh=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "my-notes.txt"]


def test_another_science_is_refused_by_its_leaves_alone(tmp_path):
    train_a_little(start(tmp_path, *STAGES))
    changed = override(STAGES[1], optimizer__learning_rate=0.5, num_steps=20)
    with pytest.raises(ConfigError) as refusal:
        start(tmp_path, STAGES[0], changed, data="1")
    assert "configuration: stages.16-32.optimizer.learning_rate: 0.002 -> 0.5; data.8-16: '0' -> '1'. " in str(
        refusal.value
    )
    with pytest.raises(ConfigError, match=r"configuration: stages.16-32: {...} -> None\. Choose another"):
        start(tmp_path, STAGES[0])
    assert [stage.name for stage in start(tmp_path, STAGES[0], fresh=True).stages] == ["8-16"]


def test_more_steps_and_other_workers_are_the_same_run(tmp_path):
    start(tmp_path, *STAGES)
    longer = tuple(override(stage, num_steps=20, placement__num_workers=2) for stage in STAGES)
    assert [stage.config.num_steps for stage in start(tmp_path, *longer).stages] == [20, 20]


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"file/run: cannot be written to: .*; choose another folder"):
        start(tmp_path / "file" / "run", *STAGES)
