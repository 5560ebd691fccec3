"""metrics.jsonl stays JSON when a loss is not a number, and is read whether or not it was."""

import json
import math

import torch

from pipelines.runs.run_folder import open_run, read_metrics
from pipelines.training.metrics_log import MetricsLog
from pipelines.training.worker_group import Team
from sr3core.training import StepStatistics


def refuse(constant: str):
    raise AssertionError(f"{constant} is not JSON")


def test_a_loss_that_is_not_a_number_is_null_and_named(cascade_run):
    stage = open_run(cascade_run).stage("8-16")
    log = MetricsLog(stage, 0, Team(0, 1, torch.device("cpu")))
    bad = {"loss": torch.tensor(math.nan), "gradient_norm": torch.tensor(math.inf), "is_bad": torch.tensor(True)}
    log.add(StepStatistics(sample_losses=torch.tensor([math.nan]), **bad))
    log.write({"step": 1, "kind": "train", **log.interval()})
    log.close()
    (line,) = stage.metrics.read_text().splitlines()
    written = json.loads(line, parse_constant=refuse)
    assert written["loss"] is None
    assert written["not_finite"] == {"/loss": "nan", "/gradient_norm": "inf"}
    (read,) = read_metrics(stage.metrics)
    assert math.isnan(read["loss"])
    assert read["gradient_norm"] == math.inf


def test_lines_of_earlier_versions_stay_readable_and_become_strict(cascade_run):
    stage = open_run(cascade_run).stage("16-32")
    stage.metrics.write_text('{"step": 1, "kind": "train", "loss": NaN, "seconds": 2.0}\n')
    assert math.isnan(read_metrics(stage.metrics)[0]["loss"])
    MetricsLog(stage, 1, Team(0, 1, torch.device("cpu"))).close()
    assert json.loads(stage.metrics.read_text(), parse_constant=refuse)["loss"] is None
