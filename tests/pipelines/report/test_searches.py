"""What the report says of schedule searches."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipelines.report.html_report import write_report
from pipelines.runs.run_folder import Run
from sr3core.diffusion.schedules import default_schedule
from tests.reporting import Page, make_run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Page:
    """The report of a run with two searches."""
    return Page(write_report(str(make_run(tmp_path_factory.mktemp("run"), photos).path)).read_text())


def test_search_is_reported_as_it_ended(page: Page) -> None:
    text = page.text["schedules"]
    assert "80.0 against 100.0 of the default trained-respaced (−20%)" in text
    assert "on 64 other images (test): by 17 [5, 29]. It is published." in text
    assert "its gain is -4 [-9, 1]. trained-respaced is published instead." in text
    confirmed, refuted = text.split(" 32-64 ", 1)
    assert "linear-ddim best published" in confirmed
    assert "trained-respaced default published" in refuted
    assert "stopped after 16 images" in text
    assert "failed: <worker> died" in text


def test_search_that_found_nothing_says_so(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    path = next(run.path.glob("16-32/search/*/search.json"))
    content = json.loads(path.read_text())
    nothing = {"best": "trained-respaced", "published": ["trained-respaced"]}
    path.write_text(json.dumps({**content, **nothing, "confirmation": {**content["confirmation"], "gains": []}}))
    page = Page(write_report(str(run.path)).read_text())
    assert "The search found nothing better than its defaults. trained-respaced is published" in page.text["schedules"]


def test_a_search_that_kid_decided_is_shown_by_kid(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    path = next(run.path.glob("16-32/search/*/search.json"))
    content = json.loads(path.read_text())

    def judged_by_kid(trial: dict[str, Any]) -> dict[str, Any]:
        kid = None if trial["objective"] is None else trial["objective"] / 1000
        return {**trial, "objective": kid, "kid": kid, "kid_error": 0.004, "distance": 350 - trial["psnr"]}

    sure = content["confirmation"]
    judged: dict[str, Any] = {"trials": [judged_by_kid(trial) for trial in content["trials"]]}
    judged["confirmation"] = {**sure, "trials": [judged_by_kid(trial) for trial in sure["trials"]]}
    path.write_text(json.dumps({**content, **judged, "is_fid": True, "label": "FID (Inception, n=96), extrapolated"}))
    text = Page(write_report(str(run.path)).read_text()).text["schedules"]
    first = text.split(" 32-64 ", 1)[0]
    assert "0.0800 against 0.1000 of the default trained-respaced (−20%)" in first
    assert "Distance: KID (Inception, n=96)" in first
    assert "KID ↓" in first
    assert "0.0830 ± 0.0040" in first
    assert "by 17 [5, 29] by KID. It is published." in first
    assert "FID ↓" not in first


def _add_search(run: Run, name: str, **changes: Any) -> None:
    """Another search of the first stage, equal to the existing one except for some of its content."""
    known = next(run.path.glob("16-32/search/10-*/search.json"))
    path = known.parent.parent / name / "search.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**json.loads(known.read_text()), **changes}))


def test_searches_stand_by_rising_budget_each_under_its_name(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    for steps in (100, 25):
        _add_search(run, f"{steps}-0a1b2c", num_steps=steps)
    text = Page(write_report(str(run.path)).read_text()).text["schedules"]
    places = [text.index(f"16-32, {steps} evaluations: search {steps}-0a1b2c") for steps in (10, 25, 100)]
    assert places == sorted(places)


def test_a_fixed_schedule_that_wins_is_told_in_whole_sentences(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    path = next(run.path.glob("16-32/search/*/search.json"))
    path.write_text(path.read_text().replace('"origin": "search"', '"origin": "default"'))
    text = Page(write_report(str(run.path)).read_text()).text["schedules"]
    assert "none of the search's proposals was better. Distance:" in text


def test_the_objective_is_named(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    path = next(run.path.glob("16-32/search/*/search.json"))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "config": {**content["config"], "objective": "kid"}}))
    text = Page(write_report(str(run.path)).read_text()).text["schedules"]
    assert "The objective is kid." in text


def test_a_front_is_drawn_by_cost(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    content = json.loads(next(run.path.glob("16-32/search/*/search.json")).read_text())
    names = ["linear-ddim", "karras-ddim", "sigmoid-ddim"]
    for trial in content["trials"]:
        cost = {"karras-ddim": 2, "sigmoid-ddim": 4}.get(trial["name"], trial["num_evaluations"])
        trial.update(num_evaluations=cost, num_steps=cost)
    _add_search(run, "front", trials=content["trials"], front=[names[1], names[2], names[0]], published=names)
    html = write_report(str(run.path)).read_text()
    drawing = re.search(r'aria-label="The front: [^"]*"', html)
    assert drawing is not None
    assert "against network evaluations" in drawing[0]
    assert "front from 115 to 80" in drawing[0]
    assert Page(html).text["schedules"].count("The front") == 1


def test_every_schedule_file_is_drawn_beside_the_trained_one(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    budgets = (2, 3, 4, 5, 6, 7, 8, 9, 10, 100)
    training = run.stage("16-32").config.model.noise_schedule
    for steps in budgets:
        (run.stage("16-32").schedules / f"best-{steps}.json").write_text(default_schedule(training, steps).to_json())
    text = Page(write_report(str(run.path)).read_text()).text["schedules"].partition(" 32-64 ")[0]
    places = [text.index(f"best-{steps} ") for steps in budgets]
    assert places == sorted(places)
    assert text.count("trained schedule, respaced to 100") == 2, "in each chart; this many need two"


def test_a_searchs_configuration_is_printed_once(tmp_path: Path, photos: Path) -> None:
    run = make_run(tmp_path, photos, 4)
    _add_search(run, "again", provenance={"git_commit": "0a1b2c", "config": {"num_steps": 10}})
    text = Page(write_report(str(run.path)).read_text()).text["schedules"]
    assert "provenance.git_commit 0a1b2c" in text
    assert "provenance.config" not in text
