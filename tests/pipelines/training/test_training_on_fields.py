"""Training on fields: sizes and channels from the data, a regression and a chain on top of it, resumed bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pipelines.ingest.split_reader import open_training_split
from pipelines.prepare.fields.preparation import prepare_fields
from pipelines.runs.field_samples import fitted_to_data, levels_of
from pipelines.runs.run_data import require_data
from pipelines.runs.run_folder import Run, create_run, data_fingerprints, open_run
from pipelines.settings.presets import preset, small_stage
from pipelines.training.sample_grids import draw_grid_between_steps, grid_path
from sr3core.checkpoint import read_info, sampling_weights
from sr3core.config import override, to_dict
from sr3core.errors import ConfigError, DataError
from sr3core.training import create_state
from tests.field_runs import begin, shallow, train, trained
from tests.field_stores import config, written


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = written(tmp_path_factory.mktemp("stores"))
    wanted = config(folder, folder, missing="mask")
    prepare_fields(wanted)
    return wanted.out


@pytest.fixture(scope="module")
def run(data: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("runs") / "run", data)


def test_sizes_and_channels_are_those_of_the_data(data):
    model = fitted_to_data(preset("fields"), data).stages[0].model
    assert (model.low_size, model.high_size, model.unet.image_size) == (8, 32, 32)
    assert (model.unet.image_channels, model.unet.extra_channels, model.bounded) == (5, 2, False)
    assert model.unet.channel_multipliers == (1, 2, 2)
    assert [len(levels_of(size)) for size in (208, 128, 36, 25)] == [5, 5, 3, 1]
    assert preset("demo") == fitted_to_data(preset("demo"), data)


def test_a_run_and_its_checkpoints_carry_the_channels(run):
    stage = run.stage("fields")
    assert stage.sample is not None
    assert [channel.name for channel in stage.sample.high] == ["t2m", "u10", "v10", "tp", "q2m"]
    assert read_info(stage.checkpoints / "step-00000004").state["sample"] == to_dict(stage.sample)
    assert len(stage.model.objective.residual_scale) == 5
    losses = [line for line in stage.metrics.read_text().splitlines() if '"validation"' in line]
    assert len(losses) == 3


def test_a_training_of_fields_resumes_bit_for_bit(run, data, tmp_path):
    both = shallow(data)
    half = replace(both, stages=(override(both.stages[0], num_steps=2), both.stages[1]))
    first = create_run(tmp_path / "run", half, data, data_fingerprints(data, half), fresh=False)
    train(first, "fields-regression")
    begin(first)
    train(open_run(first.path), "fields")
    again = trained(tmp_path / "run", data)
    ours, theirs = (
        load_file(sampling_weights(read_info(r.stage("fields").checkpoints / "step-00000004"))) for r in (run, again)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_decoding_processes_make_the_same_batches_as_threads(run, data, tmp_path):
    other = trained(tmp_path / "run", data, placement__decoding_processes=1)
    ours, theirs = (
        load_file(sampling_weights(read_info(r.stage("fields").checkpoints / "step-00000004"))) for r in (run, other)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_grid_of_fields_is_drawn_in_colours(run):
    stage = run.stage("fields")
    state = create_state(stage.model, stage.config.optimizer, 0)
    state.step = 7
    draw_grid_between_steps(stage, state)
    grid = np.asarray(Image.open(grid_path(stage.path, 7)))
    assert grid.shape[:2] == (3 * 32, 6 * 32)
    assert len(np.unique(grid.reshape(-1, grid.shape[-1]), axis=0)) > 50


def test_a_run_on_other_statistics_is_not_continued(run, data, tmp_path):
    place = tmp_path / "run"
    made = trained(place, data)
    folder = written(tmp_path)
    other = config(folder, tmp_path / "other", missing="mask", seed=5)
    prepare_fields(other)
    with pytest.raises(ConfigError, match=r"a run with a different configuration: .*samples"):
        create_run(place, made.config, other.out, data_fingerprints(other.out, made.config), fresh=False)


def test_presets_of_images_are_not_for_fields(data):
    images = small_stage(8, 32, base_channels=8, num_steps=2, num_workers=0)
    with pytest.raises(DataError, match=r"holds fields .* `sr3 train fields` takes the numbers from the data"):
        open_training_split(data, images)


def test_a_preset_of_fields_is_not_for_images(tmp_path):
    with pytest.raises(DataError, match="holds no fields; prepare a store with"):
        fitted_to_data(preset("fields"), str(tmp_path))


def test_commands_for_images_say_that_these_are_fields(run):
    with pytest.raises(DataError, match="holds fields: this command is for images"):
        require_data(run, "8-32", "validation")
