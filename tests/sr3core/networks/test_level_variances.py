"""What reaches the coarse levels of a network before it is trained, by the scale of its branches' last weights."""

import pytest
import torch

from sr3core.config import override
from sr3core.errors import ConfigError
from sr3core.hyperparameters import ModelConfig, OptimizerConfig
from sr3core.networks.architectures import unet_64_256, unet_tiny
from sr3core.networks.level_variances import level_variances
from sr3core.networks.unet import UNet
from sr3core.randomness import keyed_generator
from sr3core.training import create_state

DEEP = override(unet_64_256(), image_size=64, base_channels=8, attention_sizes=(4,))
"""64 -> 256's levels and blocks."""


def variances(branch_init: float) -> dict[str, float]:
    unet = override(DEEP, branch_init=branch_init)
    network = create_state(ModelConfig(low_size=16, high_size=64, unet=unet), OptimizerConfig(), seed=0).model
    x_up, y_t = (torch.randn(2, 3, 64, 64, generator=keyed_generator(0, name)) for name in ("x_up", "y_t"))
    with torch.no_grad(), level_variances(network) as found:
        network(x_up, y_t, torch.full((2,), 0.5))
    return {name: float(variance) for name, variance in found.items()}


def test_silent_branches_leave_next_to_nothing_for_the_coarse_levels_and_live_ones_keep_the_variance():
    silent, live = variances(0.0), variances(1.0)
    assert list(silent) == ["64x64", "32x32", "16x16", "8x8", "4x4", "2x2", "middle"]
    assert silent["middle"] < 1e-8
    assert silent["2x2"] < 1e-3 * silent["16x16"]
    assert min(live.values()) > 0.05


def test_hooks_are_gone_afterwards():
    network = UNet(unet_tiny(16, 8))
    with level_variances(network) as found:
        pass
    network(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16), torch.ones(1))
    assert not found


def test_live_branches_change_no_shape_and_an_untrained_network_still_says_zero():
    silent, live = UNet(unet_tiny(16, 8)), UNet(override(unet_tiny(16, 8), branch_init=1.0))
    shapes = [{name: value.shape for name, value in network.state_dict().items()} for network in (silent, live)]
    assert shapes[0] == shapes[1]
    assert not live(torch.randn(1, 3, 16, 16), torch.randn(1, 3, 16, 16), torch.ones(1)).any()


def test_a_scale_of_more_than_one_is_refused():
    with pytest.raises(ConfigError, match=r"branch_init: 1.5 is not in \[0, 1\]"):
        override(unet_tiny(16), branch_init=1.5)
