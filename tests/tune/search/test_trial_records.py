"""Records of trials: which can win, and what survives JSON."""

import json
from dataclasses import replace

from sr3core.config import from_dict, to_dict
from sr3core.hyperparameters import SamplerConfig
from tune.search.records.search_report import TrialRecord, best_of


def record(name: str, objective: float | None, status: str = "done") -> TrialRecord:
    return TrialRecord(
        name=name,
        origin="search",
        status=status,  # type: ignore[arg-type]
        num_steps=1,
        num_evaluations=1,
        budget=1,
        gammas=(1.0, 0.1),
        sampler=SamplerConfig(),
        objective=objective,
    )


def test_only_trials_of_all_images_can_win() -> None:
    trials = [record("a", 3.0), record("b", 1.0, "stopped"), record("c", 2.0), record("d", None, "failed")]
    best = best_of(trials)
    assert best is not None
    assert best.name == "c"
    assert best_of([trials[1]]) is None


def test_a_trial_record_survives_json() -> None:
    trial = replace(record("a", 3.0), point={"clip": "static", "family": "karras", "shape": 0.5})
    assert from_dict(TrialRecord, json.loads(json.dumps(to_dict(trial)))) == trial
