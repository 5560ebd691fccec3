"""Tiles: weights that sum to 1, one noise for all, no seams, and memory that does not grow with the image."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from sr3core.diffusion.noise import NoiseField
from sr3core.diffusion.schedules import default_schedule
from sr3core.errors import ConfigError
from sr3core.hyperparameters import (
    ModelConfig,
    NoiseScheduleConfig,
    ObjectiveConfig,
    OptimizerConfig,
    SamplerConfig,
)
from sr3core.images.resize import downsample_bicubic, upsample_bicubic, upsample_window
from sr3core.networks.architectures import unet_tiny
from sr3core.randomness import derive_seed, keyed_generator
from sr3core.training import create_state
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage, output_size, pad, refine
from sr3core.upscaling.tile_grid import Tiling, blend_weights, plan_tiles, tile_starts
from sr3core.upscaling.tiles import plan_cascade, run_tiled_cascade

STEPS = 4


class LocalNetwork(nn.Module):
    """A denoiser in closed form: y_0_hat is the mean of x_up and y_t over 3x3. Remembers the largest batch it saw."""

    size_multiple = 4

    def __init__(self):
        super().__init__()
        self.largest = 0
        self.calls = 0

    def forward(self, x_up, y_t, gamma, classes=None):
        self.largest = max(self.largest, y_t.numel())
        self.calls += 1
        return functional.avg_pool2d((x_up + y_t) / 2, 3, stride=1, padding=1)


def local_stage(low=8, high=16, kind: Literal["sr3", "regression"] = "sr3"):
    schedule = default_schedule(NoiseScheduleConfig(), STEPS) if kind == "sr3" else None
    objective = ObjectiveConfig(target="y_0")
    model = ModelConfig(kind=kind, low_size=low, high_size=high, unet=unet_tiny(high, 8), objective=objective)
    return Stage(f"{low}-{high}", model, LocalNetwork(), schedule)  # type: ignore[arg-type]


def real_stage():
    """The paper's network, small, with weights that are random and not zero."""
    model = ModelConfig(low_size=32, high_size=64, unet=unet_tiny(64, 8))
    network = create_state(model, OptimizerConfig(), seed=0).model.eval()
    generator = keyed_generator(0, "weights")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return Stage("32-64", model, network, default_schedule(NoiseScheduleConfig(), STEPS))


def picture(height, width):
    """Smooth, with an edge: (1, 3, height, width) in [-1, 1]."""
    y, x = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 6, width), indexing="ij")
    channels = [torch.sin(x + 0.3 * y), torch.cos(y - 0.5 * x), torch.where(x > y, 0.5, -0.5)]
    return torch.stack(channels)[None]


def whole(stages, low, tiling, seed=3, on_progress=None):
    strips = list(run_tiled_cascade(stages, low, seed, tiling, on_progress))
    tops = [top for top, _ in strips]
    assert tops == list(np.cumsum([0, *(strip.shape[-2] for _, strip in strips[:-1])]))
    return torch.cat([strip for _, strip in strips], dim=-2)


# --- where tiles lie, and what they weigh -----------------------------------------------------------------------------


@st.composite
def axes(draw):
    """(size, tile, overlap, multiple), as plan_tiles passes them on."""
    multiple = draw(st.integers(1, 8))
    tile = multiple * draw(st.integers(1, 12))
    return multiple * draw(st.integers(1, 60)), tile, draw(st.integers(0, tile - multiple)), multiple


@given(axes())
def test_tiles_cover_an_axis_and_share_the_overlap_at_least(axis):
    size, tile, overlap, multiple = axis
    starts = tile_starts(*axis)
    assert starts[0] == 0
    if size <= tile:
        assert starts == (0,)
        return
    assert starts[-1] + tile == size
    assert all(start % multiple == 0 for start in starts)
    gaps = np.diff(starts)
    assert gaps.min() > 0
    assert tile - gaps.max() >= overlap
    fewer = (size - tile) / (len(starts) - 2) if len(starts) > 2 else np.inf
    assert fewer > (tile - overlap) // multiple * multiple, "one tile less would do"


@given(axes())
def test_weights_are_a_partition_of_unity(axis):
    size, tile, *_ = axis
    starts = tile_starts(*axis)
    weights = blend_weights(starts, min(tile, size))
    total = np.zeros(max(size, starts[-1] + min(tile, size)))
    for start, weight in zip(starts, weights, strict=True):
        assert weight.min() >= 0
        total[start : start + len(weight)] += weight
    np.testing.assert_allclose(total, 1, atol=1e-12)


