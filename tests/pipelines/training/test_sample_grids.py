"""Grids of a base model, which has no low-resolution input: samples above held-out images of the same classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.runs.run_folder import create_run
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.sample_grids import draw_grid, draw_grid_between_steps, grid_path
from pipelines.training.worker_group import Team
from pipelines.training.worker_loop import train_as_worker
from sr3core.checkpoint import save_checkpoint, take_snapshot
from sr3core.config import override
from sr3core.training import create_state
from tests.preparing import prepared_classes


@pytest.fixture(scope="module")
def data(tmp_path_factory, photos, ray_session):
    """Labelled shards: ImageNet's folders of two classes."""
    return prepared_classes(photos, tmp_path_factory.mktemp("labelled"), 20, "base-8", validation_fraction=0.5)


@pytest.mark.parametrize("num_classes", [None, 2])
def test_a_base_models_grid_is_its_samples_and_the_originals(data, tmp_path, num_classes):
    config = override(small_stage(None, 8, 8, num_steps=10, num_workers=1), model__unet__num_classes=num_classes)
    run = create_run(tmp_path, RunConfig(name="base", stages=(config,)), data, {}, fresh=False)
    (stage,) = run.stages
    for step in (1, 2):
        state = create_state(config.model, config.optimizer, seed=step)
        state.step = step
        save_checkpoint(stage.checkpoints, take_snapshot(state), {})
        draw_grid(run.location, stage.name, step)
    first, last = (np.asarray(Image.open(grid_path(stage.path, step))) for step in (1, 2))
    assert first.shape == (2 * 8, 6 * 8, 3)
    assert np.array_equal(first[8:], last[8:]), "the same originals"
    assert first[:8].std() > 0


def test_a_worker_with_a_gpu_draws_grids_between_its_steps(data, tmp_path, caplog):
    """Worker 0 alone, which trains on the CPU here. The same weights give the grid that a task draws."""
    config = override(
        small_stage(None, 8, 8, num_steps=4, num_workers=1),
        **{"checkpoint_every": 2, "sample_every": 2, "batch_size": 8, "placement__trackers": ()},
        **{"placement__use_gpu": True, "placement__compile": False, "placement__decoding_processes": 0},
    )
    run = create_run(tmp_path, RunConfig(name="base", stages=(config,)), data, {}, fresh=False)
    (stage,) = run.stages
    train_as_worker(stage, Team(0, 1, torch.device("cpu")), lambda _: None)
    drawn = [grid_path(stage.path, step).read_bytes() for step in (2, 4)]
    grid_path(stage.path, 4).unlink()
    draw_grid(run.location, stage.name, 4)
    assert grid_path(stage.path, 4).read_bytes() == drawn[1] != drawn[0]
    grid_path(stage.path, 4).unlink()
    grid_path(stage.path, 4).mkdir()
    state = create_state(config.model, config.optimizer, seed=0)
    state.step = 4
    draw_grid_between_steps(stage, state)
    assert "step-00000004.png was not drawn: " in caplog.text
    assert state.model.training
