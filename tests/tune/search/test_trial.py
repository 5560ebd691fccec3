"""Rungs compare like with like; tables and plots show the results."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from sr3core.diffusion.schedules import schedule_from_json
from sr3core.hyperparameters import SamplerConfig
from tune.search.records.search_report import Confirmation, Gain, SearchReport, TrialRecord, front_of
from tune.search.results.plots import plot_gammas, write_plots
from tune.search.results.publication import publish_schedules
from tune.search.results.table import format_table
from tune.search.settings import NUM_DEFAULTS, SearchConfig
from tune.search.trial import Rungs, reason


def trial(name: str, objective: float | None, steps: int = 2, **changes: Any) -> TrialRecord:
    values: dict[str, Any] = {
        "name": name,
        "origin": "search",
        "status": "done",
        "num_steps": steps,
        "num_evaluations": steps,
        "budget": steps,
        "gammas": (1.0, *(0.5**n for n in range(1, steps + 1))),
        "sampler": SamplerConfig(),
        "num_images": 16,
        "objective": objective,
        "distance": objective,
        "standard_error": 0.25,
        "objective_error": 0.5,
        "kid": 0.01,
        "kid_error": 0.002,
        "psnr": 20.0,
        "ssim": 0.5,
        "consistency": 3.0,
        "seconds_per_image": 0.1,
        "rung_objectives": (objective, objective) if objective is not None else (),
        **changes,
    }
    return TrialRecord(**values)


REFUTED = Gain(name="better", default="trained-respaced", value=-1.0, low=-3.0, high=1.0, level=0.95, num_seeds=3)


def decide(rungs: Rungs, name: str, objective: float, images: int = 4, budget: int = 2) -> bool:
    """Whether the trial may continue."""
    config = SimpleNamespace(config={"name": name, "budget": budget})
    result = {"num_images": images, "objective": objective}
    return rungs.on_trial_result(None, config, result) == TrialScheduler.CONTINUE


def test_a_trial_goes_on_among_the_best_quarter_of_its_rung() -> None:
    rungs = Rungs((4, 16, 64), 4, spared=["trained-respaced"])
    assert decide(rungs, "a", 5.0)  # the first has nothing to be compared with
    assert not decide(rungs, "b", 6.0)
    assert decide(rungs, "c", 4.0)
    assert decide(rungs, "trained-respaced", 9.0)
    assert [decide(rungs, str(n), 10.0 + n) for n in range(4)] == [False] * 4
    assert decide(rungs, "second of nine", 4.5)  # now two of eight may continue
    assert not decide(rungs, "d", 4.7)


def test_only_equal_numbers_of_images_and_steps_are_compared() -> None:
    rungs = Rungs((4, 16, 64), 4)
    assert decide(rungs, "a", 5.0, images=4)
    assert decide(rungs, "b", 9.0, images=16)
    assert decide(rungs, "c", 9.0, images=4, budget=1)
    assert decide(rungs, "d", 99.0, images=64)  # judged by all images: nothing to stop


def test_rungs_remember_what_an_interrupted_search_saw() -> None:
    rungs = Rungs((4, 16), 4, [(2, (5.0,))])
    assert not decide(rungs, "b", 6.0)
    assert decide(rungs, "c", 4.0)


def test_the_front_holds_what_nothing_cheaper_beats() -> None:
    trials = [trial("a", 9.0, 5), trial("b", 4.0, 10), trial("c", 5.0, 25), trial("d", 3.0, 50), trial("e", None, 1)]
    trials.append(trial("f", 1.0, 2, status="stopped"))
    assert [found.name for found in front_of(trials)] == ["a", "b", "d"]


def test_errors_are_told_in_one_line() -> None:
    assert reason("Traceback\n  File x\nValueError: no such thing\n") == "ValueError: no such thing"
    assert reason(None) == "its process died"


@pytest.fixture
def report() -> SearchReport:
    """A finished search of six trials."""
    trials = (
        trial("trained-respaced", 9.0, origin="default"),
        trial("better", 4.0),
        trial("hopeless", 900.0),
        trial("early", 7.0, status="stopped", num_images=4),
        trial("ddim", 8.0, status="stopped", num_images=4, origin="default"),
        trial("broken", None, status="failed", error="the sampler diverged"),
    )
    confirmed = (replace(trials[1], distance=6.0, objective=6.0), replace(trials[0], distance=5.0, objective=5.0))
    return SearchReport(
        stage="4-16",
        num_steps=2,
        label="Fréchet distance on seeded random features (not FID), n=16",
        is_fid=False,
        feature_network="seeded",
        split="validation",
        num_images=16,
        front=(),
        best="better",
        default="trained-respaced",
        published=("trained-respaced",),
        trials=trials,
        confirmation=Confirmation(
            split="test", num_images=16, label="not FID, n=16", trials=confirmed, gains=(REFUTED,)
        ),
        config=SearchConfig(stage="4-16", num_steps=2, num_images=16),
        provenance={},
        seconds=1.0,
    )


def test_the_table_says_where_consistency_means_little(report: SearchReport) -> None:
    assert "no one operator that is known made these inputs" in format_table(replace(report, operator=None))
    assert "operator" not in format_table(report)


def test_the_table_is_honest(report: SearchReport) -> None:
    table = format_table(report)
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    searched, confirmed = rows[2:5], rows[7:]  # below the heads of the two tables
    assert searched == ["**better**", "trained-respaced", "hopeless"]
    assert confirmed == ["trained-respaced", "**better**"]
    assert "| 4 ± 0.5 | 4.00 ± 0.25 | 10.00 ± 2 |" in table
    assert "Defaults that were stopped at a rung, with its number of images: ddim at 4.\n" in table
    assert (
        "- better gains -1 [-3, +1] over the best default trained-respaced, with 3 draws of noise, which does not lie"
        " above 0: refuted, trained-respaced is published."
    ) in table
    assert "Failed: broken: the sampler diverged" in table
    assert "6 trials: 3 judged on all images, 2 stopped at a rung, 1 failed" in table


def test_plots_are_drawn(report: SearchReport, tmp_path: Path) -> None:
    names = sorted(path.name for path in write_plots(report, tmp_path))
    assert names == ["gammas.png", "gammas.svg", "trials.png", "trials.svg"]
    assert (
        "distance, n = 16" in (tmp_path / "trials.svg").read_text() or (tmp_path / "trials.svg").stat().st_size > 5000
    )
    front = replace(report, front=("better",))
    assert "front.svg" in {path.name for path in write_plots(front, tmp_path)}


@pytest.fixture
def front(report: SearchReport) -> SearchReport:
    """A finished search among budgets; the second split confirms the dearest of the front and refutes another."""
    trials = (trial("two", 9.0), trial("three", 8.0, steps=3), trial("four", 7.0, steps=4))
    rival = trial("default-3", 8.0, steps=3, origin="default")
    gains = (replace(REFUTED, name="three", default="default-3"), replace(REFUTED, name="four", value=2, low=1, high=3))
    sure = Confirmation(split="test", num_images=16, label="", trials=(*trials, rival), gains=gains)
    names, published = ("two", "three", "four"), ("two", "default-3", "four")
    return replace(
        report, front=names, best="four", default="two", trials=trials, published=published, confirmation=sure
    )


def test_every_schedule_of_a_front_is_confirmed_by_itself(front: SearchReport, tmp_path: Path) -> None:
    stage: Any = SimpleNamespace(schedules=tmp_path)
    publish_schedules(stage, front, tmp_path / "8-0a1b2c")
    files = {path.name: schedule_from_json(path.read_text(), path.name) for path in tmp_path.glob("front-*.json")}
    assert {name: (one.name, one.provenance["confirmed"]) for name, one in files.items()} == {
        "front-2.json": ("two", None),
        "front-3.json": ("default-3", False),
        "front-4.json": ("four", True),
    }
    assert files["front-3.json"].provenance["instead_of"] == "three"
    assert "four gains +2 [+1, +3] over the best default trained-respaced" in format_table(front)


def test_a_front_that_changed_leaves_no_old_files_but_another_searchs(front: SearchReport, tmp_path: Path) -> None:
    stage: Any = SimpleNamespace(schedules=tmp_path)
    (tmp_path / "front-5.json").write_text("by hand")
    publish_schedules(stage, front, tmp_path / "ours")
    publish_schedules(stage, replace(front, front=("two",), best="two", published=("two",)), tmp_path / "theirs")
    publish_schedules(stage, replace(front, front=("three",), best="three", published=("three",)), tmp_path / "ours")
    assert {path.name for path in tmp_path.glob("*.json")} == {"front-2.json", "front-3.json", "front-5.json"}


def test_the_curves_of_all_defaults_can_be_told_apart(report: SearchReport) -> None:
    from matplotlib.figure import Figure

    names = [f"default-{n}" for n in range(NUM_DEFAULTS)]
    levels = [(1.0, 0.9 - 0.1 * n, 0.01) for n in range(NUM_DEFAULTS)]
    many = [trial(n, 9.0, origin="default", gammas=one) for n, one in zip(names, levels, strict=True)]
    axes = Figure().subplots()
    plot_gammas(axes, replace(report, trials=(*many, trial("better", 4.0))))
    looks = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(looks) == NUM_DEFAULTS + 1
