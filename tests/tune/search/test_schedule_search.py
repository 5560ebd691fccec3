"""A real, tiny search on Ray Tune: what it leaves, and how it resumes."""

import builtins
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import ray

from sr3core.diffusion.schedules import check_gammas, schedule_from_json
from tests.tune.search.tiny_search import TinyRun, fake_load_split, make_config, write_run
from tune.search.artifacts import SearchResult, find_searches, read_search
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
        patch.setattr("tune.search.task.load_split", fake_load_split)
        run = write_run(tmp_path_factory.mktemp("searched") / "run")
        config, lines = make_config(num_rungs=2, rung_factor=4), []
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
        assert (trial.status, trial.num_images) in {("done", 16), ("stopped", 4)}


def test_the_best_is_what_was_judged_by_all_images_and_confirmed_by_others(searched: Searched) -> None:
    report = searched.found.report
    assert report.trial(report.default).status == "done", "no rung stops what the winner is compared with"
    done = [trial for trial in report.trials if trial.status == "done"]
    assert report.trial(report.best).objective == min(trial.objective for trial in done)
    assert all(trial.standard_error and trial.standard_error > 0 for trial in done)
    assert all(trial.objective_error == trial.standard_error for trial in done), "the objective is the distance"
    assert not report.is_fid
    assert "not FID" in report.label
    assert "n=16" in report.label
    assert report.confirmation is not None
    confirmed = report.confirmation.trials
    assert confirmed[0].name == report.best
    assert confirmed[0].distance != report.trial(report.best).distance
    defaults = {trial.name for trial in report.trials if trial.origin == "default"}
    assert defaults <= {trial.name for trial in confirmed if trial.num_images == 16}, "also those that a rung stopped"


def test_a_search_leaves_its_result_and_a_schedule_to_upscale_with(searched: Searched) -> None:
    found, stage = searched.found, searched.run.stage
    assert read_search(found.path) == found.report
    assert find_searches(stage.path) == [found.path]
    written = schedule_from_json(found.schedule_path.read_text(), "test")
    assert written == found.schedule == stage.schedule()
    assert written.gammas == found.report.trial(found.report.best).gammas
    assert {"checkpoint_step", "data", "seed", "feature_network", "num_images"} <= set(written.provenance)


def test_a_finished_search_is_not_repeated_and_more_trials_go_on(searched: Searched) -> None:
    folder, first = searched.run.stage.path, searched.found.report
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.npz")}
    lines: list[str] = []
    assert search(searched.run.path, searched.config, lines.append).report == first
    assert "done already" in lines[-1]
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


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_search_goes_on_where_it_was(tiny_run: Any, ray_session: None, stop: signal.Signals) -> None:
    address = ray.get_runtime_context().gcs_address
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), tiny_run.path, address],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("trial 5/"):
            break
    process.send_signal(stop)
    assert process.wait() != 0, "an interrupted search does not take what it has for the end"
    assert not find_searches(tiny_run.stage.path)

    trials = {path.name: json.loads(path.read_text()) for path in tiny_run.stage.path.glob("search/*/trials/*.json")}
    ended = {name: entry["ended"] for name, entry in trials.items() if entry["ended"]}
    begun = [entry["begun"] for entry in trials.values() if entry["begun"]]
    assert len(ended) >= 5
    measured = {path: path.stat().st_mtime_ns for path in tiny_run.stage.path.rglob("*.npz")}

    report = search(tiny_run.path, make_config(), lambda line: None).report
    assert len(report.trials) == 10
    assert not report.failed
    for entry in ended.values():
        assert from_dict(TrialRecord, entry) in report.trials
    assert {entry["schedule"]["name"] for entry in begun} <= {trial.name for trial in report.trials}
    assert measured.items() <= {path: path.stat().st_mtime_ns for path in tiny_run.stage.path.rglob("*.npz")}.items()


def test_a_front_and_a_refinement(tiny_run: Any, ray_session: None) -> None:
    config = make_config(num_steps=6, front=(2, 6), num_trials=18, num_images=8, name="front")
    said: list[str] = []
    found = search(tiny_run.path, config, said.append)
    assert "search 4-16: 16 fixed schedules, then 2 by tpe" in said
    report = found.report
    assert {trial.budget for trial in report.trials} == {2, 6}
    assert {f"{name}-{n}" for name in ("trained-respaced", "elbo", "gits") for n in (2, 6)} < {
        t.name for t in report.trials
    }
    front = [report.trial(name) for name in report.front]
    assert front == list(front_of(report.trials))
    assert front[-1].name == report.best
    for trial in front:
        path = tiny_run.stage.schedules / f"front-{trial.num_evaluations}.json"
        assert schedule_from_json(path.read_text(), "test").gammas == trial.gammas
    assert report.confirmation is not None
    assert {trial.budget for trial in report.confirmation.trials} == {trial.budget for trial in front}
    files = {path.name for path in found.path.parent.iterdir()}
    assert {"search.json", "table.md", "gammas.svg", "trials.png", "front.svg"} <= files

    config = make_config(num_trials=8, num_refinements=3, num_images=8, confirm_split=None, warm_starts=())
    report = search(tiny_run.path, config, lambda line: None).report
    assert [trial.origin for trial in report.trials].count("refinement") == 3
    refined = [trial for trial in report.trials if trial.origin == "refinement"]
    assert all(trial.status == "done" and trial.budget == 4 for trial in refined)


def test_a_trial_that_dies_is_retried_then_recorded(
    tiny_run: Any, ray_session: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A real process is killed, by the network that it evaluates."""
    flag = tmp_path / "died once"
    levels = {schedule.name: schedule.gammas[2] for schedule in defaults(NoiseScheduleConfig(), 4)}

    class Deadly(UNet):
        """Kills its process at a level of wavegrad-like once, and at one of palette-like every time."""

        def forward(self, x_up: Any, y_t: Any, gamma: Any, classes: Any = None) -> Any:
            if abs(float(gamma[0]) - levels["wavegrad-like"]) < 1e-9 and not flag.exists():
                flag.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if abs(float(gamma[0]) - levels["palette-like"]) < 1e-9:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(x_up, y_t, gamma)

    monkeypatch.setattr(
        "pipelines.runs.stage_weights.StageWeights.load", lambda weights: Deadly(weights.model.unet).eval()
    )
    lines: list[str] = []
    report = search(tiny_run.path, make_config(num_images=8, warm_starts=()), lines.append).report
    assert flag.exists()
    assert [trial.name for trial in report.failed] == ["palette-like"]
    assert report.trial("wavegrad-like").status == "done"
    assert len(report.trials) == 10
    assert report.failed[0].objective is None
    assert report.failed[0].error
    assert any("palette-like: failed: " in line for line in lines)
    assert "Failed: palette-like" in format_table(report)


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


def test_the_default_reporter_can_be_sent_to_another_process_after_ray_has_replaced_print(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builtins, "print", lambda *arguments, **options: None)
    reporter = inspect.signature(search).parameters["report"].default
    assert ray.cloudpickle.loads(ray.cloudpickle.dumps(reporter)) is reporter
