"""`sr3 evaluate` of a run of fields: another computation of the same scores, what is kept, and what is refused."""

import json

import numpy as np
import pytest
import torch

from cluster.cli import main
from pipelines.evaluation.fields.evaluate import FILE, describe, evaluate_fields
from pipelines.evaluation.fields.scores import tabulate
from pipelines.ingest.fields.split import load_fields
from pipelines.prepare.fields.preparation import prepare_fields
from pipelines.runs.run_folder import Run
from pipelines.settings.evaluate import EvaluateConfig
from sr3core.images.resize import upsample_bicubic
from sr3core.samples.transforms import to_physical
from tests.field_runs import trained
from tests.field_stores import config, written

NUM_MEMBERS = 3
SETTINGS = EvaluateConfig(members=NUM_MEMBERS, schedule="2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = written(tmp_path_factory.mktemp("stores"))
    wanted = config(folder, folder, missing="mask", test_fraction=0.5)
    prepare_fields(wanted)
    return trained(folder / "run", wanted.out)


@pytest.fixture(scope="module")
def evaluation(run: Run) -> dict:
    return evaluate_fields(str(run.path), SETTINGS)


def test_interpolation_scores_what_another_computation_says(run: Run, evaluation: dict) -> None:
    samples = load_fields(run.data, "8-32", "test")
    truth = np.stack([record.high for record in samples.records])
    made = to_physical(upsample_bicubic(torch.tensor(samples.arrays["low"][:, :5]), 32).numpy(), samples.spec.high)
    found = evaluation["methods"]["interpolation"]
    assert evaluation["num_images"] == len(truth)
    for number, name in enumerate(("t2m", "u10", "v10", "tp", "q2m")):
        error = made[:, number] - truth[:, number]
        assert found[name]["rmse"]["mean"] == pytest.approx(np.sqrt(np.square(error).mean()), rel=1e-4)
        assert found[name]["bias"]["mean"] == pytest.approx(error.mean(), rel=1e-3, abs=1e-5)
        assert found[name]["crps"]["mean"] == pytest.approx(np.abs(error).mean(), rel=1e-4)
    assert set(found["tp"]) == {"rmse", "mae", "bias", "crps", "coarsened_rmse"}
    assert "coarsened_rmse" not in found["q2m"], "the input has none"


def test_all_forecasts_are_scored_with_intervals_over_blocks(evaluation: dict) -> None:
    assert list(evaluation["methods"]) == ["interpolation", "regression", "ensemble"]
    assert evaluation["num_groups"] == 6, "blocks of five days"
    ours = evaluation["methods"]["ensemble"]
    assert {"crps", "spread_skill"} < set(ours["t2m"])
    assert ours["t2m"]["crps"]["low"] < ours["t2m"]["crps"]["mean"] < ours["t2m"]["crps"]["high"]
    assert len(evaluation["ranks"]["t2m"]) == NUM_MEMBERS + 1
    assert sum(evaluation["ranks"]["t2m"]) == pytest.approx(1)
    assert len(evaluation["spectra"]["truth"]["tp"]) == 16
    text = "\n".join([*tabulate(evaluation), *describe(evaluation)])
    assert "t2m [K]" in text
    assert "tp: the ensemble's CRPS is" in text


def test_it_is_written_and_what_was_made_is_not_made_again(run: Run, evaluation: dict) -> None:
    assert json.loads((run.path / FILE).read_text())["methods"] == evaluation["methods"]
    folder = run.path / "samples" / "fields"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    first = folder / "000001.npz"
    first.unlink()
    assert evaluate_fields(str(run.path), SETTINGS)["methods"] == evaluation["methods"]
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert {name for name in before if before[name] != after[name]} == {"000001.npz"}


def test_options_for_images_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--run", str(run.path), "--from-noise", "4"]) == 2
    assert "--from-noise is for images" in capsys.readouterr().err
    assert main(["evaluate", "--run", str(run.path), "--members", "4", "--dry-run"]) == 0
    assert "would evaluate ensembles of 4 members by fields of" in capsys.readouterr().out
