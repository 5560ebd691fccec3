"""Searching the schedule of a stage of fields by proper scores of ensembles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.evaluation.fields.forecasts import standardised
from pipelines.prepare.fields.preparation import prepare_fields
from pipelines.runs.run_folder import Run, open_run
from sr3core.diffusion.schedules import InferenceSchedule, default_sampler, default_schedule
from sr3core.errors import ConfigError
from sr3core.metrics.ensemble import fair_crps
from sr3core.randomness import derive_seed
from sr3core.samples.transforms import to_physical
from sr3core.upscaling.cascade import upscale
from tests.field_runs import trained
from tests.field_stores import config, written
from tune.search.confirmation.gain import gain_of
from tune.search.objective.estimates import standard_errors, summarise
from tune.search.objective.evaluator import Evaluator
from tune.search.objective.held_out_images import fit_to_images
from tune.search.objective.measurements import Measurements, Task
from tune.search.objective.task import load_task
from tune.search.schedule_search import search
from tune.search.settings import SearchConfig

NUM_SAMPLES = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = written(tmp_path_factory.mktemp("stores"))
    wanted = config(folder, folder, missing="mask", validation_fraction=0.4, test_fraction=0.2)
    prepare_fields(wanted)
    return trained(folder / "run", wanted.out)


def settings(run: Run, **changes) -> SearchConfig:
    wanted = SearchConfig(
        stage="fields", num_steps=2, num_trials=7, num_images=NUM_SAMPLES, num_concurrent=1, **changes
    )
    return fit_to_images(run.stage("fields"), wanted, lambda _: None)


@pytest.fixture(scope="module")
def task(run: Run) -> Task:
    return load_task(run.stage("fields"), settings(run, members=3))


def schedule_of(run: Run, steps: int) -> InferenceSchedule:
    model = run.stage("fields").model
    return default_schedule(model.noise_schedule, steps, default_sampler(model))


def test_the_score_is_that_of_the_ensemble_that_upscaling_makes(run: Run, task: Task) -> None:
    schedule = schedule_of(run, 2)
    found = Evaluator(task).measured(schedule, NUM_SAMPLES)
    assert task.fields is not None
    samples = task.fields.samples
    stage = run.stage("fields").load("2")
    batch = samples.batch(slice(0, 1), (0,)).to("cpu")
    assert batch.low is not None
    members = []
    for member in range(3):
        seed = derive_seed(task.seed, "search", samples.keys[0], member)
        made = upscale(replace(stage, name="8-32"), batch.low, [seed], static=batch.static)
        members.append(torch.from_numpy(to_physical(made.numpy(), samples.spec.high)))
    truth = torch.tensor(samples.records[0].high)[None]
    expected = fair_crps(*(standardised(each, samples.spec) for each in (torch.stack(members), truth))).mean()
    assert found.features[0, 0] == pytest.approx(float(expected), rel=1e-3)
    numbers = summarise(found, task, 0)
    assert numbers["objective"] == numbers["distance"] == pytest.approx(found.features[:, 0].mean())


def test_errors_leave_out_whole_blocks(task: Task) -> None:
    """Scores that are equal within a block and differ between blocks: single samples would look independent."""
    assert task.groups is not None
    values = np.random.default_rng(0).normal(size=task.groups.max() + 1)[task.groups]
    nothing = np.zeros(NUM_SAMPLES)
    found = Measurements(np.stack([values, values], 1), nothing, nothing, nothing, nothing)
    ours = standard_errors(found, task.references, task)["objective_error"]
    alone = values.std(ddof=1) / np.sqrt(NUM_SAMPLES)
    assert ours > 1.5 * alone
    worse = replace(found, features=found.features + 1)
    gain = gain_of(task, [(found, worse)], "crps")
    assert gain.value == pytest.approx(1)


def test_the_objective_fits_what_a_stage_makes(run: Run) -> None:
    assert settings(run).objective == "crps"
    assert settings(run).warm_starts == ()
    assert settings(run, objective="energy").objective == "energy"
    with pytest.raises(ConfigError, match="kid is of images, and fields makes fields; take crps or energy"):
        settings(run, objective="kid")


def test_a_search_by_crps_publishes_a_schedule_that_upscaling_takes(run: Run, ray_session: str) -> None:
    lines: list[str] = []
    wanted = SearchConfig(stage="fields", num_steps=2, num_trials=8, num_images=NUM_SAMPLES, members=2)
    found = search(str(run.path), wanted, lines.append)
    report = found.report
    assert len(report.trials) == 8
    assert all(trial.status == "done" and trial.sampler.clip == "none" for trial in report.trials)
    assert report.label == "CRPS of 2 members, in standard deviations of the channels"
    assert report.confirmation is not None
    assert report.confirmation.trials[0].objective is not None
    assert any("CRPS" in line for line in lines)
    assert open_run(Path(run.path)).stage("fields").load(None, few_steps=True).schedule == found.schedule
