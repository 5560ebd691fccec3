"""A real, tiny search on Ray Tune: what it leaves, and how it resumes."""

import builtins
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import ray.cloudpickle

from pipelines.shards.manifest import MADE_BY
from sr3core.diffusion.schedules import check_gammas, schedule_from_json
from tests.tune.search.tiny_search import TinyRun, fake_load_split, make_config, write_run
from tune.search.records.search_report import describe_gain, find_searches, read_search
from tune.search.results.publication import SearchResult
from tune.search.schedule_search import search
from tune.search.settings import ObjectiveWeights, SearchConfig


@dataclass(frozen=True)
class Searched:
    """A finished search in two rungs."""

    run: TinyRun
    config: SearchConfig
    found: SearchResult
    lines: list[str]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Iterator[Searched]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tune.search.objective.task.load_split", fake_load_split)
        patch.setattr("tune.search.objective.references.load_split", fake_load_split)
        patch.setattr("tune.search.objective.task.operator_of", lambda data, stage: MADE_BY)
        patch.setattr("tune.search.objective.held_out_images.num_held_out", lambda stage, split: 80)
        run = write_run(tmp_path_factory.mktemp("searched") / "run")
        config, lines = make_config(num_images=64, num_rungs=2, rung_factor=4, num_concurrent=2), []
        yield Searched(run, config, search(run.path, config, lines.append), lines)


def test_every_trial_is_valid_and_judged_at_a_rung(searched: Searched) -> None:
    report = searched.found.report
    assert len(report.trials) == 10
    assert sum(line.startswith("trial ") for line in searched.lines) == 10
    names = {trial.name for trial in report.trials}
    assert {"trained-respaced", "wavegrad-like", "palette-like", "ddim", "dpmpp-2m", "heun-karras"} < names
    for trial in report.trials:
        check_gammas(np.array(trial.gammas), 4e-5)
        assert trial.budget == 4
        assert trial.num_evaluations in (3, 4)  # heun's two a step do not divide 4
        assert trial.num_steps == (2 if trial.sampler.algorithm == "heun" else 4)
        assert trial.error is None
        assert (trial.status, trial.num_images) in {("done", 64), ("stopped", 16)}


def test_the_best_is_what_was_judged_by_all_images_and_confirmed_by_others(searched: Searched) -> None:
    report = searched.found.report
    assert report.trial(report.default).status == "done", "no rung stops what the winner is compared with"
    done = [trial for trial in report.trials if trial.status == "done"]
    objectives = [trial.objective for trial in done if trial.objective is not None]
    assert len(objectives) == len(done)
    assert report.trial(report.best).objective == min(objectives)
    assert all(trial.standard_error and trial.standard_error > 0 for trial in done)
    assert all(trial.objective_error == trial.standard_error for trial in done), "the objective is the distance"
    assert not report.is_fid
    assert "not FID" in report.label
    assert "n=64, extrapolated to infinitely many, against 40 other images" in report.label
    assert report.confirmation is not None
    confirmed = report.confirmation.trials
    assert confirmed[0].name == report.best
    assert confirmed[0].distance != report.trial(report.best).distance
    defaults = {trial.name for trial in report.trials if trial.origin == "default"}
    assert defaults <= {trial.name for trial in confirmed if trial.num_images == 64}, "also those that a rung stopped"


def test_a_search_leaves_its_result_and_a_schedule_to_upscale_with(searched: Searched) -> None:
    found, stage = searched.found, searched.run.stage
    assert read_search(found.path) == found.report
    assert find_searches(stage.path) == [found.path]
    written = schedule_from_json(found.schedule_path.read_text(), "test")
    assert written == found.schedule == stage.schedule()
    (published,) = found.report.published
    assert written.gammas == found.report.trial(published).gammas
    assert {"checkpoint_step", "data", "seed", "feature_network", "num_images"} <= set(written.provenance)


def test_the_winner_is_published_only_if_it_is_surely_better_than_the_best_default(searched: Searched) -> None:
    report, stage = searched.found.report, searched.run.stage
    sure, (published,) = report.confirmation, report.published
    assert sure is not None
    defaults = [trial for trial in sure.trials if trial.origin == "default" and trial.objective is not None]
    best_default = min(defaults, key=lambda trial: trial.objective or 0.0)
    gain = sure.gain_of(report.best)
    if report.trial(report.best).origin != "default":
        assert gain is not None
        assert (gain.default, gain.num_seeds) == (best_default.name, 3)
        assert any(describe_gain(gain) in line for line in searched.lines)
    assert published == (report.best if gain is not None and gain.is_sure else best_default.name)
    schedule = stage.schedule()
    assert schedule is not None
    assert schedule.gammas == report.judged(published).gammas, "sampling takes what is published"
    assert schedule.provenance["confirmed"] == (None if gain is None else gain.is_sure)


def test_a_finished_search_is_not_repeated_and_more_trials_go_on(searched: Searched) -> None:
    folder, first = searched.run.stage.path, searched.found.report
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}
    lines: list[str] = []
    assert search(searched.run.path, searched.config, lines.append).report == first
    assert "is already finished" in lines[-1]
    more = search(searched.run.path, replace(searched.config, num_trials=12, confirm_steps=(50,)), lines.append)
    assert more.path == searched.found.path
    assert len(more.report.trials) == 12
    assert more.report.trials[:10] == first.trials
    assert more.report.confirmation is not None
    assert more.report.confirmation.trials[-1].name == "trained-50-steps"
    assert more.report.confirmation.trials[-1].num_evaluations == 50
    assert "| trained-50-steps | 50 |" in (more.path.parent / "table.md").read_text()
    assert before.items() <= {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}.items()


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "cmaes", "objective": "kid", "samplers": ("ddim",)},
        {"algorithm": "grid", "objective": "weighted", "weights": ObjectiveWeights(fid=0, psnr=1)},
    ],
)
def test_other_algorithms_and_objectives(tiny_run: Any, ray_session: None, changes: dict[str, Any]) -> None:
    config = make_config(num_trials=8, num_images=8, confirm_split=None, **changes)
    report = search(tiny_run.path, config, lambda line: None).report
    assert [trial.status for trial in report.trials] == ["done"] * 8
    best = report.trial(report.best)
    if config.objective == "kid":
        assert best.kid == best.objective
    else:
        assert best.objective == pytest.approx(-max(trial.psnr or 0 for trial in report.trials))
    assert report.confirmation is None


def test_the_default_reporter_can_be_sent_to_another_process_after_ray_has_replaced_print(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builtins, "print", lambda *arguments, **options: None)
    reporter = inspect.signature(search).parameters["report"].default
    pickled = ray.cloudpickle.dumps(reporter)  # pyright: ignore[reportPrivateImportUsage]
    assert ray.cloudpickle.loads(pickled) is reporter
