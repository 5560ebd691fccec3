"""A network of crops is searched on whole images: in tiles, as they are upscaled later."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sr3core.config import override
from sr3core.diffusion.schedules import default_schedule, training_gammas
from sr3core.features.extractors import SeededFeatures, extract_features
from sr3core.networks.unet import UNet
from tests.tune.search.tiny_search import make_images, tiny_model
from tune.search.objective.evaluator import Evaluator
from tune.search.objective.measurements import Task
from tune.search.proposals.warm_start import warm_starts
from tune.search.settings import ObjectiveWeights

TILE = 8


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> set[tuple[int, ...]]:
    """Sides of what the network of a task is called with."""
    monkeypatch.setattr("sr3core.upscaling.tile_grid.SMALLEST_DEFAULT_TILE", TILE)
    return set()


@pytest.fixture
def task(tmp_path: Path, seen: set[tuple[int, ...]]) -> Task:
    """A stage 4 -> 16 on crops of 8, and four images."""
    model = override(tiny_model(), unet__image_size=TILE)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: Any = UNet(model.unet)
        torch.nn.init.normal_(network.conv_out.weight, std=0.05)
    network.register_forward_hook(lambda _, inputs, __: seen.add(tuple(inputs[1].shape[-2:])))
    images, features = make_images(4, 1), SeededFeatures()
    return Task(
        model=model,
        mean=None,
        network=network,
        feature_network=features,
        keys=images.keys,
        low=images.low,
        high=images.high,
        references=extract_features(features, images.high),
        identity="task",
        cache=tmp_path / "measured",
        purpose="search",
        seed=0,
        rungs=(4,),
        paired=True,
        estimates=("kid",),
        weights=ObjectiveWeights(),
        batch_size=4,
    )


def test_schedules_are_judged_in_tiles_whatever_the_batch(task: Task, seen: set[tuple[int, ...]]) -> None:
    schedule = default_schedule(task.model.noise_schedule, 2)
    together = Evaluator(task).measure(schedule, 0, 4)
    alone = Evaluator(replace(task, batch_size=1)).measure(schedule, 0, 4)
    assert seen == {(TILE, TILE)}
    np.testing.assert_allclose(together.psnr, alone.psnr, atol=0.05)


@pytest.mark.parametrize("method", ["elbo", "gits"])
def test_warm_starts_are_found_in_tiles(task: Task, seen: set[tuple[int, ...]], method: Any) -> None:
    smallest = float(training_gammas(task.model.noise_schedule)[-1])
    (found,) = warm_starts(task, method, (3,), smallest, 1, 0)
    assert found.num_steps == 3
    assert seen == {(TILE, TILE)}