def test_weights_are_smooth_and_leave_the_edges_to_the_neighbour():
    first, second = blend_weights((0, 48), 64)
    np.testing.assert_allclose(first[48:] + second[:16], 1)
    assert (second[:4] == 0).all()
    assert (first[60:] == 0).all()
    assert (np.diff(second[:16]) >= 0).all()
    assert np.abs(np.diff(second)).max() < 0.21  # sin^2 over 8 pixels: no step


def test_a_tile_starts_at_whole_pixels_of_the_input_and_of_the_coarsest_level():
    grid = plan_tiles(3 * 37, 3 * 21, 48, 12, 12)
    assert all(start % 12 == 0 for start in (*grid.tops, *grid.lefts))
    assert grid.padded == (120, 72)
    assert grid.size == (111, 63)


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        ({"tile": 3}, "tile: 3 is too small for stage 8-16, which needs at least 4"),
        ({"tile": 16, "overlap": 14}, "overlap: 14 leaves tiles of 16 pixels no room"),
        ({"tile": 0}, "tile: 0 is not positive"),
        ({"overlap": -1}, "overlap: -1 is negative"),
        ({"batch": 0}, "batch: 0 is not positive"),
    ],
)
def test_tilings_that_cannot_be_are_refused(tiling, message):
    with pytest.raises(ConfigError, match=message):
        plan_cascade([local_stage()], 30, 30, Tiling(**tiling))


def test_the_default_tile_is_what_the_network_was_trained_on_or_256():
    model = ModelConfig(low_size=64, high_size=512, unet=unet_tiny(512, 8))
    assert Tiling().tile_of(replace(local_stage(), model=model)) == (512, 64)
    assert Tiling().tile_of(local_stage()) == (256, 32)
    assert Tiling(tile=50).tile_of(local_stage()) == (48, 6)


# --- one upsampling for all -------------------------------------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 8), st.data())
def test_a_window_of_bicubic_is_that_part_of_the_whole(height, width, magnification, data):
    images = torch.rand(1, 3, height, width, generator=keyed_generator(0, "bicubic", height, width))
    size = (height * magnification, width * magnification)
    top, left = data.draw(st.integers(0, size[0] - 1)), data.draw(st.integers(0, size[1] - 1))
    window = data.draw(st.integers(1, size[0] - top)), data.draw(st.integers(1, size[1] - left))
    expected = upsample_bicubic(images, size)[..., top : top + window[0], left : left + window[1]]
    torch.testing.assert_close(upsample_window(images, size, (top, left), window), expected)


# --- tiled or in one piece --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 13), (24, 20)])
@pytest.mark.parametrize("make", [local_stage, real_stage])
def test_an_image_that_fits_a_tile_is_computed_in_one_piece_exactly(make, height, width):
    stage, low = make(), picture(height, width)
    x_up = upsample_bicubic(low, (2 * height, 2 * width))
    x_up = pad(x_up, 2 * height + -2 * height % 4, 2 * width + -2 * width % 4)
    field = NoiseField(derive_seed(3, stage.name))
    assert torch.equal(whole([stage], low, Tiling(tile=64)), refine(stage, low, x_up, field.windows([(0, 0)])))


@pytest.mark.parametrize(("height", "width"), [(40, 40), (33, 71), (3, 90), (90, 1)])
@pytest.mark.parametrize("batch", [1, 3])
def test_where_the_overlap_covers_the_receptive_field_tiles_change_nothing(height, width, batch):
    """A chain of 4 steps of a 3x3 network sees 4 pixels; a quarter of an overlap of 16 is left to the neighbour."""
    stage, low = local_stage(), picture(height, width)
    one = whole([stage], low, Tiling(tile=256))
    tiled = whole([stage], low, Tiling(tile=32, overlap=16, batch=batch))
    assert plan_cascade([stage], height, width, Tiling(tile=32, overlap=16))[0].num_tiles > 1
    assert tiled.shape == (1, 3, 2 * height, 2 * width)
    torch.testing.assert_close(tiled, one, rtol=0, atol=1e-5)
    cut = whole([stage], low, Tiling(tile=4, overlap=0, batch=64))
    assert float((cut - one).abs().max()) > 0.01, "without an overlap it does change: the test can fail"


def test_a_cascade_of_tiles_is_the_cascade():
    stages, low = [local_stage(8, 16), local_stage(16, 32)], picture(21, 34)
    one = whole(stages, low, Tiling(tile=256))
    tiled = whole(stages, low, Tiling(tile=32, overlap=16, batch=2))
    assert tiled.shape == (1, 3, 84, 136)
    torch.testing.assert_close(tiled, one, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("low_size", "high_size"), [(25, 64), (48, 128), (12, 16)])
