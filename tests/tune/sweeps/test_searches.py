"""Many searches by one command: which they are, what is refused, and their one report."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.exits import FAILURE, USAGE_ERROR
from pipelines.runs.run_folder import create_run
from pipelines.settings.train import RunConfig, TrainConfig
from sr3core.errors import ConfigError, DataError
from tests.reporting import write_search
from tests.tune.search.tiny_search import TinyRun, tiny_model
from tune.search.records.search_report import read_search
from tune.search.settings import SearchesConfig
from tune.sweeps.search_results import format_table, write_report
from tune.sweeps.searches import PlannedSearch, SearchOutcome, find_runs, plan_searches, search_all

FAST = TrainConfig(name="fast", model=tiny_model(), batch_size=64, num_steps=10)
SLOW = TrainConfig(name="slow", model=tiny_model(), batch_size=64, num_steps=10)


def write_run(path: Path, *stages: TrainConfig, data: str = "0") -> str:
    create_run(path, RunConfig(name="tiny", stages=stages or (FAST,)), "data", {"4-16": data}, fresh=False)
    return str(path)


def test_a_pattern_means_the_runs_among_what_it_matches(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in ("b", "a", "c*")]
    (tmp_path / "notes").mkdir()
    assert find_runs([f"{tmp_path}/?"]) == [runs[1], runs[0]]
    assert find_runs([runs[2], f"{tmp_path}/*"]) == [runs[2], runs[1], runs[0]], "none twice, and a name is a name"
    with pytest.raises(DataError, match="x matches no run"):
        find_runs([f"{tmp_path}/*x"])


def test_every_run_stage_and_budget_is_a_search(tmp_path: Path) -> None:
    one, two = write_run(tmp_path / "one", FAST, SLOW), write_run(tmp_path / "two")
    planned = plan_searches([one, two], SearchesConfig(num_steps=(50, 10), num_trials=9))
    assert [(p.run, p.config.stage, p.config.num_steps) for p in planned] == [
        *((one, stage, steps) for stage in ("fast", "slow") for steps in (10, 50)),
        *((two, "fast", steps) for steps in (10, 50)),
    ]
    assert {p.config.num_trials for p in planned} == {9}
    with pytest.raises(ConfigError, match="two has no 'slow'"):
        plan_searches([one, two], SearchesConfig(stage=("slow",)))


def test_runs_of_different_data_are_refused_by_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "two", data="1")
    assert main(["search", "--runs", f"{tmp_path}/*", "--num-steps", "10", "25"]) == FAILURE
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "loading" not in line]
    assert f"{tmp_path}/one and {tmp_path}/two were trained on different data: " in line
    assert "search them by two commands" in line


def test_everything_is_checked_before_the_first_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second run has no checkpoint, and neither has the first, which is named."""
    write_run(tmp_path / "one")
    write_run(tmp_path / "two")
    assert main(["search", "--runs", f"{tmp_path}/*", "--dry-run"]) in (FAILURE, USAGE_ERROR)
    assert "checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": (10, 10)}, r"num_steps: \(10, 10\) must be different"),
        ({"num_steps": ()}, "num_steps: at least one"),
        ({"num_steps": (10, 200)}, "num_steps: 200 exceeds the paper's budget of 100"),
        ({"num_steps": (10, 25), "num_refinements": 3}, "num_refinements: steps are not refined"),
        ({"num_steps": (10, 25), "name": "mine"}, "name: mine cannot be the folder of searches for several"),
        ({"stage": ("a", "a")}, "stage: .* must be different"),
    ],
)
def test_searches_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchesConfig(**settings)


@pytest.mark.usefixtures("ray_session")
def test_one_search_that_fails_does_not_stop_the_others_and_the_same_command_passes_over_them(
    tiny_run: TinyRun, make_run: Callable[..., TinyRun], tmp_path: Path
) -> None:
    """Of two runs, the first has lost its checkpoint."""
    broken = make_run(tmp_path / "broken", with_checkpoint=False)
    method = {"num_trials": 7, "num_images": 16, "features": "seeded", "warm_starts": (), "confirm_split": None}
    planned = plan_searches([broken.path, tiny_run.path], SearchesConfig(num_steps=(2, 3), **method))  # type: ignore[arg-type]
    lines: list[str] = []
    first = list(search_all(planned, report=lines.append))
    assert [one.error is None for one in first] == [False, False, True, True]
    assert "no checkpoint" in str(first[0].error)
    assert {path.name for path in tiny_run.stage.schedules.iterdir()} == {"best-2.json", "best-3.json"}
    del lines[:]
    again = list(search_all(planned, report=lines.append))
    assert again == first
    assert [line for line in lines if line.startswith("trial ")] == []
    assert sum(line.endswith("is already finished") for line in lines) == 2


def test_the_report_has_every_search_those_that_failed_too(tmp_path: Path) -> None:
    config = TrainConfig(name="4-16", model=tiny_model(), batch_size=64, num_steps=10)
    outcomes = []
    for name, confirmed in (("one", True), ("two", False)):
        run = create_run(tmp_path / name, RunConfig(name="t", stages=(config,)), "data", {"4-16": "0"}, fresh=False)
        write_search(run, "4-16", 0.8, confirmed, True, "FID, n = 64")
        (path,) = (tmp_path / name / "4-16" / "search").glob("*/search.json")
        report = read_search(path)
        outcomes.append(SearchOutcome(PlannedSearch(name, report.config), report))
    outcomes.append(SearchOutcome(PlannedSearch("three", outcomes[0].planned.config), None, "no images"))
    write_report(outcomes, str(tmp_path / "out"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("searches.json", "table.md", "4-16.svg", "4-16.png"),
    }
    table = (tmp_path / "out" / "table.md").read_text()
    assert table == format_table(outcomes)
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith(("| one", "| two", "| three"))]
    assert [row[3].split()[0] for row in rows] == ["linear-ddim", "trained-respaced", "failed"]
    assert [row[8].rstrip(" |") for row in rows] == ["yes", "no", ""]
    assert "Failed: three, stage 4-16, 10 steps: no images" in table
    saved = json.loads((tmp_path / "out" / "searches.json").read_text())["searches"]
    assert [one.get("distance") for one in saved] == [83.0, 100.0, None]
