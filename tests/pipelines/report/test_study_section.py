"""The study as a section of the report: its numbers, its embedded figures, from RUN/study or a named folder."""

import base64
import re
import shutil
from pathlib import Path

import pytest

from pipelines.report.html_report import write_report
from pipelines.study.results import write_results
from pipelines.study.study_folder import Study
from sr3core.errors import DataError
from tests.pipelines.study.test_results import take
from tests.reporting import make_run
from tests.study_subjects import make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Study:
    """A study with results."""
    made = make_study(tmp_path_factory.mktemp("section"), photos)
    known = made.plan.images[0]
    take(made, lambda slot, trial, _: trial.kind == "trial" and slot.model == "soft" and trial.image != known)
    write_results([str(made.path)], num_replicates=200)
    return made


def test_the_section_has_the_numbers_and_the_figures(study, photos, tmp_path):
    run = make_run(tmp_path, photos, num_images=2)
    assert 'id="study"' not in write_report(str(run.path)).read_text()  # nothing is claimed where there was no study
    page = write_report(str(run.path), str(study.path)).read_text()
    section = page[page.index('<section id="study">') :]
    section = section[: section.index("</section>")]
    assert study.config.question in section
    rows = re.findall(r'<th scope="row">(\w+)</th><td class="number">([\d.]+)</td>', section)
    rates = {model: float(rate) for model, rate in rows}
    assert rates["bicubic"] == 0
    assert rates["soft"] > 50
    assert section.index("Fool rate of each model") < section.index("<table"), "the chart leads"
    assert "bicubic minus soft" in section
    embedded = [base64.b64decode(data) for data in re.findall(r"base64,([\w+/=]+)", section)]
    figures = study.path / "figures"
    assert embedded == [(figures / name).read_bytes() for name in ("fool-rates.svg", "extremes-task-1.png")]
    assert page.count('href="#study"') == 1


def test_a_runs_own_study_is_found(study, photos, tmp_path):
    run = make_run(tmp_path, photos, num_images=2)
    shutil.copytree(study.path, run.path / "study")
    assert 'id="study"' in write_report(str(run.path)).read_text()


def test_a_study_without_results_is_refused_where_it_was_named(photos, tmp_path):
    run = make_run(tmp_path, photos, num_images=2)
    with pytest.raises(DataError, match="has no results; `sr3 study results"):
        write_report(str(run.path), str(tmp_path))