@pytest.mark.parametrize(("height", "width"), [(50, 75), (33, 71), (1, 40), (97, 48)])
def test_tiles_change_nothing_at_scales_that_are_not_whole(low_size, high_size, height, width):
    stage, low = local_stage(low_size, high_size), picture(height, width)
    multiple = stage.size_multiple
    tiling = Tiling(tile=-(-32 // multiple) * multiple + multiple, overlap=16)
    one, tiled = whole([stage], low, Tiling(tile=512)), whole([stage], low, tiling)
    rows, columns = (int(side * high_size / low_size + 0.5) for side in (height, width))
    assert one.shape == (1, 3, rows, columns)
    torch.testing.assert_close(tiled, one, rtol=0, atol=1e-5)
    assert (
        plan_cascade([stage], height, width, tiling)[0].num_tiles > 1 or max(rows, columns) <= tiling.tile_of(stage)[0]
    )
    torch.testing.assert_close(upscale(stage, low, [3]), one, rtol=0, atol=1e-6)


def test_a_cascade_of_scales_that_are_not_whole_is_as_large_as_it_says():
    stages = [local_stage(12, 16), local_stage(16, 24)]
    made = whole(stages, picture(19, 31), Tiling(tile=48, overlap=8))
    assert made.shape[-2:] == output_size([stage.model for stage in stages], 19, 31) == (38, 62)


def test_projected_outputs_of_a_scale_that_is_not_whole_are_consistent():
    """Of an image of whole pixels; the last columns of others are cut off, and with them what their mean needs."""
    stage, low = local_stage(25, 64), 0.5 * picture(50, 75)
    assert stage.schedule is not None
    projected = replace(stage, schedule=replace(stage.schedule, sampler=SamplerConfig(project=5)))
    errors = [
        float((downsample_bicubic(whole([each], low, Tiling(tile=512)), (50, 75)) - low).square().mean())
        for each in (stage, projected)
    ]
    assert errors[1] < 0.02 * errors[0]


def test_regression_is_tiled_too():
    stage, low = local_stage(kind="regression"), picture(40, 40)
    torch.testing.assert_close(
        whole([stage], low, Tiling(tile=32, overlap=8)), whole([stage], low, Tiling(tile=96)), rtol=0, atol=1e-5
    )


def seam(difference, grid):
    """Mean jump of (tiled - one piece) across the tiles' borders over its mean jump anywhere: 1 is no seam.

    A border is the middle of what two neighbours share.
    """
    jump = (difference[..., 1:] - difference[..., :-1]).abs().mean(dim=(0, 1, 2))
    pairs = zip(grid.lefts[:-1], grid.lefts[1:], strict=True)
    borders = [(before + grid.tile[1] + after) // 2 - 1 for before, after in pairs]
    return float(jump[borders].mean() / jump.mean())


def test_a_real_network_leaves_no_seam_and_without_overlap_it_would():
    """Group normalisation and attention see a whole tile, so tiles differ a little all over; blending hides it."""
    stage, low = real_stage(), picture(96, 96)
    one = whole([stage], low, Tiling(tile=192))
    seams = {}
    for overlap in (0, 16):
        tiling = Tiling(tile=64, overlap=overlap)
        difference = whole([stage], low, tiling) - one
        seams[overlap] = seam(difference, plan_cascade([stage], 96, 96, tiling)[0])
        assert float(difference.abs().mean()) < 0.2 * float(one.abs().mean())
    assert seams[16] < 1.2
    assert seams[0] > 2, "butted tiles do show: the test can fail"


def test_the_largest_batch_and_strip_do_not_grow_with_the_image():
    tiling = Tiling(tile=32, overlap=8, batch=2)
    seen = {}
    for side in (64, 192):
        stage = local_stage()
        network = stage.network
        assert isinstance(network, LocalNetwork)
        strips = list(run_tiled_cascade([stage], picture(side, 64), 0, tiling))
        seen[side] = network.largest, max(strip.numel() for _, strip in strips)
        assert network.calls > 0
    assert seen[64] == seen[192]
    assert seen[64][0] == 2 * 3 * 32 * 32
    assert seen[64][1] <= 3 * 32 * 128


def test_progress_counts_every_tile_and_step_of_all_stages():
    stages, told = [local_stage(8, 16), local_stage(16, 32)], []
    tiling = Tiling(tile=32, overlap=8, batch=2)

    def tell(progress):
        told.append((progress.tiles_done, progress.steps_done))

    whole(stages, picture(20, 30), tiling, on_progress=tell)
    tiles = sum(grid.num_tiles for grid in plan_cascade(stages, 20, 30, tiling))
    assert told[-1] == (tiles, tiles * STEPS)
    assert told == sorted(told)
