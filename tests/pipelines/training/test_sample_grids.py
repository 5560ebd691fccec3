"""Grids of a base model, which has no low-resolution input: samples above held-out images of the same classes."""

import numpy as np
import pytest
from PIL import Image

from pipelines.runs.run_folder import create_run
from pipelines.settings.presets import small_stage
from pipelines.settings.train import RunConfig
from pipelines.training.sample_grids import draw_grid, grid_path
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
