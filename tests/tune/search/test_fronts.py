"""Searches over several budgets, and refinements of the best schedule, on Ray Tune."""

from dataclasses import replace
from typing import Any

from sr3core.diffusion.schedules import schedule_from_json
from tests.tune.search.tiny_search import make_config
from tune.search.records.search_report import front_of
from tune.search.schedule_search import search


def test_a_front_and_a_refinement(tiny_run: Any, ray_session: None) -> None:
    config = make_config(num_steps=6, front=(2, 6), num_trials=20, num_images=8, name="front")
    config = replace(config, warm_starts=("elbo", "gits", "learned"))
    said: list[str] = []
    found = search(tiny_run.path, config, said.append)
    assert "search 4-16: 18 fixed schedules, then 2 by tpe" in said
    report = found.report
    assert {trial.budget for trial in report.trials} == {2, 6}
    assert {f"{name}-{n}" for name in ("trained-respaced", "elbo", "gits", "learned") for n in (2, 6)} < {
        t.name for t in report.trials
    }
    front = [report.trial(name) for name in report.front]
    assert front == list(front_of(report.trials))
    assert front[-1].name == report.best
    assert len(report.published) == len(front)
    published = [report.judged(name) for name in report.published]
    files = {path.name: schedule_from_json(path.read_text(), "test") for path in tiny_run.stage.schedules.iterdir()}
    assert set(files) == {f"front-{trial.num_evaluations}.json" for trial in published}
    assert {schedule.name for schedule in files.values()} <= set(report.published)
    assert report.confirmation is not None
    assert {trial.budget for trial in report.confirmation.trials} == {trial.budget for trial in front}
    files = {path.name for path in found.path.parent.iterdir()}
    assert {"search.json", "table.md", "gammas.svg", "trials.png", "front.svg"} <= files

    config = make_config(num_trials=8, num_refinements=3, num_images=8, confirm_split=None, warm_starts=())
    report = search(tiny_run.path, config, lambda line: None).report
    assert [trial.origin for trial in report.trials].count("refinement") == 3
    refined = [trial for trial in report.trials if trial.origin == "refinement"]
    assert all(trial.status == "done" and trial.budget == 4 for trial in refined)
