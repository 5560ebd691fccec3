"""A training's heartbeat informs; no training ends over it, but over a lease that is lost."""

import pytest
import torch

from pipelines.runs.run_folder import create_run
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.storage.leases.lease import LeaseLostError, fences_here, hold
from pipelines.training.checkpoints import CheckpointWriter
from pipelines.training.pulse import Pulse, Signal, ask_to_stop, read_pulse
from pipelines.training.worker_group import Team
from sr3core.config import override
from sr3core.training import create_state


def a_stage(path, **changes):
    stage = override(small_stage(8, 16, base_channels=8, num_steps=20, num_workers=1), **changes)
    return create_run(path, RunConfig(name="one", stages=(stage,)), "data", {}, fresh=False).stages[0]


def test_a_node_that_is_about_to_go_is_saved_for_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("pipelines.training.pulse.PERIOD_SECONDS", 0.0)
    goes = iter([False, True, True, False, True])
    team = Team(0, 1, torch.device("cpu"), loses_a_node=lambda: next(goes))
    pulse = Pulse(a_stage(tmp_path), team, lambda path: None)
    assert [pulse.beat(step).saves for step in range(5)] == [False, True, False, False, True]
    assert caplog.messages[0] == "8-16: a node is about to be taken away; step 1 is saved"


def test_a_checkpoint_is_due_by_the_clock_since_the_last_one(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.training.pulse.PERIOD_SECONDS", 0.0)
    clock = iter([0.0, 30.0, 60.0, 61.0, 110.0, 121.0])
    monkeypatch.setattr("pipelines.training.pulse.time.monotonic", lambda: next(clock))
    pulse = Pulse(
        a_stage(tmp_path, placement__checkpoint_minutes=1.0), Team(0, 1, torch.device("cpu")), lambda path: None
    )
    assert [pulse.beat(step).saves for step in (0, 1)] == [False, True]
    pulse.note_checkpoint()
    assert [pulse.beat(step).saves for step in (2, 3)] == [False, True]


def test_a_stop_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.training.pulse.PERIOD_SECONDS", 0.0)
    stage = a_stage(tmp_path)
    pulse = Pulse(stage, Team(0, 1, torch.device("cpu")), lambda path: None)
    assert pulse.beat(0) == Signal()
    ask_to_stop(stage)
    assert pulse.beat(1) == Signal(stops=True)


def test_a_pulse_that_cannot_be_written_is_told_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("pipelines.training.pulse.PERIOD_SECONDS", 0.0)  # it looks at every step
    stage = a_stage(tmp_path)
    blocked = stage.path / "pulse.json"
    blocked.mkdir(parents=True)
    published = []
    pulse = Pulse(stage, Team(0, 1, torch.device("cpu")), published.append)
    assert [pulse.beat(step) for step in range(5)] == [Signal()] * 5
    (warning,) = caplog.messages
    assert warning.startswith(f"8-16: its progress cannot be shown between its metrics: {blocked}: Is a directory")
    assert not published
    blocked.rmdir()
    assert pulse.beat(5) == Signal()
    reading = read_pulse(stage.path)
    assert reading is not None
    assert reading.step == 5


def test_a_worker_whose_lease_is_lost_writes_neither_pulse_nor_checkpoint(tmp_path):
    config = RunConfig(name="one", stages=(small_stage(8, 16, base_channels=8, num_steps=20, num_workers=1),))
    (stage,) = create_run(tmp_path / "run", config, "data", {}, fresh=False).stages
    stage.path.mkdir(parents=True, exist_ok=True)
    team = Team(0, 1, torch.device("cpu"))
    with hold(str(tmp_path / "lease"), "training", 60):
        fences = fences_here()
    before = sorted(stage.path.rglob("*"))
    checkpoints = CheckpointWriter(stage, team, fences)
    with pytest.raises(LeaseLostError):
        Pulse(stage, team, checkpoints.publish_metrics, fences).beat(0)
    with pytest.raises(LeaseLostError):
        checkpoints.write(create_state(stage.config.model, stage.config.optimizer, 0), {})
    checkpoints.finish()
    assert sorted(stage.path.rglob("*")) == before
