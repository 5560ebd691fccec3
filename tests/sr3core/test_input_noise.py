"""Noise-conditioning augmentation: noise on the input in training, told to the network, and a knob afterwards."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sr3core.batch import Batch
from sr3core.diffusion.noise import add_input_noise
from sr3core.diffusion.schedules import default_schedule
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, NoiseScheduleConfig, ObjectiveConfig, OptimizerConfig
from sr3core.networks.architectures import unet_tiny
from sr3core.networks.unet import UNet
from sr3core.randomness import keyed_generator
from sr3core.training import Trainer, create_state
from sr3core.upscaling.cascade import upscale
from sr3core.upscaling.stage import Stage
from sr3core.upscaling.tile_grid import Tiling
from sr3core.upscaling.tiles import run_tiled_cascade

LARGEST = 0.5
MODEL = ModelConfig(low_size=8, high_size=16, unet=replace(unet_tiny(16, 8), input_noise=LARGEST))


def pictures(count: int, side: int, name: str = "pictures") -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=keyed_generator(0, name)) * 2 - 1


class Spy(torch.nn.Module):
    """A network that notes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(
        self, x_up: torch.Tensor, y_t: torch.Tensor, gamma: torch.Tensor, classes: None, input_noise: torch.Tensor
    ) -> torch.Tensor:
        self.seen.append((x_up, input_noise))
        return torch.zeros_like(y_t)


def test_the_noise_keeps_the_variance_of_images_that_have_one_of_one() -> None:
    low, levels = torch.randn(3, 3, 64, 64), torch.tensor([0.0, 0.3, 0.9])
    noisy = add_input_noise(low, levels, [1, 2, 3])
    assert torch.equal(noisy[0], low[0])
    np.testing.assert_allclose(noisy.std((1, 2, 3)), 1, atol=0.03)
    for image, clean, level in zip(noisy, low, levels.tolist(), strict=True):
        correlation = float(torch.corrcoef(torch.stack([image.flatten(), clean.flatten()]))[0, 1])
        assert correlation == pytest.approx((1 - level**2) ** 0.5, abs=0.03)


def test_training_adds_noise_of_levels_that_step_and_position_decide_and_tells_them() -> None:
    spy, trainer = Spy(), Trainer(MODEL, OptimizerConfig(), seed=3)
    batch = Batch(pictures(64, 8), pictures(64, 16, "targets"), tuple(range(64)))
    trainer.losses(spy, batch, 7)
    trainer.losses(spy, batch.split(2)[1], 7)
    trainer.losses(spy, batch, 8)
    (x_up, levels), (half, levels_of_half), (_, later) = spy.seen
    assert 0 < float(levels.min()) < 0.05
    assert 0.45 < float(levels.max()) < LARGEST
    assert torch.equal(levels[32:], levels_of_half)
    assert torch.equal(x_up[32:], half)
    assert not torch.equal(levels, later)


def test_a_network_without_it_is_called_as_before_and_refuses_to_be_told() -> None:
    network = UNet(unet_tiny(16, 8))
    assert not any("input_noise" in name for name in network.state_dict())
    images, gamma = pictures(2, 16), torch.full((2,), 0.5)
    with pytest.raises(ValueError, match="input_noise is not wanted"):
        network(images, images, gamma, None, torch.zeros(2))


def trained_stage(noise: float) -> Stage:
    """A stage whose weights are random, so that all that it is told changes what it draws."""
    network = create_state(MODEL, OptimizerConfig(), seed=0).model.eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=keyed_generator(0, "weights")))
    return Stage("8-16", MODEL, network, default_schedule(NoiseScheduleConfig(), 4), input_noise=noise)


def test_the_knob_changes_what_is_drawn_and_seeds_repeat_it() -> None:
    low = pictures(2, 8)
    none, some, again, more = (upscale(trained_stage(noise), low, [5, 6]) for noise in (0.0, 0.2, 0.2, 0.5))
    assert torch.equal(some, again)
    assert float((none - some).abs().mean()) > 0.01
    assert float((some - more).abs().mean()) > 0.01


def test_tiles_and_whole_images_are_given_the_same_noise() -> None:
    stage, low = trained_stage(0.3), pictures(1, 24)
    strips = [strip for _, strip in run_tiled_cascade([stage], low, 9, Tiling(tile=64))]
    torch.testing.assert_close(torch.cat(strips, 2), upscale(stage, low, [9]), rtol=0, atol=1e-5)


def test_more_noise_than_it_was_trained_with_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"input_noise: 0.6 is not in \[0, 0.5\], what stage 8-16 was trained with"):
        trained_stage(0.6)
    with pytest.raises(ConfigError, match="the chain would start from the noise"):
        replace(MODEL, objective=ObjectiveConfig(residual="upsampled"))
    with pytest.raises(ConfigError, match=r"input_noise: 1.0 is not in \[0, 1\)"):
        replace(MODEL.unet, input_noise=1.0)
    with pytest.raises(ConfigError, match="a base model has no input"):
        replace(MODEL.unet, input_noise=0.1, conditional=False)
