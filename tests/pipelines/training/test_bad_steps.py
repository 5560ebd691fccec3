"""When a training with bad steps ends, and what it says."""

import json

import pytest
import torch

from pipelines.training.bad_steps import Incidents, describe_last_incident
from sr3core.hyperparameters import OptimizerConfig
from sr3core.training import StepStatistics


def statistics(is_bad):
    loss = torch.tensor(float("nan") if is_bad else 1.0)
    return StepStatistics(loss, loss, loss[None], torch.tensor(is_bad))


def run_steps(incidents, pattern, interval):
    """The step at which training ends, or None; `x` is a bad step."""
    for step, mark in enumerate(pattern, 1):
        incidents.add(step, ("key",), statistics(mark == "x"))
        if step % interval == 0 and incidents.look():
            return step
    return None


@pytest.mark.parametrize(
    ("bad_steps", "pattern", "ends"),
    [
        ("stop", "....x.......", 6),
        ("skip", "xx.xx.xx.xx.", None),
        ("skip", "..xxx.......", 6),
        ("skip", ".....xx.x...", None),
        ("skip", "....xxx.....", 9),  # over two intervals
    ],
)
def test_so_many_bad_steps_in_a_row_end_a_training(tmp_path, bad_steps, pattern, ends):
    config = OptimizerConfig(bad_steps=bad_steps, max_bad_steps=3)
    assert run_steps(Incidents(tmp_path / "incidents.jsonl", 0, config), pattern, interval=3) == ends


def test_the_row_is_named_with_the_remedy(tmp_path):
    path, config = tmp_path / "incidents.jsonl", OptimizerConfig(bad_steps="skip", max_bad_steps=3)
    run_steps(Incidents(path, 0, config), ".x..xxx.", interval=2)
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 4
    said = describe_last_incident(path, config)
    assert said.startswith("3 steps in a row were bad and were skipped, 5 to 7: step 5 had a gradient of norm nan")
    assert "bad_steps=skip" not in said
    assert "bad_steps=skip" in describe_last_incident(path, OptimizerConfig())
