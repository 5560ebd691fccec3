"""A training's heartbeat informs; no training ends over it."""

import torch

from pipelines.runs.run_folder import create_run
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.pulse import Pulse, read_pulse
from pipelines.training.worker_group import Team


def test_a_pulse_that_cannot_be_written_is_told_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("pipelines.training.pulse.PERIOD_SECONDS", 0.0)  # it looks at every step
    config = RunConfig(name="one", stages=(small_stage(8, 16, base_channels=8, num_steps=20, num_workers=1),))
    (stage,) = create_run(tmp_path, config, "data", {}, fresh=False).stages
    blocked = stage.path / "pulse.json"
    blocked.mkdir(parents=True)
    published = []
    pulse = Pulse(stage, Team(0, 1, torch.device("cpu")), published.append)
    assert [pulse.beat(step) for step in range(5)] == [False] * 5
    (warning,) = caplog.messages
    assert warning.startswith(f"8-16: its progress cannot be shown between its metrics: {blocked}: Is a directory")
    assert not published
    blocked.rmdir()
    assert not pulse.beat(5)
    reading = read_pulse(stage.path)
    assert reading is not None
    assert reading.step == 5
