"""Models of fields: other numbers of channels, static maps, weights a value and a channel, no clipping."""

from dataclasses import replace

import pytest
import torch

from sr3core.batch import Batch
from sr3core.diffusion.schedules import default_schedule
from sr3core.errors import ConfigError
from sr3core.hyperparameters import (
    ModelConfig,
    NoiseScheduleConfig,
    ObjectiveConfig,
    OptimizerConfig,
    SamplerConfig,
    UNetConfig,
)
from sr3core.networks.flops import forward_flops
from sr3core.networks.memory import saved_activations
from sr3core.networks.unet import UNet
from sr3core.training import Trainer, create_state
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage
from sr3core.upscaling.tile_grid import Tiling
from sr3core.upscaling.tiles import run_tiled_cascade

MADE, FURTHER, STATIC = 2, 3, 2
UNET = UNetConfig(
    image_size=16,
    base_channels=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    attention_sizes=(),
    image_channels=MADE,
    extra_channels=FURTHER + STATIC,
)
MODEL = ModelConfig(
    low_size=4,
    high_size=16,
    unet=UNET,
    bounded=False,
    noise_schedule=NoiseScheduleConfig(family="cosine", num_steps=50),
    objective=ObjectiveConfig(target="v"),
)
SAMPLER = SamplerConfig(algorithm="ddim", clip="none")


def arrays(size=4):
    """low, high and static of some samples."""
    torch.manual_seed(0)
    low, high = 3 * torch.randn(size, MADE + FURTHER, 4, 4), 3 * torch.randn(size, MADE, 16, 16)
    return low, high, torch.randn(size, STATIC, 16, 16)


def batch(size=4):
    low, high, static = arrays(size)
    return Batch(low=low, high=high, positions=tuple(range(size)), static=static)


def trained(model, steps=3, mean=None):
    state = create_state(model, OptimizerConfig(learning_rate=1e-2, warmup_steps=0), seed=1)
    trainer = Trainer(model, OptimizerConfig(learning_rate=1e-2, warmup_steps=0), 1, mean)
    for _ in range(steps):
        trainer.step(state, state.model, [batch()])
    return state.model.eval()


def test_a_stage_of_fields_trains_and_makes_what_no_image_holds():
    network = trained(MODEL)
    stage = Stage("fields", MODEL, network, default_schedule(MODEL.noise_schedule, 4, SAMPLER))
    low, _, static = arrays(2)
    made = upscale(stage, low, [1, 2], static=static)
    assert made.shape == (2, MADE, 16, 16)
    assert made.abs().max() > 1


@pytest.mark.parametrize("residual", ["none", "upsampled", "regression"])
def test_tiles_of_fields_make_what_one_piece_makes(residual):
    twin = replace(MODEL, kind="regression", objective=ObjectiveConfig(norm=2))
    mean = trained(twin) if residual == "regression" else None
    scale = () if residual == "none" else (0.7, 1.3)
    model = replace(MODEL, objective=ObjectiveConfig(target="v", residual=residual, residual_scale=scale))
    network = trained(model, mean=mean)
    stage = Stage("fields", model, network, default_schedule(model.noise_schedule, 3, SAMPLER), mean)
    torch.manual_seed(5)
    low, static = torch.randn(1, MADE + FURTHER, 7, 9), torch.randn(1, STATIC, 28, 36)
    whole = upscale(stage, low, [3], static=static)
    one_tile = in_tiles(stage, low, static, Tiling(tile=64))
    torch.testing.assert_close(one_tile, whole, atol=1e-4, rtol=1e-4)
    tiled = in_tiles(stage, low, static, Tiling(tile=24, overlap=16))
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.1 * whole.abs().mean()


def in_tiles(stage, low, static, tiling):
    return torch.cat([strip for _, strip in run_tiled_cascade([stage], low, 3, tiling, static=static)], -2)


def test_the_static_maps_and_the_further_channels_are_seen():
    network, (low, _, static) = trained(MODEL), arrays(1)
    stage = Stage("fields", MODEL, network, default_schedule(MODEL.noise_schedule, 2, SAMPLER))
    made = upscale(stage, low, [1], static=static)
    other = low.clone()
    other[:, -1] += 1
    assert not torch.equal(upscale(stage, other, [1], static=static), made)
    assert not torch.equal(upscale(stage, low, [1], static=static + 1), made)


def test_what_is_not_known_has_no_part_in_the_gradient():
    known = torch.ones(4, 1, 16, 16)
    known[..., :5] = 0
    known[0] = 0
    high = batch().high.requires_grad_()
    model = replace(MODEL, objective=ObjectiveConfig(target="y_0", norm=2))
    part = replace(batch(), high=high, weights=known)
    losses = Trainer(model, OptimizerConfig(), 1).losses(lambda x_up, y_t, *_: torch.zeros_like(y_t), part, 0)
    losses.values.sum().backward()
    assert (high.grad[..., :5] == 0).all()
    assert (high.grad[0] == 0).all()
    assert (high.grad[1:, ..., 5:] != 0).all()


def test_weights_of_one_leave_the_loss_as_it_was_and_channels_count_by_theirs():
    network, sample = trained(MODEL), batch()
    plain = Trainer(MODEL, OptimizerConfig(), 1).losses(network, sample, 0).values
    ones = Trainer(MODEL, OptimizerConfig(), 1).losses(network, replace(sample, weights=torch.ones(4, 1, 16, 16)), 0)
    torch.testing.assert_close(ones.values, plain)
    parts = []
    for weights in ((1.0, 0.0), (0.0, 1.0), (3.0, 1.0)):
        model = replace(MODEL, objective=ObjectiveConfig(target="v", channel_weights=weights))
        parts.append(Trainer(model, OptimizerConfig(), 1).losses(network, sample, 0).values)
    torch.testing.assert_close(parts[0] / 2 + parts[1] / 2, plain)
    torch.testing.assert_close(0.75 * parts[0] + 0.25 * parts[1], parts[2])


def test_a_batch_of_fields_splits_with_all_it_holds():
    whole = replace(batch(), weights=torch.rand(4, 1, 16, 16))
    for number, part in enumerate(whole.split(2)):
        half = slice(2 * number, 2 * number + 2)
        for name in ("low", "high", "static", "weights"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[half])


def test_a_schedule_that_clips_is_refused_for_fields():
    clipping = default_schedule(MODEL.noise_schedule, 2)
    with pytest.raises(ConfigError, match="clip 'static' is for images"):
        Stage("fields", MODEL, UNet(UNET), clipping)
    projecting = default_schedule(MODEL.noise_schedule, 2, SamplerConfig(clip="none", project=1))
    with pytest.raises(ConfigError, match="project 1 is for images"):
        Stage("fields", MODEL, UNet(UNET), projecting)


def test_what_counts_operations_and_memory_knows_the_channels():
    assert forward_flops(UNET) > forward_flops(replace(UNET, extra_channels=0))
    with torch.device("meta"):
        network = UNet(UNET)
    assert saved_activations(network).of_ends > 0


def weighted(*weights):
    return replace(MODEL, objective=ObjectiveConfig(channel_weights=weights))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: replace(UNET, image_channels=0), "image_channels: 0 is not positive"),
        (lambda: Trainer(weighted(1.0), OptimizerConfig(), 1), "1 for 2 channels"),
        (lambda: ObjectiveConfig(channel_weights=(0.0, 0.0)), "one of them more"),
    ],
)
def test_numbers_of_channels_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        change()
