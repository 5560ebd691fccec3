"""The report of a run of fields: scores, maps in colours with shared ranges, spectra and ranks, in one file."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from pipelines.evaluation.fields.evaluate import FILE, evaluate_fields
from pipelines.prepare.fields.preparation import prepare_fields
from pipelines.report.fields.maps import coloured, field_maps
from pipelines.report.html_report import write_report
from pipelines.runs.run_folder import Run
from pipelines.settings.evaluate import EvaluateConfig
from tests.field_runs import trained
from tests.field_stores import config, written


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = written(tmp_path_factory.mktemp("stores"))
    wanted = config(folder, folder, missing="mask", test_fraction=0.4)
    prepare_fields(wanted)
    found = trained(folder / "run", wanted.out)
    evaluate_fields(str(found.path), EvaluateConfig(members=3, schedule="2", limit=3))
    return found


def test_the_page_has_scores_maps_spectra_and_ranks_and_nothing_of_images(run: Run) -> None:
    page = write_report(str(run.path)).read_text()
    assert "<h3>t2m, K</h3>" in page
    assert "All channels, standardised" in page
    for title in (
        "Input",
        "Interpolation",
        "Regression",
        "Ensemble mean",
        "Member 2",
        "Truth",
        "Spread",
        "Mean − truth",
    ):
        assert f"<figcaption>{title}</figcaption>" in page
    assert "tp: power spectrum" in page
    assert "q2m: rank histogram" in page
    assert "PSNR, dB" not in page.split('id="training"')[0]
    assert not re.search(r'(src|href)="http', page)


def test_maps_have_the_values_of_the_truth_in_one_range(run: Run) -> None:
    channels = [{"name": "t2m", "units": "K"}, {"name": "u10", "units": ""}, {"name": "v10", "units": ""}]
    rows = field_maps(
        run.path / "samples" / "fields", {"channels": channels, "low": ["t2m", "u10", "v10", "tp", "z500"]}
    )
    assert [row["title"] for row in rows[:3]] == [f"Sample 1: {c['name']}" for c in channels]
    cells = {cell["title"]: cell for cell in rows[0]["cells"]}
    assert cells["Input"]["size"] == (8, 8)
    with np.load(run.path / "samples" / "fields" / "000000.npz") as stored:
        truth = stored["shown/truth"][0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(cells["Truth"]["src"].partition(",")[2]))))
    lowest, highest = np.percentile(truth, [2, 98])
    expected = coloured(truth, float(lowest), float(highest), "viridis")
    np.testing.assert_array_equal(pixels[::8, ::8], expected)


def test_a_run_that_is_not_evaluated_says_so(run: Run) -> None:
    (run.path / FILE).rename(run.path / "elsewhere.json")
    page = write_report(str(run.path)).read_text()
    (run.path / "elsewhere.json").rename(run.path / FILE)
    assert "The run is not evaluated yet." in page
    assert "sr3 evaluate --run writes field-evaluation.json" in page
