"""Whole images through a network that was trained on crops: in tiles, one pass or a whole chain each."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from sr3core.config import override
from sr3core.upscaling.cascade import run_cascade, upscale
from sr3core.upscaling.tile_grid import Tiling
from sr3core.upscaling.tiled_network import TiledNetwork, for_whole_images
from tests.sr3core.upscaling.test_tiles import LocalNetwork, local_stage, picture, real_stage, whole


def pointwise(x_up, y_t, gamma, *told):
    """A network without neighbours, which tiles cannot change."""
    level = torch.stack([gamma, *(value for value in told if value is not None)]).sum(0)
    return torch.tanh(x_up[:, :3] + 2 * y_t) * level[:, None, None, None]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (40, 56), (37, 51)])
@pytest.mark.parametrize("batch", [1, 5])
def test_tiles_are_blended_to_what_the_whole_image_gives(height, width, batch):
    x_up = torch.cat([picture(height, width), -picture(height, width)])
    y_t, gamma, told = x_up.flip(-1), torch.tensor([0.3, 0.9]), torch.tensor([0.1, 0.2])
    tiled = TiledNetwork(pointwise, tile=16, overlap=4, multiple=4, batch=batch)
    found = tiled(x_up, y_t, gamma, None, told)
    torch.testing.assert_close(found, pointwise(x_up, y_t, gamma, None, told), rtol=0, atol=1e-6)


def test_a_tile_sees_its_neighbours_pixels_and_no_more_than_a_batch_at_once():
    network, image = LocalNetwork(), picture(64, 64)
    tiled = TiledNetwork(network, tile=16, overlap=8, multiple=4, batch=3)
    found = tiled(image, image, torch.ones(1), None)
    # The outer quarter of an overlap has no weight, so that the averages of 3x3 pixels never see a tile's edge.
    torch.testing.assert_close(found, network(image, image, torch.ones(1)), rtol=0, atol=1e-6)
    network.largest = 0
    tiled(image, image, torch.ones(1), None)
    assert network.largest == 3 * 3 * 16 * 16
    assert functional.avg_pool2d(image, 3).std() > 0.1, "which an average of constants would not show"


def test_what_is_one_tile_goes_through_as_it_is():
    given, image = [], picture(16, 16)
    tiled = TiledNetwork(lambda *inputs: given.append(inputs) or inputs[1], tile=16, overlap=4, multiple=4)
    gamma = torch.ones(1)
    assert tiled(image, image, gamma, None) is image
    assert given == [(image, image, gamma, None)]


def test_networks_of_whole_images_stay_as_they_are_and_others_get_the_tiles_of_upscaling(monkeypatch):
    monkeypatch.setattr("sr3core.upscaling.tile_grid.SMALLEST_DEFAULT_TILE", 8)
    stage = local_stage()
    assert for_whole_images(stage.model, pointwise) is pointwise
    crops = override(stage.model, high_size=32, unet__image_size=16)
    tiled = for_whole_images(crops, pointwise)
    assert isinstance(tiled, TiledNetwork)
    assert (tiled.tile, tiled.overlap) == Tiling().tile_of(replace(stage, model=crops))


@pytest.mark.parametrize("kind", ["sr3", "regression"])
def test_a_stage_of_crops_upscales_large_images_as_run_tiled_cascade_does(monkeypatch, kind):
    monkeypatch.setattr("sr3core.upscaling.tile_grid.SMALLEST_DEFAULT_TILE", 8)
    stage = local_stage(8, 32, kind)
    stage = replace(stage, model=override(stage.model, unet__image_size=16))
    low, reports = torch.cat([picture(8, 8), picture(8, 11)[..., 3:]]), []
    found = upscale(stage, low, [3, 4], lambda *numbers: reports.append(numbers))
    for number, seed in enumerate((3, 4)):
        expected = whole([stage], low[number : number + 1], Tiling(batch=2), seed)
        torch.testing.assert_close(found[number : number + 1], expected, rtol=0, atol=0)
    assert reports == [(step, stage.num_steps) for step in range(1, stage.num_steps + 1)]
    assert torch.equal(run_cascade([stage], low, [3, 4]), found)


def test_an_image_that_is_no_larger_than_a_tile_is_upscaled_in_one_piece(monkeypatch):
    stage = real_stage()
    small = replace(stage, model=override(stage.model, unet__image_size=32))
    low = picture(32, 32)
    with torch.no_grad():
        assert torch.equal(upscale(small, low, [1]), upscale(stage, low, [1]))
